"""What a data set holds, before any picture is opened: its classes, its parts, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from raysearch.errors import UserError
from raysearch.store.names import shown
from raysearch.tasks.images.stores import Store

OTHER_PICTURES = (
    *(".heic", ".heif", ".avif", ".jxl", ".svg", ".psd", ".ai", ".eps", ".pdf", ".ico", ".hdr", ".exr", ".dcm"),
    *(".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
)
"""Pictures that are not read here, and are named when they are left out."""


@dataclass(slots=True)
class Listing:
    """The pictures of a data set's part, and what was left out of it."""

    store: Store
    names: list[bytes] = field(default_factory=list[bytes])
    """Of the pictures in ``store``, as bytes: a file system allows names that are no text."""
    labels: list[int] = field(default_factory=list[int])
    skipped: Counter[str] = field(default_factory=Counter[str])
    """What is not used, counted by what it is: files by ending, links that lead nowhere, rows without a label."""
    beside: int = 0
    """Images beside the class folders, which have no class."""
    deeper: int = 0
    """Images in sub-folders of the class folders, which are read."""
    by_folder: bool = False
    """Whether each class is a folder below the store's root."""
    source: str = ""
    """What lists the pictures, where that is a file: as messages name it."""
    rows: list[int] | None = None
    """Where in it each stands."""

    def labels_array(self) -> np.ndarray:
        """Class of each image (int64)."""
        return np.array(self.labels, dtype=np.int64)

    def class_shown(self, name: str) -> str:
        """One of its classes, as messages name it."""
        return shown(f"{self.store.root}/{name}") if self.by_folder else f"the class {shown(name)} of {self.source}"

    def row_shown(self, index: int) -> str:
        """Where a picture is listed, in brackets behind its name; nothing where it is in no list."""
        return "" if self.rows is None else f" ({self.source}, row {self.rows[index]})"


@dataclass(frozen=True, slots=True)
class Found:
    """A data set."""

    classes: tuple[str, ...]
    """In the order of the labels, as they are stored."""
    parts: Mapping[str, Listing]
    """``train``, which is all where there are no others; ``val`` and ``test`` where they are given."""
    notes: tuple[str, ...] = ()
    """What a user should know of how it was read."""


def left_out(listings: Sequence[Listing], *, unreadable: Sequence[str] = ()) -> list[str]:
    """What is not used, counted by reason, and what is used although one might not expect it; in words."""
    skipped: Counter[str] = sum((listing.skipped for listing in listings), Counter[str]())
    beside, deeper = sum(listing.beside for listing in listings), sum(listing.deeper for listing in listings)
    reasons = [f"{count} {ending or 'without an ending'}" for ending, count in sorted(skipped.items())]
    if beside:
        reasons.append(f"{beside} beside the class folders")
    if unreadable:
        named = ", ".join(unreadable[:3]) + (", ..." if len(unreadable) > 3 else "")
        reasons.append(f"{len(unreadable)} unreadable ({named})")
    said: list[str] = []
    if reasons:
        convert = sorted(set(skipped) & set(OTHER_PICTURES))
        remedy = f"; {', '.join(convert)} pictures are not read here: convert them to .jpg or .png" if convert else ""
        what = "files" if all(listing.by_folder for listing in listings) else "entries"
        said.append(f"skipped {skipped.total() + beside + len(unreadable)} {what}: {', '.join(reasons)}{remedy}")
    if deeper:
        said.append(f"{deeper} images are in sub-folders of their class")
    return said


def numbered(labels: Sequence[str], names: Sequence[str] = (), *, source: str) -> tuple[tuple[str, ...], list[int]]:
    """Classes of pictures that a list labels, in order, and the class of each.

    Labels that are all whole numbers are in the order of these, others in that of the alphabet. Where the list comes with
    ``names``, a number is the place of one. A class without pictures is none.

    Raises UserError that names ``source`` where a number has no name.
    """
    every = set(labels)
    whole = all(_is_whole(label) for label in every)
    order = sorted(every, key=int) if whole else sorted(every)
    if names and every <= set(names):
        order = [name for name in names if name in every]
    elif names:
        if not whole:
            other = next(label for label in order if not _is_whole(label))
            raise UserError(
                f"{source} has names of {len(names)} classes, and the label {shown(other[:40])!r} is none of them: "
                "give labels that are names, or numbers from 0"
            )
        if wrong := [label for label in order if not 0 <= int(label) < len(names)]:
            raise UserError(f"{source} has the label {wrong[0]} and names of {len(names)} classes: give a name for each number")
        numbers = sorted({int(label) for label in order})
        place = {number: index for index, number in enumerate(numbers)}
        return tuple(names[number] for number in numbers), [place[int(label)] for label in labels]
    place = {label: index for index, label in enumerate(order)}
    return tuple(order), [place[label] for label in labels]


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal()
