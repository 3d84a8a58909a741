"""Data sets whose pictures stand in larger files: WebDataset tars, Parquet and Arrow. Where each picture stands is found once.

What was found is kept in the cache folder, for the other processes of this machine and for later runs, as long as no file
changes: where pictures stand in files that they can be read from, and pictures unpacked from those where they cannot.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from raysearch.errors import UserError
from raysearch.store.files import written_whole
from raysearch.store.names import shown
from raysearch.store.private import cache_folder, in_use, remove_unused
from raysearch.tasks.images.config import DataConfig
from raysearch.tasks.images.fingerprints import FRESH
from raysearch.tasks.images.folders import PARTS, hidden, is_image, part_named
from raysearch.tasks.images.listing import Found, Listing, numbered
from raysearch.tasks.images.places import Place, entries, is_file, place_of, read_text, state_of, text_of
from raysearch.tasks.images.stores import SPAN, Slices
from raysearch.tasks.images.tables import class_names, in_place, table_slices, unpacked_bytes
from raysearch.tasks.images.tars import tar_slices

TARS = (".tar",)
TABLES_OF_IMAGES = (".parquet", ".arrow", ".feather")
PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")

NAMES_OF_CLASSES = ("classnames.txt", "classes.txt")
"""Beside tars: the names of the numbers that their classes are, one a line."""

Columns = tuple[str | None, str | None, str | None]
"""Names of the columns of images, classes and parts, where they are given."""

_VERSION = 1
_DEPTH = 2
"""Folders below a data set's that may hold its files, as ``data/train/``."""


def shard_files(root: Place) -> list[str]:
    """Paths below ``root`` of the files that pictures stand in; none where pictures are files of their own.

    Raises UserError for files of both kinds, tars and tables, and for packed tars.
    """
    found: list[str] = []
    packed: list[str] = []
    waiting = [("", 0)]
    while waiting:
        below, depth = waiting.pop(0)
        for name, kind in entries(root / below if below else root):
            if hidden(name) or kind == "lost":
                continue
            path, ending = f"{below}/{name}" if below else name, name.lower()
            if kind == "folder":
                if depth < _DEPTH:
                    waiting.append((path, depth + 1))
            elif below and is_image(name):
                return []
            elif ending.endswith((*TARS, *TABLES_OF_IMAGES)):
                found.append(path)
            elif ending.endswith(PACKED):
                packed.append(path)
    kinds = {path.rpartition(".")[2].lower() for path in found}
    if len(kinds) > 1:
        raise UserError(f"{shown(str(root))} holds files of several kinds ({', '.join(sorted(kinds))}): leave those of one")
    if packed and not found:
        raise UserError(
            f"{shown(str(root / packed[0]))} is packed, so that pictures in it have no place of their own: unpack it to .tar "
            "with gunzip, unzstd or unxz"
        )
    return sorted(found)


def find_in_shards(root: Place, files: Sequence[str], config: DataConfig) -> Found:
    """The pictures in ``files`` below ``root``; their part is said by the files' names, or by a column.

    Raises UserError, in one line with the remedy, for files that cannot be read, and for some that name no part beside others
    that do.
    """
    shards = open_shards(root, files, (config.image_column, config.label_column, config.split_column))
    parts = _parts_of_files(root, files)
    source = shown(str(root / files[0] if len(files) == 1 else root))
    names = shards.classes or _names_beside(root)
    labels = [label for shard in shards.contents for label in shard.labels]
    classes, numbers = numbered(labels, names, source=source)
    listings: dict[str, Listing] = {}
    notes: list[str] = []
    skipped = Counter[str]()
    start = 0
    for file, part_of_file, shard in zip(files, parts, shards.contents, strict=True):
        own: dict[str, str] = {text: _part_of_row(text, root / file) for text in set(shard.parts)}
        for index, name in enumerate(shard.names):
            part = part_of_file or own[shard.parts[index]] or "train"
            listing = listings.setdefault(part, Listing(shards.store, source=source))
            listing.names.append(os.fsencode(name))
            listing.labels.append(numbers[start + index])
        start += len(shard.names)
        if shard.names:
            skipped += shard.skipped
        else:
            notes.append(f"passed over {shown(file)}, which has no pictures of known classes{_reasons([shard.skipped])}")
    if "train" not in listings:
        raise UserError(f"{source} has no train images of known classes: give some")
    listings["train"].skipped = skipped
    if len(listings) > 1:
        for part, listing in listings.items():
            listing.source = f"{source} ({part})"
    return Found(classes, {part: listings[part] for part in PARTS if part in listings}, tuple(notes))


def _parts_of_files(root: Place, files: Sequence[str]) -> list[str | None]:
    """The part that the name of each file says, or that of a folder that it is in; None for all where none does."""
    parts = [_part_in(file) for file in files]
    if any(parts) and not all(parts):
        absent = shown(str(root / files[parts.index(None)]))
        raise UserError(
            f"{absent} does not say whether its images are train, val or test, as other files there do: rename or move it"
        )
    return parts


def _part_in(file: str) -> str | None:
    """As ``train`` of ``data/train-00000-of-00002.parquet`` and of ``train/0000.tar``."""
    words = "".join(character if character.isalnum() else " " for character in file).split()
    return next((part for word in words if (part := part_named(word)) is not None), None)


def _part_of_row(text: str, file: Place) -> str:
    if not text:
        return ""
    part = part_named(text)
    if part is None:
        raise UserError(
            f"{shown(str(file))} has {shown(text)!r} where a row says its part: parts are "
            f"{', '.join(name for names in PARTS.values() for name in names)}"
        )
    return part


def _names_beside(root: Place) -> tuple[str, ...]:
    """Names of numbered classes from a file beside the tars."""
    place = next((root / name for name in NAMES_OF_CLASSES if is_file(root / name)), None)
    return () if place is None else tuple(line.strip() for line in read_text(place).splitlines() if line.strip())


# --- what files hold --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Contents:
    """The labelled pictures of one file."""

    names: list[str]
    """In the store."""
    labels: list[str]
    parts: list[str]
    skipped: Counter[str]


@dataclass(frozen=True, slots=True)
class Shards:
    """Files of a data set, looked through."""

    store: Slices
    contents: list[_Contents]
    """Of each file."""
    classes: tuple[str, ...]
    """Names of numbered classes, where the files have them."""


def open_shards(root: Place, files: Sequence[str], columns: Columns) -> Shards:
    """What stands where in ``files``; they are only looked through where this machine does not know it.

    Raises UserError that names a file which cannot be read.
    """
    store, arrays, said = _opened(root, files, columns)
    names, labels, own = ([os.fsdecode(text) for text in arrays[name].tolist()] for name in ("names", "labels", "parts"))
    bounds = np.searchsorted(arrays["spans"]["file"], np.arange(len(files) + 1)).tolist()
    contents = [
        _Contents(names[start:end], labels[start:end], own[start:end], Counter(skipped))
        for (start, end), skipped in zip(pairwise(bounds), said["skipped"], strict=True)
    ]
    return Shards(store, contents, tuple(said["classes"]))


def shards_store(described: dict[str, Any]) -> Slices:
    """Inverse of ``described`` of a store of slices."""
    files = [os.fsdecode(bytes.fromhex(file)) for file in described["files"]]
    return _opened(place_of(os.fsdecode(bytes.fromhex(described["root"]))), files, tuple(described["columns"]))[0]


def _opened(root: Place, files: Sequence[str], columns: Columns) -> tuple[Slices, dict[str, np.ndarray], dict[str, Any]]:
    """The store, and what is known of the pictures in it: arrays in the order of the files, and JSON values."""
    places = [root / file for file in files]
    try:
        states = [state_of(place) for place in places]
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}): restore it") from None
    described = {
        **{"kind": "shards", "root": os.fsencode(text_of(root)).hex(), "files": [os.fsencode(file).hex() for file in files]},
        "columns": columns,
    }
    parts: list[Any] = [_VERSION, described, states]
    if max(max(state[1:]) for state in states) > time.time_ns() - FRESH * 1e9:
        parts.append([os.getpid(), time.time_ns()])  # one that could change again within a tick of the clock is nobody else's
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    folder = cache_folder("shards")
    index, unpacked = folder / f"{key}.npz", folder / f"{key}.pictures"
    with in_use(folder / f"{key}.lock") as held:
        if not index.exists():
            remove_unused(folder)
            _look_through(places, files, columns, index=index, unpacked=unpacked)
        with np.load(index, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    said = json.loads(str(arrays["said"]))
    order = np.argsort(arrays["names"], kind="stable")
    store = Slices(
        root,
        sources=places,
        files=[unpacked if elsewhere else place for place, elsewhere in zip(places, said["unpacked"], strict=True)],
        names=arrays["names"][order],
        spans=arrays["spans"][order],
        described=described,
        held=[held],
    )
    return store, arrays, said


def _look_through(places: Sequence[Place], files: Sequence[str], columns: Columns, *, index: Path, unpacked: Path) -> None:
    """Write ``index``, and to ``unpacked`` the pictures of files that they cannot be read from."""
    image, label, split = columns
    config = DataConfig(dataset="images", image_column=image, label_column=label, split_column=split)
    is_tar = [place.name.lower().endswith((*TARS, *PACKED)) for place in places]
    stay = [tar or in_place(place) for place, tar in zip(places, is_tar, strict=True)]
    classes = {class_names(place, config) for place, tar in zip(places, is_tar, strict=True) if not tar}
    if len(classes) > 1:
        raise UserError(f"{shown(str(places[0]))} and files beside it have different names of classes: leave those of one set")
    skipped = [Counter[str]() for _ in places]
    found: dict[bytes, tuple[int, int, int, bytes, bytes]] = {}  # a tar may hold a name twice: the last one counts
    with ExitStack() as stack:
        out: BinaryIO | None = None
        if not all(stay):
            _check_room(sum(unpacked_bytes(place) for place, stays in zip(places, stay, strict=True) if not stays))
            out = stack.enter_context(stack.enter_context(written_whole(unpacked)).open("wb"))
        for number, (place, file) in enumerate(zip(places, files, strict=True)):
            if is_tar[number]:
                mark, slices = "/", tar_slices(place, label_key=label, skipped=skipped[number])
            else:
                to = None if stay[number] else out
                mark, slices = "#", table_slices(place, config, skipped=skipped[number], to=to)
            for name, offset, size, text, part in slices:
                told = os.fsencode(text), os.fsencode(part)
                found[os.fsencode(f"{file}{mark}{name}")] = (number, offset, size, *told)
    if not found:
        raise UserError(
            f"{shown(str(places[0]))}{' and files beside it have' if len(places) > 1 else ' has'} no pictures of known classes"
            f"{_reasons(skipped)}: give another place"
        )
    numbers, offsets, sizes, labels, parts = zip(*found.values(), strict=True)
    spans = np.zeros(len(found), SPAN)
    spans["file"], spans["offset"], spans["size"] = numbers, offsets, sizes
    said = {"unpacked": [not stays for stays in stay], "skipped": skipped, "classes": next(iter(classes), ())}
    with written_whole(index) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            said=np.array(json.dumps(said)),
            names=np.array(list(found), np.bytes_),
            spans=spans,
            labels=np.array(labels, np.bytes_),
            parts=np.array(parts, np.bytes_),
        )


def _reasons(skipped: Sequence[Counter[str]]) -> str:
    every = sum(skipped, Counter[str]())
    return f" ({', '.join(f'{count} {what}' for what, count in every.items())})" if every else ""


def _check_room(needed: int) -> None:
    """Raises UserError where pictures could not be unpacked."""
    folder = cache_folder("shards")
    if needed > (free := shutil.disk_usage(folder).free):
        raise UserError(
            f"pictures of Parquet or packed Arrow files are unpacked into {folder}, which has {free / 2**30:.1f} GiB free of "
            f"{needed / 2**30:.1f} GiB needed: make room, set RAYSEARCH_CACHE to a folder with more, or give tars or "
            "uncompressed Arrow files, which are read where they are"
        )
