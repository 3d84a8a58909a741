"""A network of a finished search is trained further: ``finetune.py OUTPUT_FOLDER``."""

from raysearch.cli import finetune

if __name__ == "__main__":
    finetune()
