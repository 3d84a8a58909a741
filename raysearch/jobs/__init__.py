"""The main job: from a command to a champion (:mod:`~raysearch.jobs.search`)."""

from raysearch.jobs.plan import SearchCommand
from raysearch.jobs.search import run
from raysearch.jobs.validate import ValidateCommand, validate

__all__ = ["SearchCommand", "ValidateCommand", "run", "validate"]
