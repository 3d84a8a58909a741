"""``python -m raysearch``: the ``raysearch`` command where that is not on the path."""

from raysearch.cli import main

if __name__ == "__main__":
    main()
