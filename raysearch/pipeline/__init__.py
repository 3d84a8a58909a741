"""The main job: from a command to a champion (:mod:`~raysearch.pipeline.job`)."""

from raysearch.pipeline.job import run
from raysearch.pipeline.plan import SearchCommand
from raysearch.pipeline.validation import ValidateCommand, validate

__all__ = ["SearchCommand", "ValidateCommand", "run", "validate"]
