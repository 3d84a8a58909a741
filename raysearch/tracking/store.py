"""Opening an MLflow store, local or remote: quick to fail, quick to write, and one line that says what is wrong."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shlex
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from raysearch.errors import UserError
from raysearch.store.paths import absolute_uri
from raysearch.store.secrets import without_password
from raysearch.tracking.moved import ARTIFACTS, find_artifacts
from raysearch.tracking.views import view_key

TROUBLE = (MlflowException, SQLAlchemyError, OSError, json.JSONDecodeError)
"""What a store that cannot be reached or used raises."""

_REFUSALS = {"BAD_REQUEST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"}
_DENIALS = {"CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED", "UNAUTHENTICATED"}


class TrackingError(UserError):
    """The store cannot be used: one line that names it and the remedy."""


def default_uri(output_root: Path) -> str:
    """``MLFLOW_TRACKING_URI`` when it is set, else an SQLite file in ``output_root``."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    return absolute_uri(given) if given else f"sqlite:///{output_root.absolute() / 'mlflow.db'}"


def ui_command(uri: str, *, port: int = 5000) -> str:
    """The shell command that opens the MLflow UI on a local store; empty for a server, which has its UI already.

    It is for people to read: in the place of a password stands ``***``.
    """
    if _is_server(uri):
        return ""
    return f"{shlex.quote(_mlflow())} ui --backend-store-uri {shlex.quote(without_password(uri))} --port {port} --workers 1"


def ui_process(uri: str, *, port: int) -> tuple[list[str], dict[str, str]]:
    """The same to be started: its words, and what its environment must hold, where other users do not see a password."""
    return [_mlflow(), "ui", "--port", str(port), "--workers", "1"], {"MLFLOW_BACKEND_STORE_URI": uri}


def _mlflow() -> str:
    beside = Path(sys.executable).with_name("mlflow")
    return os.path.relpath(beside) if beside.exists() else "mlflow"


def ui_url(uri: str, experiment_id: str, *, search_id: str | None = None, port: int = 5000) -> str:
    """Address of an experiment's runs in the UI: on the server, or on this machine after :func:`ui_command`.

    With ``search_id`` the address of that search's view: its candidates as charts.
    """
    base = uri.rstrip("/") if _is_server(uri) else f"http://localhost:{port}"
    view = "" if search_id is None else f"&compareRunsMode=CHART&viewStateShareKey={view_key(search_id)}"
    # Without the workflow type MLflow 3 opens its page for language models, which shows no runs.
    return f"{base}/#/experiments/{experiment_id}/runs?workflowType=machine_learning{view}"


def is_missing(uri: str) -> bool:
    """Whether ``uri`` names an SQLite file that is not there. MLflow, asked to read it, would make an empty one.

    Raises one of :data:`TROUBLE` for an address that is none.
    """
    database = _sqlite_file(uri)
    return database is not None and not database.exists()


def _is_server(uri: str) -> bool:
    return urlsplit(uri).scheme in ("http", "https")


def open_store(uri: str, experiment: str) -> tuple[MlflowClient, str]:
    """A client that has been answered, and the experiment's id. Creates database and experiment when they are missing."""
    with alone_in(uri):
        return _opened(uri, experiment)


@contextmanager
def alone_in(uri: str) -> Generator[None]:
    """No other process of ours opens the SQLite store ``uri`` during the ``with`` block; other stores are not held.

    One that was moved since it was written finds its artifacts again (:mod:`~raysearch.tracking.moved`).

    MLflow makes the tables of a new file without looking whether somebody else does: of four processes at once three failed,
    and the file was broken for good. The folder is locked, not a file in it, which nobody could ever remove.
    """
    database = _sqlite_file(uri)
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(database.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        if database.exists():
            engine = sqlalchemy.create_engine(uri)
            try:
                find_artifacts(database, engine)
            finally:
                engine.dispose()
        yield
    finally:
        os.close(folder)


def _sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store; None for another store, and where there is no file."""
    if urlsplit(uri).scheme.split("+")[0] != "sqlite":
        return None
    database = sqlalchemy.engine.make_url(uri).database
    return None if not database or database == ":memory:" else Path(database).absolute()


def _opened(uri: str, experiment: str) -> tuple[MlflowClient, str]:
    scheme = urlsplit(uri).scheme.split("+")[0]
    location: str | None = None
    if scheme in ("sqlite", "postgresql", "mysql", "mssql"):
        database = _connect_once(uri)
        if scheme == "sqlite" and database:
            path = Path(database).resolve()
            _make_durable_and_quick(path)
            location = (path.parent / ARTIFACTS).as_uri()  # not the current directory
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        try:
            return client, client.create_experiment(experiment, artifact_location=location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(experiment)  # another search was quicker
            assert found is not None
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"experiment {experiment!r} is deleted in MLflow at {without_password(uri)}; run "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}` or choose another name"
        )
    return client, found.experiment_id


def _connect_once(uri: str) -> str | None:
    """Try the database, for MLflow itself would retry for an hour. Returns its name (SQLite: its path)."""
    try:
        engine = sqlalchemy.create_engine(uri)
    except ModuleNotFoundError as error:
        raise TrackingError(f"MLflow at {without_password(uri)} needs the Python package {error.name}; install it") from error
    try:
        if engine.url.drivername.startswith("sqlite") and engine.url.database:
            Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
        sqlalchemy.inspect(engine).get_table_names()
        return engine.url.database
    finally:
        engine.dispose()


_local_databases: set[str] = set()


def _make_durable_and_quick(path: Path) -> None:
    """Open this SQLite file in WAL mode with synchronous=NORMAL: measured 2 to 3 times faster, and readers do not block.

    A crash of the process loses nothing; WAL needs shared memory, so a network file system keeps SQLite's default.
    """
    if _file_system(path.parent) in ("nfs", "nfs4", "cifs", "smb3", "9p", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs"):
        return
    _local_databases.add(str(path))
    if not event.contains(sqlalchemy.Engine, "connect", _on_connect):
        event.listen(sqlalchemy.Engine, "connect", _on_connect)


def _on_connect(connection: Any, _record: Any) -> None:
    """Set the pragmas on connections to the files named in ``_local_databases``, and on no other."""
    if not type(connection).__module__.startswith("sqlite3"):
        return
    files = {str(Path(file).resolve()) for _, _, file in connection.execute("PRAGMA database_list") if file}
    if files & _local_databases:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")


def _file_system(folder: Path) -> str:
    """Type of the file system that holds ``folder``; empty where the system does not say (not Linux)."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return ""
    kinds = {Path(fields[1]): fields[2] for line in mounts.read_text().splitlines() if len(fields := line.split()) > 2}
    return next((kinds[place] for place in (folder, *folder.parents) if place in kinds), "")


# --- trouble ----------------------------------------------------------------------------------------------------------


class Environment:
    """Environment variables that MLflow reads at every call, put back as they were by :meth:`restore`.

    A variable that the user has set keeps the user's value.
    """

    def __init__(self, **values: str) -> None:
        self._own: set[str] = set()
        self.set(**values)

    def set(self, **values: str) -> None:
        """Set these variables until :meth:`restore`."""
        for name, value in values.items():
            if name in self._own or name not in os.environ:
                self._own.add(name)
                os.environ[name] = value

    def restore(self) -> None:
        """Remove what was set here."""
        for name in self._own:
            os.environ.pop(name, None)
        self._own.clear()


def quieten_mlflow() -> None:
    """Keep MLflow's notices off the console; its database errors too, which the writer reports in one line."""
    for name, level in (("mlflow", logging.WARNING), ("alembic", logging.WARNING), ("mlflow.store.db.utils", logging.CRITICAL)):
        logging.getLogger(name).setLevel(level)


def is_refusal(error: Exception) -> bool:
    """True when the store took the request and said no, so that asking again is useless."""
    if isinstance(error, MlflowException):
        return error.error_code in _REFUSALS
    return isinstance(error, FileNotFoundError)


def unusable(uri: str, error: Exception) -> TrackingError:
    """``error`` as one line for the user, with the remedy."""
    if isinstance(error, MlflowException) and error.error_code in _DENIALS:
        remedy = "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    elif _is_server(uri):
        remedy = "start the server or correct MLFLOW_TRACKING_URI; unset it to record into a local SQLite file"
    else:
        remedy = "correct MLFLOW_TRACKING_URI (sqlite:///FILE or http://HOST:PORT), or unset it to record beside the runs"
    return TrackingError(f"cannot use MLflow at {without_password(uri)}: {first_line(error)}; {remedy}")


def first_line(error: BaseException) -> str:
    """The cause in one line: what the socket or the database said, without the wrappers around it."""
    while (inner := error.__cause__ or error.__context__) is not None and not isinstance(inner, LookupError):
        error = inner
    text = without_password(str(error).strip()) or type(error).__name__
    return text.splitlines()[0][:200]
