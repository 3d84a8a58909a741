"""The main job: from a command to a champion (:mod:`~raysearch.pipeline.job`)."""

from raysearch.pipeline.job import run
from raysearch.pipeline.plan import SearchCommand

__all__ = ["SearchCommand", "run"]
