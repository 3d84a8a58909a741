"""Pictures in tar files as WebDataset writes them: files of one sample stand together and differ by their endings.

``n01440764/18.jpg`` and ``n01440764/18.cls`` are a picture and its class. Only the places of the pictures are noted; they are
read from there, in any order. The package ``webdataset`` streams shards instead, mixing what is near, which fits neither an
exact shuffle nor a division by content, and its index files tell what :mod:`tarfile` finds: it would add nothing here.
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from raysearch.errors import UserError
from raysearch.store.names import shown
from raysearch.tasks.images.folders import EXTENSIONS, hidden
from raysearch.tasks.images.places import Place, open_binary
from raysearch.tasks.images.remote import Remote

LABEL_KEYS = ("label", "cls", "class", "class_id", "class_name", "category", "target")
"""In the JSON of a sample, the class, where no other is named."""

_BUFFER = 8 * 2**20
"""Bytes that are fetched at once from an object store: a tar is read from its beginning to its end."""


class Slice(NamedTuple):
    """A labelled picture inside a file."""

    name: str
    offset: int
    size: int
    label: str
    part: str = ""
    """As the file says it; nothing where it does not."""


def tar_slices(place: Place, *, label_key: str | None, skipped: Counter[str]) -> Iterator[Slice]:
    """The pictures of a tar in their order. Counts in ``skipped`` samples without a picture or without a class.

    Raises UserError that names a tar which is cut off or none.
    """
    sample: dict[str, Any] = {}
    for member in _members(place):
        folder, _, base = member.name.rpartition("/")
        stem, _, ending = base.partition(".")
        key = f"{folder}/{stem}"
        if sample.get("key") != key:
            yield from _finished(sample, label_key, skipped)
            sample = {"key": key}
        ending = ending.lower()
        if ending in ("cls", "json"):
            sample[ending] = member.content
        elif f".{ending}" in EXTENSIONS:
            sample.setdefault("picture", member)
    yield from _finished(sample, label_key, skipped)


class _Member(NamedTuple):
    name: str
    offset: int
    size: int
    content: bytes
    """Of files that tell a class."""


def _members(place: Place) -> Iterator[_Member]:
    import io

    try:
        with open_binary(place) as opened:
            file: Any = io.BufferedReader(opened, _BUFFER) if isinstance(place, Remote) else opened  # pyright: ignore
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    tar.members = []  # pyright: ignore  # else all are kept, for a reading by name
                    if not member.isfile() or hidden(member.name.rpartition("/")[2]):
                        continue
                    tells = member.name.lower().endswith((".cls", ".json"))
                    content = tar.extractfile(member) if tells else None
                    yield _Member(member.name, member.offset_data, member.size, b"" if content is None else content.read())
    except tarfile.ReadError as error:
        packed = place.name.lower().endswith(("gz", "bz2", "xz", "zst"))
        remedy = "unpack it with gunzip, as pictures in a packed one have no place of their own" if packed else "fetch it again"
        raise UserError(f"{shown(str(place))} is not a whole tar ({error}): {remedy}") from None


def _finished(sample: dict[str, Any], label_key: str | None, skipped: Counter[str]) -> Iterator[Slice]:
    if not sample:
        return
    picture: _Member | None = sample.get("picture")
    label = _label(sample, label_key)
    if picture is None:
        skipped["samples without a picture"] += 1
    elif label is None:
        skipped["samples without a class (.cls, or a label in .json)"] += 1
    else:
        yield Slice(picture.name, picture.offset, picture.size, label)


def _label(sample: dict[str, Any], label_key: str | None) -> str | None:
    if label_key is None and "cls" in sample:
        return sample["cls"].decode("utf-8", errors="surrogateescape").strip() or None
    try:
        told: Any = json.loads(sample.get("json", b"null"))
    except ValueError:
        return None
    if not isinstance(told, dict):
        return None
    keys = LABEL_KEYS if label_key is None else (label_key,)
    return next((str(told[key]) for key in keys if isinstance(told.get(key), int | str)), None)
