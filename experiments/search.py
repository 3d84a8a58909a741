"""The main job: supernet (unless given), search, report, champion. ``search.py --help`` lists the recipes."""

from raysearch.cli import search

if __name__ == "__main__":
    search()
