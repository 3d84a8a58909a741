"""What image files hold, told by hashes that are computed once: identity of a data set, equal pictures, unreadable ones."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from raysearch.store.private import cache_folder, note_use, remove_old_files
from raysearch.tasks.images.places import text_of
from raysearch.tasks.images.reading import READER, Mode, Picture, read_header, read_picture
from raysearch.tasks.images.stores import Store, threads_for

DECODED_AT_MOST = 50_000
"""Up to this many images of a data set are decoded to be compared; of larger sets beginning, end and size of each file tell."""

_END = 2**16
"""Bytes of beginning and end that stand for a file of a large set."""

FRESH = 2.0
"""Seconds: a file that changed just now could change again within the same tick of the file system's clock."""

FINGERPRINT = np.dtype(
    [
        *(("size", "<i8"), ("mtime", "<i8"), ("ctime", "<i8")),
        ("content", "u1", 16),  # hash of the file's bytes
        ("picture", "u1", 16),  # hash of the decoded pixels; of the bytes again in a large set
        *(("height", "<i4"), ("width", "<i4")),
        ("brightest", "<f8"),  # see reading.Picture; NaN where it is None
    ]
)
"""One image file. Sizes in pixels; times in nanoseconds."""


def content_hash(content: bytes) -> bytes:
    """Of a whole file: 16 bytes."""
    return hashlib.blake2b(content, digest_size=16).digest()


def ends_hash(file: BinaryIO) -> bytes:
    """Of an open file's size, beginning and end: 16 bytes."""
    begin = file.read(_END)
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END))
    return content_hash(begin + file.read(_END) + str(size).encode())


Look = Callable[[int, Picture | None], None]
"""Called with the index of each picture when it was read, and with the picture; None for an unreadable one."""


def fingerprints(
    store: Store, names: list[bytes], *, mode: Mode, white: float | None, whole: bool, look: Look | None = None
) -> tuple[np.ndarray, dict[int, str]]:
    """Of each picture in ``store``, several at once, and by index what is wrong with those that are unreadable.

    Pictures in files whose size and times did not change since an earlier call are not read again; what is known of them
    stands in the cache folder. Who wants to ``look`` at each, by several threads at once, has all of them read, ``whole``.
    """
    stored = cache_folder("fingerprints") / f"{_key(store, mode, white, whole)}.npz"
    known = {} if look is not None else _read(stored)
    records = np.zeros(len(names), FINGERPRINT)
    begun = time.time_ns()

    def examine(index: int) -> str | None:
        said, picture = examined(index)
        if look is not None:
            look(index, picture)
        return said

    def examined(index: int) -> tuple[str | None, Picture | None]:
        name, record = names[index], records[index]
        try:
            state = store.state(name)
            earlier = known.get(name)
            if earlier is not None and tuple(earlier[part].item() for part in ("size", "mtime", "ctime")) == state:
                records[index] = earlier
                return None, None
            record["size"], record["mtime"], record["ctime"] = state
            record["brightest"] = np.nan
            if not whole:
                with store.open(name) as file:
                    record["content"] = record["picture"] = _array(ends_hash(file))
                    file.seek(0)
                    record["height"], record["width"] = read_header(file, name=store.shown(name))
                return None, None
            content = store.read(name)
            record["content"] = _array(content_hash(content))
            picture = read_picture(content, mode, white=white, name=store.shown(name))
        except OSError as error:
            return f"{store.shown(name)} cannot be read ({error.strerror})", None
        except ValueError as error:
            return str(error), None
        image = picture.image
        record["picture"] = _array(picture_hash(image))
        record["height"], record["width"] = image.height, image.width
        record["brightest"] = np.nan if picture.brightest is None else picture.brightest
        return None, picture

    with ThreadPoolExecutor(threads_for(store)) as pool:
        problems = dict(enumerate(pool.map(examine, range(len(names)), chunksize=16)))
    unreadable = {index: said for index, said in problems.items() if said is not None}
    settled = (records["ctime"] < begun - FRESH * 1e9) & (records["mtime"] < begun - FRESH * 1e9)
    settled[list(unreadable)] = False
    _write(stored, [name for name, keep in zip(names, settled, strict=True) if keep], records[settled])
    return records, unreadable


def picture_hash(image: Image.Image) -> bytes:
    """Of the pixels of a picture as it was read: 16 bytes."""
    return content_hash(f"{image.size}".encode() + image.tobytes())


def _array(digest: bytes) -> np.ndarray:
    return np.frombuffer(digest, np.uint8)


def _key(store: Store, mode: Mode, white: float | None, whole: bool) -> str:
    parts = [os.fsencode(text_of(store.root)).hex(), mode, white, whole, READER]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _read(path: Path) -> dict[bytes, Any]:
    """What an earlier call knew; nothing where the file is not there or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            names, records = stored["names"], stored["records"]
        note_use(path)  # writing it anew may find no room
        return dict(zip(names.tolist(), records, strict=True)) if records.dtype == FINGERPRINT else {}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}


def _write(path: Path, names: list[bytes], records: np.ndarray) -> None:
    """Keep what is known; without room for it, the next call reads the files again."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with suppress(OSError):
        try:
            with temporary.open("wb") as file:
                np.savez(file, names=np.array(names, dtype=np.bytes_), records=records)
            temporary.replace(path)
            remove_old_files(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
