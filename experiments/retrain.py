"""A network of a finished search is trained from scratch: ``retrain.py OUTPUT_FOLDER``."""

from raysearch.cli import retrain

if __name__ == "__main__":
    retrain()
