"""From a command line to typed settings.

:mod:`~raysearch.parsing.one_dataclass` is for a job that is one dataclass, :mod:`~raysearch.parsing.search` for the main one,
which imports all that a search needs: seconds that no other job waits for.
"""
