"""Where encoded pictures lie, by name: files of their own, or slices of larger files."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Sequence
from threading import Lock
from typing import Any, BinaryIO, Protocol, runtime_checkable

import numpy as np

from raysearch.store.names import shown
from raysearch.tasks.images.places import Place, open_binary, place_of, read_bytes, state_of, text_of
from raysearch.tasks.images.remote import Remote, State, store_errors

SPAN = np.dtype([("file", "<i4"), ("offset", "<i8"), ("size", "<i8")])
"""Where a picture stands: which of several files, from which byte on, how many."""


_REMOTE_THREADS = 32
"""Requests to an object store that wait for an answer at once."""


@runtime_checkable
class Store(Protocol):
    """Encoded pictures by name. It travels to other processes, which open files for themselves.

    All but ``shown`` and ``holder`` raise OSError, with a ``strerror``, for what cannot be read.
    """

    @property
    def root(self) -> Place:
        """What the names start from."""
        ...

    def holder(self, name: bytes) -> Place:
        """The file that a picture is in."""
        ...

    def shown(self, name: bytes) -> str:
        """A picture as messages name it."""
        ...

    def state(self, name: bytes) -> State:
        """What tells a changed picture without reading it: of the file that it is in."""
        ...

    def read(self, name: bytes) -> bytes:
        """The encoded picture."""
        ...

    def open(self, name: bytes) -> BinaryIO:
        """The encoded picture, of which as little is fetched as is read."""
        ...

    def described(self) -> dict[str, Any]:
        """JSON values that :mod:`~raysearch.tasks.images.known` opens it from again, in another process of this machine."""
        ...


def threads_for(store: Store) -> int:
    """How many threads read pictures of ``store``: as there are cores, more where each waits for the network."""
    return max(os.cpu_count() or 1, _REMOTE_THREADS if isinstance(store.root, Remote) else 1)


class Files:
    """A picture per file; names are paths below ``root``, or from the root of the file system."""

    kind = "files"

    def __init__(self, root: Place) -> None:
        self.root = root

    def holder(self, name: bytes) -> Place:
        """Of a picture its file."""
        return self.root / os.fsdecode(name)

    def shown(self, name: bytes) -> str:
        """The file's path."""
        return shown(str(self.holder(bytes(name))))

    def state(self, name: bytes) -> State:
        """Of the file."""
        if isinstance(self.root, Remote):
            self.root.entries()  # lists all that is below at once: a question for each file would take hours
        return state_of(self.holder(name))

    def read(self, name: bytes) -> bytes:
        """The file."""
        return read_bytes(self.holder(name))

    def open(self, name: bytes) -> BinaryIO:
        """The file."""
        return open_binary(self.holder(name))

    def described(self) -> dict[str, Any]:
        """The root."""
        return {"kind": self.kind, "root": os.fsencode(text_of(self.root)).hex()}


def files_store(described: dict[str, Any]) -> Files:
    """Inverse of :meth:`Files.described`."""
    return Files(place_of(os.fsdecode(bytes.fromhex(described["root"]))))


class Slices:
    """Pictures inside larger files, at offsets that are known.

    Args:
        root: what the names start from.
        sources: the data set's files, that pictures are said to be in, and whose states count.
        files: where each of them is read: itself, or what was unpacked from it.
        names: of the pictures, sorted.
        spans: of each, in ``files`` (:data:`SPAN`).
        described: see :meth:`Store.described`.
        held: descriptors that say that cached files are in use, while this object lives.

    """

    def __init__(
        self,
        root: Place,
        *,
        sources: Sequence[Place],
        files: Sequence[Place],
        names: np.ndarray,
        spans: np.ndarray,
        described: dict[str, Any],
        held: Sequence[int] = (),
    ) -> None:
        self.root = root
        self._sources, self._files = tuple(sources), tuple(files)
        self._names, self._spans = names, spans
        self._described, self._held = described, tuple(held)
        self._opened = _Opened(self._files)
        self._states: dict[int, State] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the files itself, and holds none of them: whoever made it does."""
        return _slices, (self.root, self._sources, self._files, self._names, self._spans, self._described)

    def __del__(self) -> None:
        held, self._held = getattr(self, "_held", ()), ()
        for descriptor in held:
            os.close(descriptor)

    def _span(self, name: bytes) -> tuple[int, int, int]:
        index = int(np.searchsorted(self._names, name))
        return self._spans[index].item()

    def holder(self, name: bytes) -> Place:
        """The file of the data set that a picture is in."""
        return self._sources[self._span(name)[0]]

    def shown(self, name: bytes) -> str:
        """The file, and the picture in it."""
        return shown(f"{self.root}/{os.fsdecode(bytes(name))}")

    def state(self, name: bytes) -> State:
        """Of the file that it is in."""
        file = self._span(name)[0]
        if file not in self._states:  # asked once: hundreds of pictures share a file
            self._states[file] = state_of(self._sources[file])
        return self._states[file]

    def read(self, name: bytes) -> bytes:
        """Its bytes alone."""
        file, offset, size = self._span(name)
        return self._opened.read(file, offset, size)

    def open(self, name: bytes) -> BinaryIO:
        """Its bytes, fetched at once: a picture is small beside what it stands in."""
        return io.BytesIO(self.read(name))

    def described(self) -> dict[str, Any]:
        """As it was given."""
        return self._described


def _slices(root: Place, sources: Any, files: Any, names: Any, spans: Any, described: Any) -> Slices:
    return Slices(root, sources=sources, files=files, names=names, spans=spans, described=described)


class _Opened:
    """Files of which parts are read. Those of this machine are opened each time, as there may be more than it lets be open."""

    def __init__(self, files: Sequence[Place]) -> None:
        self._files = files
        self._remote: dict[tuple[int, int], Any] = {}
        self._lock = Lock()

    def read(self, file: int, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on; from any thread. Raises OSError, also where the file has become shorter."""
        place = self._files[file]
        if isinstance(place, Remote):
            with store_errors(place):
                content = self._handle(file, place).read_at(size, offset)
        else:
            with place.open("rb") as opened:
                opened.seek(offset)
                content = opened.read(size)
        if len(content) < size:
            raise OSError(errno.EIO, "it ends too early", str(place))
        return content

    def _handle(self, file: int, place: Remote) -> Any:
        """Opening one asks the store for its size: once per process."""
        key = os.getpid(), file
        with self._lock:
            if key not in self._remote:
                self._remote[key] = place.open()
            return self._remote[key]
