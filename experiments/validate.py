"""Is the ranking true? Subnets of a finished search are trained from scratch: ``validate.py OUTPUT_FOLDER``."""

from raysearch.cli import validate

if __name__ == "__main__":
    validate()
