"""From a command line to typed settings: ``parse`` for a job that is one dataclass, ``parse_search`` for the main one."""

from raysearch.parsing.one_dataclass import parse
from raysearch.parsing.search import parse_search

__all__ = ["parse", "parse_search"]
