"""Files and folders of an object store, ``s3://`` or ``gs://``, read through pyarrow's filesystems.

Credentials, region and endpoint come from the environment, as the clouds' own tools take them (``AWS_ACCESS_KEY_ID``,
``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, ``GOOGLE_APPLICATION_CREDENTIALS``), or region and endpoint from the address:
``s3://bucket/folder?region=eu-central-1&endpoint_override=http://host:9000``. An address holds no credentials.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from threading import Lock
from typing import Any, BinaryIO, Literal, NamedTuple, Self, cast

from raysearch.errors import UserError
from raysearch.store.secrets import without_password

SCHEMES = ("s3", "gs", "gcs")
"""Of addresses that are read here."""

State = tuple[int, int, int]
"""Size in bytes, times of the last change of content and of name or rights in nanoseconds: what tells a changed file."""


_LISTING = Lock()
"""Threads that ask for a listing wait for the one that makes it."""


class Entry(NamedTuple):
    """What a folder holds under a name."""

    name: str
    kind: Literal["folder", "file", "lost"]
    """A link that leads nowhere is lost."""


def is_address(text: str) -> bool:
    """Whether a text is an address, as ``s3://bucket/folder``, and no path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


@dataclass(frozen=True, slots=True)
class Remote:
    """A file or folder of an object store. Below one that was made by :meth:`parse`, folders are listed once.

    OSError of its methods is what the store says, in a few words; UserError where nothing can be reached at all.
    """

    scheme: str
    path: str
    """Bucket and key, without a slash at the end."""
    query: str = ""
    """Region and endpoint, as they stand after the question mark."""
    _listed: dict[str, _Listed] = field(default_factory=lambda: dict[str, _Listed](), compare=False, repr=False)

    @classmethod
    def parse(cls, address: str) -> Self:
        """From an address. Raises UserError for a store that is not read here, and for credentials in it."""
        if without_password(address) != address or "@" in address.partition("?")[0]:
            raise UserError(
                f"{without_password(address)} has credentials in it: give them in the environment, as AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY"
            )
        scheme, _, rest = address.partition("://")
        path, _, query = rest.partition("?")
        if scheme not in SCHEMES or not path.strip("/"):
            raise UserError(f"{address} is not read: give a folder, or an address as s3://bucket/folder or gs://bucket/folder")
        return cls(scheme, path.strip("/"), query)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> Self:
        """The folder that it is in; of a bucket the bucket."""
        return self._at(self.path.rpartition("/")[0] or self.path)

    @property
    def address(self) -> str:
        """From which :meth:`parse` makes it again."""
        return f"{self}?{self.query}" if self.query else str(self)

    def __truediv__(self, name: str) -> Self:
        return self._at(f"{self.path}/{name}") if name else self

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process lists for itself."""
        return type(self), (self.scheme, self.path, self.query)

    def _at(self, path: str) -> Self:
        return type(self)(self.scheme, path, self.query, self._listed)

    # --- what is there ---

    def entries(self) -> list[Entry]:
        """What the folder holds; nothing where there is none."""
        return self._below().entries.get(self.path, [])

    def is_folder(self) -> bool:
        """Whether it has anything below it."""
        return self.path in self._below().entries

    def state(self) -> State:
        """Size and time of the last change of a file. Raises FileNotFoundError where there is none."""
        state = self._below().states.get(self.path)
        if state is None:
            raise FileNotFoundError(errno.ENOENT, "not there", str(self))
        return state

    def _below(self) -> _Listed:
        """The listing of a folder at or above this one, made now where there is none yet."""
        with _LISTING:
            for path, listed in self._listed.items():
                if f"{self.path}/".startswith(f"{path}/"):
                    return listed
            found = self._listed[self.path] = self._list()
            return found

    def _list(self) -> _Listed:
        """All that is below, and the file itself where it is one. Raises UserError where the store does not answer."""
        from pyarrow.fs import FileSelector, FileType

        try:
            with store_errors(self):
                itself = self._system().get_file_info(self.path)
                below: Any = []
                if itself.type == FileType.Directory:
                    below = self._system().get_file_info(FileSelector(self.path, recursive=True, allow_not_found=True))
        except OSError as error:
            raise UserError(
                f"{self} cannot be listed ({error.strerror}): see to the address, to the credentials in the environment, and "
                f"to {'AWS_ENDPOINT_URL and AWS_REGION' if self.scheme == 's3' else 'GOOGLE_APPLICATION_CREDENTIALS'}"
            ) from None
        listed = _Listed({}, {})
        for info in [itself, *below]:
            if info.type == FileType.File:
                listed.states[info.path] = (info.size, info.mtime_ns or 0, 0)
            elif info.type == FileType.Directory:
                listed.entries.setdefault(info.path, [])
        for info in below:
            folder, _, name = info.path.rpartition("/")
            kind = "folder" if info.type == FileType.Directory else "file"
            listed.entries.setdefault(folder, []).append(Entry(name, kind))
        return listed

    # --- content ---

    def read_bytes(self) -> bytes:
        """The whole file."""
        with store_errors(self), self._system().open_input_stream(self.path) as stream:
            return cast(bytes, stream.read())

    def open(self) -> BinaryIO:
        """The file, of which what is read is fetched."""
        with store_errors(self):
            return cast(BinaryIO, self._system().open_input_file(self.path))

    @property
    def file_system(self) -> Any:
        """Pyarrow's file system that holds it."""
        return self._system()

    def _system(self) -> Any:
        return _file_system(self.scheme, self.path.partition("/")[0], self.query)


@dataclass(frozen=True, slots=True)
class _Listed:
    """What is below a folder."""

    entries: dict[str, list[Entry]]
    """By folder."""
    states: dict[str, State]
    """By file."""


@cache
def _file_system(scheme: str, bucket: str, query: str) -> Any:
    """One per process and bucket: it looks for the bucket's region, and keeps connections."""
    from pyarrow.fs import FileSystem

    system, _ = FileSystem.from_uri(f"{scheme}://{bucket}{f'?{query}' if query else ''}")
    return system


@contextmanager
def store_errors(place: Remote) -> Generator[None]:
    """What Arrow says of a store, which is long, as an OSError of a few words."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "not there", str(place)) from None
    except (OSError, pa.ArrowException) as error:  # an unknown setting in the address is an ArrowInvalid
        words = str(error).partition(" (Request ID")[0]
        words = words.rpartition("AWS Error ")[2] or words
        raise OSError(errno.EREMOTEIO, " ".join(words.split()), str(place)) from None
