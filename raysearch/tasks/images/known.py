"""Divisions of image sets that this machine knows: its other processes find them without opening a file."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np

from raysearch.store.private import cache_folder, note_use, remove_old_files
from raysearch.tasks.images.config import DataConfig
from raysearch.tasks.images.fingerprints import FINGERPRINT
from raysearch.tasks.images.images import EncodedImages
from raysearch.tasks.images.places import Place, text_of
from raysearch.tasks.images.shards import shards_store
from raysearch.tasks.images.stores import Store, files_store
from raysearch.tasks.task import Splits

PARTS = ("train", "search", "finalists", "test")


def remember(place: Place, splits: Splits) -> None:
    """Keep a division of the images at ``place`` for :func:`recall`. Without room for it, other processes read the files."""
    sets = {part: cast(EncodedImages, getattr(splits, part)) for part in PARTS}
    arrays: dict[str, Any] = {}
    for part, images in sets.items():
        arrays |= {f"{part}/names": images.names, f"{part}/records": images.records, f"{part}/labels": images.labels}
    stores = {part: images.store.described() for part, images in sets.items()}
    said = {"classes": splits.classes, "notes": splits.notes, "stores": stores, "whole": sets["train"].whole}
    path = _path(place, splits.digest)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with suppress(OSError):
        try:
            with temporary.open("wb") as file:
                np.savez(file, said=np.array(json.dumps(said)), **arrays)
            temporary.replace(path)
            remove_old_files(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def recall(place: Place, digest: str, config: DataConfig) -> Splits | None:
    """The division of the images at ``place`` that has ``digest``.

    None where this machine does not know it, and where a training image changed since. The others are not looked at: each is
    compared with what it was when it is read.
    """
    path = _path(place, digest)
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        note_use(path)
        said = json.loads(str(arrays["said"]))
        stores = {part: _opened(said["stores"][part]) for part in PARTS}
        sets = {
            part: EncodedImages(
                stores[part],
                names=arrays[f"{part}/names"],
                records=arrays[f"{part}/records"].astype(FINGERPRINT, casting="no"),
                labels=arrays[f"{part}/labels"],
                mode=config.mode,
                white=config.white,
                whole=said["whole"],
                as_in_0_1_0=config.rules == "0.1",
            )
            for part in PARTS
        }
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    splits = Splits(**sets, classes=tuple(said["classes"]), notes=tuple(said["notes"]))
    return splits if splits.digest == digest and not _changed(sets["train"]) else None


def _opened(described: dict[str, Any]) -> Store:
    """Inverse of ``described`` of a store. Raises UserError, LookupError or OSError where it is not there as it was."""
    return _STORES[described["kind"]](described)


_STORES: dict[str, Callable[[dict[str, Any]], Store]] = {"files": files_store, "shards": shards_store}


def _changed(images: EncodedImages) -> bool:
    """Whether a file was written since it was examined; none is opened."""
    known = images.records[["size", "mtime", "ctime"]].tolist()
    for index, earlier in enumerate(known):
        try:
            if images.store.state(images.name(index)) != earlier:
                return True
        except OSError:
            return True
    return False


def _path(place: Place, digest: str) -> Path:
    key = hashlib.sha256(os.fsencode(text_of(place))).hexdigest()[:16]
    return cache_folder("divisions") / f"{key}-{digest[:32]}.npz"
