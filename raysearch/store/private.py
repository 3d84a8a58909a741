"""Folders of this user alone: caches that stand in places which others may write to, and what must be true of them."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from raysearch.errors import UserError

UNUSED_SECONDS = 14 * 24 * 3600
"""Age since its last use at which an entry of a cache is removed."""


def private_folder(path: Path) -> Path:
    """Make ``path`` for this user alone, or check that it is so.

    In a temporary folder anybody may have made it before us. Raises UserError for a link, a file, and a folder of another user.
    """
    with suppress(FileExistsError):
        path.mkdir(mode=0o700, parents=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UserError(f"{path} is not a folder of this user: remove it, or set TMPDIR to a folder of your own")
    if found.st_mode & 0o077:
        path.chmod(0o700)
    return path


def temporary_folder() -> Path:
    """Our folder below the machine's temporary one, which all our processes on this machine know."""
    return private_folder(Path(tempfile.gettempdir()) / f"raysearch-{os.getuid()}")


def cache_folder(name: str) -> Path:
    """A folder for what can be made again: below ``RAYSEARCH_CACHE``, ``XDG_CACHE_HOME/raysearch`` or ``~/.cache/raysearch``.

    Where the home is not writable, as in some containers, or what stands there is another user's, as after ``sudo``, below the
    temporary folder. Raises UserError where ``RAYSEARCH_CACHE`` leads to a folder of another user.
    """
    if given := os.environ.get("RAYSEARCH_CACHE"):
        below = Path(given).expanduser()
        if not below.is_absolute():  # each process has a working folder of its own
            raise UserError(f"RAYSEARCH_CACHE is {given}: give an absolute path, or one that starts with ~")
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        if not caches.is_absolute():  # to be ignored, says the XDG base directory specification
            caches = Path("~/.cache").expanduser()
        below = caches / "raysearch"
    try:
        folder = private_folder(below / name)
        if not os.access(folder, os.W_OK):
            raise PermissionError(folder)
    except UserError:
        if given:
            raise UserError(
                f"RAYSEARCH_CACHE is {given}, but {below / name} is not a folder of this user: "
                "remove it, or set RAYSEARCH_CACHE to a folder of your own"
            ) from None
        return private_folder(temporary_folder() / name)
    except OSError:
        return private_folder(temporary_folder() / name)
    return folder


def open_lock(path: Path) -> int:
    """A file descriptor to lock by; the file is made where it is missing. Links are not followed: OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


@contextmanager
def in_use(lock: Path) -> Generator[int]:
    """Say that this process uses the entry of ``lock``; one process at a time is in the ``with`` block, to look or to make it.

    Gives a descriptor that says so until the caller closes it; an exception closes it.
    """
    while True:
        descriptor = open_lock(lock)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if lock.lstat().st_ino == os.fstat(descriptor).st_ino:
                break
        os.close(descriptor)  # who removed the entry removed its lock
    try:
        os.utime(descriptor)  # its last use
        making = open_lock(lock.with_suffix(".making"))  # users hold the other one for long
        try:
            fcntl.flock(making, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(making)
    except BaseException:
        os.close(descriptor)
        raise


def remove_unused(folder: Path, *, older_than: float = UNUSED_SECONDS) -> list[Path]:
    """Remove entries that nobody has used for so many seconds; returns what was removed.

    An entry is a file ``NAME.lock`` and all others that begin with ``NAME``. One that a process holds (:func:`in_use`) stays,
    whatever its age.
    """
    removed: list[Path] = []
    for lock in sorted(folder.glob("*.lock")):
        with suppress(OSError):  # another process removes it at the same time, or it is a link that nobody of us made
            if time.time() - lock.lstat().st_mtime < older_than:
                continue
            descriptor = open_lock(lock)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for path in sorted(folder.glob(f"{lock.stem}*")):
                    if path != lock:
                        path.unlink()
                        removed.append(path)
                lock.unlink()
            finally:
                os.close(descriptor)
    return removed


def note_use(path: Path) -> None:
    """Of a file that :func:`remove_old_files` may remove: it was used now. Nothing where there is none."""
    with suppress(OSError):
        os.utime(path)


def remove_old_files(folder: Path, *, older_than: float = UNUSED_SECONDS) -> None:
    """Remove the files of a cache that nobody has written or used (:func:`note_use`) for so many seconds.

    For small files that are read at once and held by nobody; :func:`remove_unused` is for the others.
    """
    for path in folder.iterdir():
        with suppress(OSError):  # another process removes it at the same time
            if time.time() - path.lstat().st_mtime >= older_than:
                path.unlink()
