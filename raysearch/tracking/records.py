"""What is on its way to the store, and the file in which it waits while the store is silent."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raysearch.store.lines import JsonLines

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

    Raises:
        UserError: a line of the file is damaged.

    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        remedy = "remove that line; what it held is missing in MLflow then"
        self._lines = None if path is None else JsonLines(path, lambda values: Record(**values), remedy=remedy)
        self.left: list[Record] = [] if self._lines is None else self._lines.rows
        """Records of an earlier process, oldest first."""

    def write(self, records: Iterable[Record]) -> None:
        """Hold these records and no others; no file when there are none."""
        if self._lines is not None:
            with self._tolerated():
                self._lines.replace(map(asdict, records))

    def append(self, record: Record) -> None:
        """Hold one record more."""
        if self._lines is not None:
            with self._tolerated():
                self._lines.append(asdict(record))

    @contextmanager
    def _tolerated(self) -> Generator[None]:
        """A file that cannot be written costs a warning, not the search: the records wait in memory then."""
        try:
            yield
        except OSError as error:
            log.warning("%s cannot be written (%s): records for MLflow wait in memory", self.path, error.strerror)
            self.path = self._lines = None
