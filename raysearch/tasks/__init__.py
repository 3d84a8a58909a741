"""What is learned and how it is judged: the contract of a task, and image classification."""

from __future__ import annotations

from raysearch.errors import UserError
from raysearch.tasks.task import Batches, Ends, Items, Splits, Task

IMAGE_CLASSIFICATION = "image-classification"
"""The task of files that name none: version 0.1.0 had one."""


def find_task(name: str) -> type[Task]:
    """The task that a stored configuration names. Raises UserError for one that is not of this package."""
    from raysearch.tasks.images.classification import ImageClassification  # here: it imports this package's contract

    known = {ImageClassification.name: ImageClassification}
    if name not in known:
        raise UserError(f"unknown task {name!r}; known: {', '.join(known)}")
    return known[name]


__all__ = ["IMAGE_CLASSIFICATION", "Batches", "Ends", "Items", "Splits", "Task", "find_task"]
