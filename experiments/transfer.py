"""A network that a search found learns other classes: ``transfer.py OUTPUT_FOLDER --data DIR``."""

from raysearch.cli import transfer

if __name__ == "__main__":
    transfer()
