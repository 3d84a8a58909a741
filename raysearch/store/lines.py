"""Files of JSON objects, one a line, that grow: an appended line outlives a crash, one that a crash cut short is dropped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from raysearch.errors import UserError
from raysearch.store.files import flush_folder, write_whole

T = TypeVar("T")


class JsonLines(Generic[T]):
    """A file of JSON objects, one a line.

    Reading changes nothing: a broken end is cut off, and a new file made, by the first :meth:`append`. Whoever finds the header
    of another owner leaves the file as it was.

    Args:
        path: the file; one that is not there yet is empty.
        parse: what a line's object becomes in :attr:`rows`.
        header: the first line of a new file; None where files of this kind have none.
        remedy: what the user may do about a damaged line, as ``remove that line``.

    Raises:
        UserError: a line is no JSON object, or ``parse`` raises KeyError, TypeError or ValueError for it. Names the line.

    """

    header: Mapping[str, Any]
    """First line of the file as it is, or as a new file gets it; empty where files of this kind have none."""
    rows: list[T]
    """The other lines, as they were found."""

    def __init__(
        self,
        path: Path,
        parse: Callable[[dict[str, Any]], T],
        *,
        header: Mapping[str, Any] | None = None,
        remedy: str,
    ) -> None:
        self.path = path
        self.header = header or {}
        self.rows = []
        self._begun = False
        """Whether the broken end is gone."""
        content = path.read_bytes() if path.exists() else b""
        self._whole = content.rfind(b"\n") + 1  # only a line with its end is one: a crash may have cut the last
        for number, line in enumerate(content[: self._whole].splitlines(), start=1):
            is_header = number == 1 and bool(header)
            try:
                values = json.loads(line)
                if not isinstance(values, dict):
                    raise TypeError
                if is_header:
                    self.header = cast(dict[str, Any], values)
                else:
                    self.rows.append(parse(cast(dict[str, Any], values)))
            except (KeyError, TypeError, ValueError):
                mended = "restore it, or remove the file to start it anew" if is_header else remedy
                raise UserError(f"{path} line {number} is damaged; {mended}") from None

    def append(self, values: Mapping[str, Any]) -> None:
        """Add one line; on disk when this returns. Raises OSError, and leaves whole lines only, when there is no room."""
        with self.path.open("ab", buffering=0) as file:  # a buffer would try again, at closing, what has failed
            if not self._begun:
                file.truncate(self._whole)
            size = file.seek(0, os.SEEK_END)
            left = memoryview(_text([values] if size else self._after_header([values])))
            try:
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError as error:
                error.filename = error.filename or str(self.path)  # a write does not say where there was no room
                with suppress(OSError):
                    file.truncate(size)
                raise
        if not self._begun:
            flush_folder(self.path.parent)
            self._begun = True

    def replace(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Hold these lines and no others, whole or not at all; no file where there are none."""
        if lines := list(rows):
            write_whole(self.path, _text(self._after_header(lines)))
        else:
            self.path.unlink(missing_ok=True)
        self._begun = True

    def _after_header(self, rows: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [self.header, *rows] if self.header else rows


def _text(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
