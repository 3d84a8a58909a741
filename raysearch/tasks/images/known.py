"""Divisions of image folders that this machine knows: its other processes find them without opening a file."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np

from raysearch.store.private import cache_folder, note_use, remove_old_files
from raysearch.tasks.images.config import DataConfig
from raysearch.tasks.images.fingerprints import FINGERPRINT
from raysearch.tasks.images.images import FolderImages
from raysearch.tasks.task import Splits

PARTS = ("train", "search", "finalists", "test")


def remember(root: Path, splits: Splits) -> None:
    """Keep a division of the images below ``root`` for :func:`recall`. Without room for it, other processes read the files."""
    sets = {part: cast(FolderImages, getattr(splits, part)) for part in PARTS}
    arrays: dict[str, Any] = {}
    for part, images in sets.items():
        arrays |= {f"{part}/names": images.names, f"{part}/records": images.records, f"{part}/labels": images.labels}
    roots = {part: os.fsencode(images.root).hex() for part, images in sets.items()}
    said = {"classes": splits.classes, "notes": splits.notes, "roots": roots, "whole": sets["train"].whole}
    path = _path(root, splits.digest)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with suppress(OSError):
        try:
            with temporary.open("wb") as file:
                np.savez(file, said=np.array(json.dumps(said)), **arrays)
            temporary.replace(path)
            remove_old_files(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def recall(root: Path, digest: str, config: DataConfig) -> Splits | None:
    """The division of the images below ``root`` that has ``digest``.

    None where this machine does not know it, and where a training image changed since. The others are not looked at: each is
    compared with what it was when it is read.
    """
    path = _path(root, digest)
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        note_use(path)
        said = json.loads(str(arrays["said"]))
        sets = {
            part: FolderImages(
                Path(os.fsdecode(bytes.fromhex(said["roots"][part]))),
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


def _changed(images: FolderImages) -> bool:
    """Whether a file was written since it was examined; none is opened."""
    known = images.records[["size", "mtime", "ctime"]].tolist()
    for index, earlier in enumerate(known):
        try:
            state = images.path(index).stat()
        except OSError:
            return True
        if (state.st_size, state.st_mtime_ns, state.st_ctime_ns) != earlier:
            return True
    return False


def _path(root: Path, digest: str) -> Path:
    place = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:16]
    return cache_folder("divisions") / f"{place}-{digest[:32]}.npz"
