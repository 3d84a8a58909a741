"""``--storage``: a second place for all results, in an object store or a shared folder, from which any machine goes on."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from rich.console import Console

from raysearch.errors import UserError
from raysearch.jobs.plan import SearchCommand
from raysearch.jobs.progress import activity
from raysearch.store.folder import CONFIG, LOCK, read_json
from raysearch.store.paths import absolute
from raysearch.tasks.images.remote import Remote, is_address, store_errors

EVERY = 5.0
"""Seconds between two looks at what is new in the output folder."""
SAY_EVERY = 60.0
"""Seconds between two lines of a storage that does not answer."""

_NOT_KEPT = ("cache", LOCK)
"""What another machine makes for itself: images as evaluators read them, and who works in the folder."""
_LAST = (".unregistered", ".finished")
"""Marks that promise other files."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A folder of searches in a file system of pyarrow's."""

    place: Remote | Path

    @classmethod
    def parse(cls, text: str) -> Self:
        """From an address, as ``s3://bucket/prefix``, or the path of a folder. Raises UserError for what is neither."""
        return cls(Remote.parse(text) if is_address(text) else absolute(Path(text)))

    def __truediv__(self, name: str) -> Storage:
        return Storage(self.place / name)

    def __str__(self) -> str:
        return str(self.place)

    @contextmanager
    def _opened(self) -> Generator[tuple[Any, str]]:
        """The file system, and the folder's path in it; OSError of a few words for what it says."""
        from pyarrow.fs import LocalFileSystem

        if isinstance(self.place, Path):
            yield LocalFileSystem(), str(self.place)
            return
        with store_errors(self.place):
            yield self.place.file_system, self.place.path

    def files(self) -> dict[str, tuple[int, int]]:
        """Size in bytes and time of the last change in nanoseconds of all files below, by path."""
        from pyarrow.fs import FileSelector, FileType

        with self._opened() as (system, path):
            found = system.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
            here = [info for info in found if info.type == FileType.File]
            return {info.path[len(path) :].lstrip("/"): (info.size, info.mtime_ns or 0) for info in here}

    def read(self, name: str) -> bytes:
        """A file below."""
        with self._opened() as (system, path), system.open_input_stream(f"{path}/{name}") as stream:
            return stream.read()

    def head_of_tensors(self, name: str) -> bytes:
        """The beginning of a safetensors file below, which says what is in it, without the tensors."""
        with self._opened() as (system, path), system.open_input_stream(f"{path}/{name}") as stream:
            size = stream.read(8)
            return size + stream.read(int.from_bytes(size, "little"))

    def fetch(self, name: str, into: Path) -> None:
        """Copy a file below to a path."""
        into.parent.mkdir(parents=True, exist_ok=True)
        with self._opened() as (system, path), system.open_input_stream(f"{path}/{name}") as stream, into.open("wb") as file:
            shutil.copyfileobj(stream, file, 1 << 22)

    def put(self, name: str, source: Path) -> None:
        """Copy a file to below; in an object store it is whole or not there."""
        with self._opened() as (system, path), source.open("rb") as file:
            target = f"{path}/{name}"
            if isinstance(self.place, Path):
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                target += ".tmp"
            with system.open_output_stream(target) as stream:
                shutil.copyfileobj(file, stream, 1 << 22)
            if isinstance(self.place, Path):
                Path(target).replace(f"{path}/{name}")

    def remove(self, name: str) -> None:
        """Remove a file below."""
        with self._opened() as (system, path):
            system.delete_file(f"{path}/{name}")


def fetched(command: SearchCommand[Any, Any], console: Console) -> SearchCommand[Any, Any]:
    """The command with its output folder here, brought from its storage where it is to be continued and is not here yet.

    Raises UserError where the storage cannot be read, holds no such search, is further than the folder that is here, or holds
    another search under its name.
    """
    if command.storage is None:
        return command
    storage = Storage.parse(command.storage)
    try:
        if command.output is not None:
            return _checked(command, storage / command.output.name, console)
        if not command.resume:
            return command
        name = command.recipe.name
        names = sorted(file.partition("/")[0] for file in storage.files() if file.endswith(f"/{CONFIG}"))
        names = [each for each in names if each.startswith(f"{name}-")]
        if not names:
            raise UserError(f"--resume: there is no search of {name} in {storage}; name its folder with --output")
        return _checked(replace(command, output=Path("runs") / names[-1]), storage / names[-1], console)
    except OSError as error:
        raise UserError(f"--storage {storage} cannot be read ({error.strerror or error})") from None


def _checked(command: SearchCommand[Any, Any], kept: Storage, console: Console) -> SearchCommand[Any, Any]:
    """See :func:`fetched`, for an output folder that has a name."""
    output = command.output
    assert output is not None
    there = kept.files()
    if CONFIG not in there:
        return command
    if not command.resume:
        raise UserError(f"{kept} holds a search: add --resume to continue it, or give another --output")
    if not (output / CONFIG).exists():
        with activity(console, f"fetching {kept}"):
            partial = output.with_name(output.name + ".fetched")
            shutil.rmtree(partial, ignore_errors=True)
            for name in there:
                kept.fetch(name, partial / name)
            if output.exists():  # an empty folder, or one that holds a lock alone
                shutil.rmtree(output)
            partial.rename(output)
        return command
    if json.loads(kept.read(CONFIG))["search_id"] != read_json(output / CONFIG)["search_id"]:
        raise UserError(f"{kept} holds another search than {output}; give another --output or another --storage")
    here = _files(output)
    ahead = next((name for name in ("journal.jsonl", ".finished") if _size(there, name) > _size(here, name)), None)
    if ahead is not None:
        raise UserError(f"{kept} is further than {output} ({ahead}): move {output} away, and --resume fetches it from there")
    return command


def _size(files: dict[str, tuple[int, int]], name: str) -> int:
    return files[name][0] if name in files else -1


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """As :meth:`Storage.files` of what is kept of an output folder."""
    return {name: (state.st_size, state.st_mtime_ns) for name, state in _states(folder)}


def _states(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name.split("/")[0] in _NOT_KEPT or path.suffix == ".tmp":
            continue
        try:
            state = path.stat()
        except FileNotFoundError:  # removed meanwhile
            continue
        if path.is_file():
            yield name, state


@contextmanager
def mirrored(folder: Path, storage: str | None, say: Callable[[str], None]) -> Generator[None]:
    """Keep ``folder`` in a storage too during the ``with`` block, and all of it at its end. Without a storage nothing is done.

    ``say`` gets a line a minute while the storage does not answer: the search goes on without it.
    """
    if storage is None:
        yield
        return
    mirror = _Mirror(folder, Storage.parse(storage) / folder.name, say)
    mirror.start()
    try:
        yield
    finally:
        mirror.end()


class _Mirror(threading.Thread):
    """Copies what is new, files that changed earlier before those that changed later, and marks last."""

    def __init__(self, folder: Path, kept: Storage, say: Callable[[str], None]) -> None:
        super().__init__(name="storage", daemon=True)
        self.folder, self.kept, self.say = folder, kept, say
        self.ended = threading.Event()
        self.there: dict[str, tuple[int, int]] | None = None
        """What the storage holds, as it was here when it was copied."""
        self.said = float("-inf")

    def run(self) -> None:
        """Look and copy until the end."""
        while not self.ended.wait(EVERY):
            self.copy()

    def end(self) -> None:
        """Copy the rest. What the storage did not take is said."""
        self.ended.set()
        self.join()
        self.said = float("-inf")
        self.copy()

    def copy(self) -> None:
        """Bring the storage up to what is here now."""
        try:
            self._copy()
        except OSError as error:
            if time.monotonic() - self.said >= SAY_EVERY:
                self.said = time.monotonic()
                self.say(f"--storage {self.kept} does not take what is new in {self.folder} ({error.strerror or error})")

    def _copy(self) -> None:
        here = _files(self.folder)
        if self.there is None:
            found = self.kept.files()
            self.there = {
                name: here[name]
                for name, (size, changed) in found.items()
                if name in here and here[name][0] == size and here[name][1] <= changed
            }
            gone = found.keys() - here.keys()
        else:
            gone = self.there.keys() - here.keys()
        new = [name for name, state in here.items() if self.there.get(name) != state]
        for name in sorted(new, key=lambda name: (name in _LAST, here[name][1])):
            try:
                self.kept.put(name, self.folder / name)
            except FileNotFoundError:
                if (self.folder / name).exists():
                    raise  # the storage's own
                continue  # removed meanwhile
            self.there[name] = here[name]
        for name in gone:  # after what took their place
            self.kept.remove(name)
            self.there.pop(name, None)
