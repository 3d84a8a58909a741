"""Files that are whole or not there: a kill or a power cut leaves the old content or the new one, never a part."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from raysearch.store.names import readable


@contextmanager
def written_whole(path: Path) -> Generator[Path]:
    """A name beside ``path`` to write a file to, which takes the place of ``path`` at the end of the ``with`` block.

    On disk when the block is left, the folder's entry included. An exception, also one that the block raises because what it
    wrote is no good, leaves ``path`` as it was and nothing beside it. A killed process may leave the temporary file; the next
    writer overwrites it. A path has one writer at a time: an output folder is written by whoever holds its lock.
    """
    temporary = temporary_name(path)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    except BaseException as error:
        _name(path, error)
        with suppress(OSError):  # what went wrong is said; not, that its leftovers cannot be removed either
            temporary.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def write_whole(path: Path, content: str | bytes | memoryview) -> None:
    """Write ``content`` (text as UTF-8) to ``path``, by :func:`written_whole`."""
    with written_whole(path) as temporary:
        if isinstance(content, str):
            temporary.write_text(readable(content), encoding="utf-8")
        else:
            temporary.write_bytes(content)


@contextmanager
def folder_written_whole(path: Path) -> Generator[Path]:
    """:func:`written_whole` for a folder and all files in it. What ``path`` held is removed just before it is replaced."""
    temporary = temporary_name(path)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        yield temporary
        for folder, _, names in os.walk(temporary):
            for name in names:
                _flush(Path(folder, name))
            flush_folder(Path(folder))
        shutil.rmtree(path, ignore_errors=True)  # a rename replaces an empty folder only
        temporary.replace(path)
    except BaseException as error:
        _name(path, error)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    flush_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make ``path`` and what is missing above it, durably; one that is there is left alone."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        flush_folder(folder.parent)


def temporary_name(path: Path) -> Path:
    """The name under which the content of ``path`` is written before it is whole."""
    return path.with_name(path.name + ".tmp")


def _name(path: Path, error: BaseException) -> None:
    """A full disk is noticed by a write, whose error does not say of which file."""
    if isinstance(error, OSError) and error.filename is None:
        error.filename = str(path)


def flush_folder(path: Path) -> None:
    """Have the names in a folder on disk: fsync of a file does not include them (fsync(2), Linux manual)."""
    try:
        _flush(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems know no fsync of folders
            raise


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
