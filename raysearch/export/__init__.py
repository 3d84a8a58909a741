"""Subnets that leave the house.

``save_subnet`` and ``load_subnet`` write and read a subnet as safetensors and JSON; ``load_classifier`` reads it with all that
makes names of pictures. :mod:`~raysearch.export.programs` makes files that run without this package,
:mod:`~raysearch.export.timm` (imported by its users alone) names for ``timm.create_model``, :mod:`~raysearch.jobs.export` all
of them from a finished search.
"""

from raysearch.export.classifier import Guess, ImageClassifier, load_classifier
from raysearch.export.subnet_file import load_subnet, read_card, save_subnet

__all__ = ["Guess", "ImageClassifier", "load_classifier", "load_subnet", "read_card", "save_subnet"]
