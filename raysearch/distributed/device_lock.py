"""One device, several processes of a node: any number score at once, one measures alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from raysearch.store.private import open_lock


class DeviceLock:
    """Shared or exclusive use of one device among the processes of a node that hold a lock of the same folder and name.

    Whoever asks for the device first closes a turnstile: nobody starts to share it while somebody waits to be alone, so waiting
    ends with the scores in progress. A process that ends, however it ends, holds nothing any more.

    Args:
        folder: of the node, the same for all its processes.
        device: name of the device, as ``gpu-0``; nothing but a part of file names.

    """

    def __init__(self, folder: Path, device: str) -> None:
        self._device, self._turnstile = folder / f"{device}.lock", folder / f"{device}.turnstile.lock"

    @contextmanager
    def shared(self) -> Generator[None]:
        """With others that share it; never while somebody is alone."""
        with os.fdopen(open_lock(self._device), "r+") as device:
            with _locked(self._turnstile):
                fcntl.flock(device, fcntl.LOCK_SH)
            yield

    @contextmanager
    def alone(self) -> Generator[None]:
        """Without anybody else. Not inside :meth:`shared`, which would wait for itself."""
        with _locked(self._turnstile), _locked(self._device):
            yield


@contextmanager
def _locked(path: Path) -> Generator[None]:
    with os.fdopen(open_lock(path), "r+") as file:  # closing it ends the lock
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
