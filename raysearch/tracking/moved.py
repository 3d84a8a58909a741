"""A record whose folder was moved, or fetched from another machine, finds its artifacts again.

MLflow stores where each run's artifacts lie as an absolute address, also where it was given a relative one
(``SqlAlchemyStore.create_experiment``, 3.17), and no call of its clients changes it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import sqlalchemy
from sqlalchemy.exc import OperationalError

log = logging.getLogger(__name__)

ARTIFACTS = "mlartifacts"
"""Folder beside an SQLite file in which the runs of its experiments have their artifacts."""

_COLUMNS = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("experiments", "artifact_location"),
)
"""Where MLflow 3.17 stores such addresses; the last names the place that was left, so it changes last."""


def find_artifacts(database: Path, engine: sqlalchemy.Engine) -> None:
    """Have the record in an SQLite file look for its artifacts beside it, where the place that it names is gone.

    Says so in one line, once. Experiments with a place of another kind (another name, a server, a bucket) stay as they are, and
    so does a copy of a record whose original is there still.
    """
    here = database.parent / ARTIFACTS
    if not here.is_dir() or not sqlalchemy.inspect(engine).has_table("experiments"):
        return
    with engine.connect() as connection:
        locations = connection.execute(sqlalchemy.text("SELECT DISTINCT artifact_location FROM experiments")).scalars().all()
    left = [location for location in locations if location is not None and _is_gone(location, here)]
    if not left:
        return
    try:
        _replace(engine, left, here.as_uri())
    except OperationalError as error:  # as of a record on a medium that cannot be written to
        log.warning("%s was moved here, and its artifacts are not found: it cannot be written to (%s)", database, error.orig)
    else:
        log.warning("%s was moved here: its artifacts are found in %s from now on, no more in %s", database, here, left[0])


def _is_gone(location: str, here: Path) -> bool:
    parts = urlsplit(location)
    if parts.scheme != "file":
        return False
    place = Path(url2pathname(parts.path))
    return place.name == ARTIFACTS and place != here and not place.exists()


def _replace(engine: sqlalchemy.Engine, left: Iterable[str], here: str) -> None:
    there = sqlalchemy.inspect(engine).get_table_names()
    with engine.begin() as connection:
        for table, column in _COLUMNS:
            if table not in there:
                continue
            change = sqlalchemy.text(
                f"UPDATE {table} SET {column} = :here || substr({column}, length(:left) + 1) "
                f"WHERE {column} = :left OR substr({column}, 1, length(:left) + 1) = :left || '/'"
            )
            for location in left:
                connection.execute(change, {"here": here, "left": location})
