"""MLflow's UI on a local record: which searches it holds, where each is seen, and the server that shows them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

from mlflow import MlflowClient

from raysearch.invocation import command_line
from raysearch.store.secrets import without_password
from raysearch.tracking.child_run import ROLE, SEARCH_ID
from raysearch.tracking.store import (
    TROUBLE,
    TrackingError,
    alone_in,
    is_missing,
    quieten_mlflow,
    ui_command,
    ui_process,
    ui_url,
    unusable,
)

_MOST = 50


@dataclass(frozen=True, slots=True)
class RecordedSearch:
    """A search that a store holds."""

    experiment: str
    name: str
    status: str
    started: datetime
    """Local time."""
    url: str
    """Of its view in the UI."""


def recorded_searches(uri: str, *, port: int = 5000) -> list[RecordedSearch]:
    """The newest searches in a store, newest first. Raises TrackingError when it holds none or cannot be reached."""
    quieten_mlflow()
    first = command_line("search", "digits")
    none = TrackingError(f"no search in MLflow at {without_password(uri)}; run one first (`{first}`), or name another store")
    try:
        if is_missing(uri):
            raise none
        client = MlflowClient(uri)
        with alone_in(uri):  # a search may be making the tables
            experiments = {e.experiment_id: e.name for e in client.search_experiments()}
        condition = f"tags.`{ROLE}` = 'search'"
        runs = client.search_runs(list(experiments), condition, max_results=_MOST) if experiments else []
    except TROUBLE as error:
        raise unusable(uri, error) from error
    if not runs:
        raise none
    return [
        RecordedSearch(
            experiments[run.info.experiment_id],
            str(run.info.run_name),
            run.info.status,
            datetime.fromtimestamp(run.info.start_time / 1000),  # a person reads it
            ui_url(without_password(uri), run.info.experiment_id, search_id=run.data.tags[SEARCH_ID], port=port),
        )
        for run in runs
    ]


class UiServer:
    """``mlflow ui`` on a local store, as a context manager: it answers when the block begins and is gone after it.

    Raises TrackingError when the port is taken or the server ends by itself.
    """

    def __init__(self, uri: str, *, port: int = 5000) -> None:
        self._command, self._store = ui_process(uri, port=port)
        self._shown = ui_command(uri, port=port)
        self._address = f"http://127.0.0.1:{port}/health"
        self._port = port

    def __enter__(self) -> Self:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self._port))
            except OSError as error:
                raise TrackingError(f"port {self._port} cannot be used ({error.strerror}); give another with --port") from None
        # Its jobs are for language models: seven processes less.
        environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ, **self._store}
        self._process = subprocess.Popen(self._command, env=environment, stdout=sys.stderr, start_new_session=True)
        try:
            while self._process.poll() is None:
                with contextlib.suppress(OSError), urllib.request.urlopen(self._address, timeout=5):
                    return self
                time.sleep(0.1)
        except BaseException:
            self._stop()
            raise
        raise TrackingError(f"the UI ended with code {self._process.returncode}; `{self._shown}` shows why")

    def _stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)  # it has processes of its own
        self._process.wait()

    def wait(self) -> None:
        """Until the server ends, or Ctrl-C ends it."""
        with contextlib.suppress(KeyboardInterrupt):
            self._process.wait()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()
