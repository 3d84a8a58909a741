"""What is on its way to the store, and the file in which it waits while the store is silent."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """One thing to be written."""

    kind: str
    """Which way it is written, as ``candidate`` or ``points``."""
    what: str
    """Its name in messages."""
    values: dict[str, Any]
    """JSON values."""


class Spool:
    """A file of records, one JSON line each, that is there only while records wait.

    Args:
        path: the file; None keeps nothing. What an earlier process left in it is read, without a last line that broke off.

    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.left = self._read(path) if path is not None and path.exists() else []
        """Records of an earlier process, oldest first."""

    def write(self, records: Iterable[Record]) -> None:
        """Hold these records and no others; no file when there are none."""
        if self.path is None:
            return
        lines = "".join(map(_line, records))
        temporary = self.path.with_name(self.path.name + ".tmp")
        with self._tolerated():
            if lines:
                temporary.write_text(lines)
                temporary.replace(self.path)
            else:
                self.path.unlink(missing_ok=True)

    def append(self, record: Record) -> None:
        """Hold one record more."""
        if self.path is not None:
            with self._tolerated(), self.path.open("a") as file:
                file.write(_line(record))

    @contextmanager
    def _tolerated(self) -> Generator[None]:
        """A file that cannot be written costs a warning, not the search: the records wait in memory then."""
        try:
            yield
        except OSError as error:
            log.warning("%s cannot be written (%s): records for MLflow wait in memory", self.path, error.strerror)
            self.path = None

    @staticmethod
    def _read(path: Path) -> list[Record]:
        records: list[Record] = []
        for line in path.read_text().splitlines():
            try:
                records.append(Record(**json.loads(line)))
            except (json.JSONDecodeError, TypeError):
                break  # the process was killed in the middle of this line
        return records


def _line(record: Record) -> str:
    return json.dumps(asdict(record)) + "\n"
