"""Files that every node of a cluster reads from its own disk: the supernet's weights and the cached images.

The driver's node serves them in pieces; any other node fetches a file once, whichever process asks first. All processes of a
node then map the same file, so a node holds one copy of the weights and of the images in its page cache.
"""

from __future__ import annotations

import errno
import hashlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ray

from raysearch.distributed.cluster import Actor, answer, beside_caller
from raysearch.store.files import written_whole
from raysearch.store.private import in_use, private_folder, remove_unused, temporary_folder

PIECE = 16 * 2**20
"""Bytes that travel at once."""


@dataclass(frozen=True, slots=True)
class NodeFile:
    """A file of the driver's node, readable on every node through :func:`local_path`."""

    path: str
    """On the node that serves it."""
    node_id: str
    digest: str
    """SHA-256 of the content: its name in the other nodes' caches."""
    size: int
    server: Actor
    """Actor handle of the :class:`FileServer`."""


class FileServer:
    """Reads pieces of the files beside it."""

    def read(self, path: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; fewer at the end."""
        with Path(path).open("rb") as file:
            file.seek(offset)
            return file.read(length)


def serve() -> Actor:
    """Start the file server of this node; returns its actor handle. It holds nothing, so one that is lost is replaced."""
    return beside_caller(FileServer, max_restarts=-1, max_task_retries=-1)


def content_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal: by it other nodes and the journal know weights and images."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def share(path: Path, *, server: Actor) -> NodeFile:
    """Offer a file of this node to the cluster. It must not change afterwards."""
    return NodeFile(
        str(path.resolve()), ray.get_runtime_context().get_node_id(), content_digest(path), path.stat().st_size, server
    )


def node_folder() -> Path:
    """The folder of this node that all our processes on it know, and nobody else may write to: fetched files and locks.

    Raises UserError where another user made it.
    """
    return temporary_folder()


_used: dict[str, int] = {}
"""Files that this process has asked for, by digest, and the descriptors that say so to others, who remove unused ones."""


def local_path(file: NodeFile) -> Path:
    """The file on this node; fetched when no process of the node has done so. Raises OSError when a fetch is damaged.

    A file that is there already is taken for what its content says, whatever its name and size. Files that no process has
    used for two weeks are removed when another one is fetched.
    """
    if ray.get_runtime_context().get_node_id() == file.node_id:
        return Path(file.path)
    folder = private_folder(node_folder() / "files")
    path = folder / file.digest
    if file.digest in _used:
        return path
    with in_use(folder / f"{file.digest}.lock") as descriptor:
        if not _is_whole(path, file):
            _fetch(file, path)
            remove_unused(folder)
    _used[file.digest] = descriptor
    return path


def _is_whole(path: Path, file: NodeFile) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == file.size and content_digest(path) == file.digest


def _fetch(file: NodeFile, path: Path) -> None:
    digest = hashlib.sha256()
    with written_whole(path) as temporary:
        temporary.unlink(missing_ok=True)  # of a process that was killed, or a link that somebody put there
        with temporary.open("xb") as copy:
            for piece in _pieces(file):
                digest.update(piece)
                copy.write(piece)
        if digest.hexdigest() != file.digest:
            raise OSError(errno.EIO, "changed, or was damaged on its way to another node", file.path)


def _pieces(file: NodeFile) -> Iterator[bytes]:
    for offset in range(0, file.size, PIECE):
        yield answer(file.server.read.remote(file.path, offset, PIECE))
