"""Where data lie: a path of this machine, or an address of an object store. The same questions to both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from raysearch.errors import UserError
from raysearch.tasks.images.remote import Entry, Remote, State, is_address

Place = Path | Remote
"""A file or folder; ``/`` gives what is below it, ``str`` shows it."""


def place_of(text: str) -> Place:
    """A path or an address. Raises UserError for an address that is not read here."""
    return Remote.parse(text) if is_address(text) else Path(text)


def text_of(place: Place) -> str:
    """What :func:`place_of` makes it of again."""
    return place.address if isinstance(place, Remote) else str(place)


def is_folder(place: Place) -> bool:
    """Whether it is a folder that can be looked into."""
    return place.is_folder() if isinstance(place, Remote) else place.is_dir()


def is_file(place: Place) -> bool:
    """Whether it is a file."""
    if isinstance(place, Path):
        return place.is_file()
    try:
        place.state()
    except FileNotFoundError:
        return False
    return True


def entries(folder: Place) -> list[Entry]:
    """What a folder holds, in no order. Raises OSError where it cannot be listed."""
    return folder.entries() if isinstance(folder, Remote) else list(_scanned(folder))


def _scanned(folder: Path) -> Iterator[Entry]:
    with os.scandir(folder) as found:
        for entry in found:
            if entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110  # an entry's path is text
                yield Entry(entry.name, "lost")
            elif entry.is_dir():
                yield Entry(entry.name, "folder")
            elif entry.is_file():
                yield Entry(entry.name, "file")


def state_of(place: Place) -> State:
    """What tells a changed file. Raises OSError where there is none."""
    if isinstance(place, Remote):
        return place.state()
    found = place.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read_bytes(place: Place) -> bytes:
    """The content of a file. Raises OSError."""
    return place.read_bytes()


def open_binary(place: Place) -> BinaryIO:
    """A file to read from, at any place in it. Raises OSError."""
    return place.open() if isinstance(place, Remote) else place.open("rb")


def read_text(place: Place) -> str:
    """A text file in UTF-8; bytes that are none are kept as names of files keep them. Raises UserError that names it."""
    try:
        return read_bytes(place).decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{place} cannot be read ({error.strerror}): restore it") from None
