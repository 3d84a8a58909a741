"""Copies of a finished search and of its record, to be written to."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path


def copied_search(folder: Path, into: Path) -> Path:
    """Copy the output ``folder`` and what stands beside it ``into`` a folder; returns the output folder in the copy."""
    shutil.copytree(folder.parent, into, dirs_exist_ok=True, ignore=shutil.ignore_patterns("mlflow.db*"))
    copied_store(folder.parent, into)
    return into / folder.name


def copied_store(source: Path, into: Path) -> None:
    """Copy MLflow's database with SQLite's own backup.

    A process that closes any of the three files drops its locks on them, also those of its open connections: the next process
    that ends removes the log under them, and what follows is a disk I/O error.
    """
    with (
        closing(sqlite3.connect(source / "mlflow.db")) as database,
        closing(sqlite3.connect(into / "mlflow.db")) as copy,
    ):
        database.backup(copy)
