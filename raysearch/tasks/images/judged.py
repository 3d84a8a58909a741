"""Labelled images that a finished network is judged on: those of a test split, or all that lie at a place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysearch.errors import UserError
from raysearch.store.names import shown
from raysearch.tasks.images.config import DataConfig
from raysearch.tasks.images.datasets import find, place_of_data
from raysearch.tasks.images.fingerprints import picture_hash
from raysearch.tasks.images.images import ArrayImages
from raysearch.tasks.images.listing import left_out
from raysearch.tasks.images.parts import examined

LISTED = 5
"""Classes that a message names at most."""


@dataclass(frozen=True, slots=True)
class JudgedImages:
    """Images, and what they are to be recognised as."""

    images: Any
    """As the task's splits hold them; labels are places in ``classes``."""
    classes: tuple[str, ...]
    which: str
    """Which images these are, in words."""
    notes: tuple[str, ...] = ()
    """What a user should know of them, a sentence each."""


def all_images(config: DataConfig) -> JudgedImages:
    """The images at a place that nobody divides: its test part where it has one, else its val part, else all.

    Raises UserError for a place without images, and for unreadable ones unless ``config`` says to go on without them.
    """
    found = find(place_of_data(config), config)
    part = next(part for part in ("test", "val", "train") if part in found.parts)
    listing = found.parts[part]
    if not listing.names:
        raise UserError(f"--data {shown(config.source or '')} has no images that are read here")
    every = examined({part: listing}, config)
    which = (
        f"the {part} part of {shown(config.source or '')}" if len(found.parts) > 1 else f"all of {shown(config.source or '')}"
    )
    notes = (*found.notes, *left_out([listing], unreadable=[*every.unreadable]))
    return JudgedImages(every.sets[part], tuple(map(shown, found.classes)), which, notes)


def with_classes_of(judged: JudgedImages, classes: Sequence[str] | None, *, outputs: int) -> JudgedImages:
    """The same images, labelled with the places of their classes among those of a network.

    Args:
        judged: with classes of its own.
        classes: of the network, in the order of its outputs; None, or as many as nobody named: as many as there are in the
            data, in their order.
        outputs: of the network.

    Raises:
        UserError: a class of the images is none of the network's, or their number is another where names are not known.

    """
    if not classes:
        if len(judged.classes) != outputs:
            raise UserError(
                f"the network has {outputs} outputs without names, and the images {len(judged.classes)} classes: give images "
                "of all of its classes, in folders of the order that it was trained with"
            )
        return judged
    unknown = [name for name in judged.classes if name not in classes]
    if unknown:
        named = ", ".join(unknown[:LISTED]) + (", ..." if len(unknown) > LISTED else "")
        raise UserError(
            f"{len(unknown)} of {len(judged.classes)} classes of the images are none of the network's ({named}): it knows "
            f"{', '.join(list(classes)[:LISTED])}{', ...' if len(classes) > LISTED else ''}; `raysearch transfer` teaches "
            "others"
        )
    place = np.array([list(classes).index(name) for name in judged.classes], dtype=np.int64)
    images = judged.images.subset(np.arange(len(judged.images)))
    images.labels = place[judged.images.labels]
    return JudgedImages(images, tuple(classes), judged.which, judged.notes)


def shared_pictures(images: Any, others: Any) -> np.ndarray:
    """Which of the images of one split are, as pictures, among those of another (bool, n)."""
    known = set(_hashes(others))
    return np.array([picture in known for picture in _hashes(images)], dtype=bool)


def _hashes(images: Any) -> list[bytes]:
    """Of the pictures as they would be read from a file; those in memory know the hash of their array alone."""
    if isinstance(images, ArrayImages):
        return [picture_hash(images.decode(index)) for index in range(len(images))]
    return images.pictures()
