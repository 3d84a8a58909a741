"""A small MLflow server in a process of its own, and databases that need no migration."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient
from requests.adapters import HTTPAdapter
from small_servers import free_port
from urllib3.util import Retry


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs, made once: the migrations take two seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(empty_database, tmp_path / "mlflow.db"))


@contextmanager
def serve(folder: Path, port: int) -> Iterator[str]:
    """An MLflow server on the database in ``folder``; killed at the end, as a machine that goes away."""
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    stores = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "artifacts")]
    with (folder / "server.log").open("ab") as output:
        server = subprocess.Popen(
            command + stores,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            with requests.Session() as session:
                session.mount("http://", HTTPAdapter(max_retries=Retry(total=120, backoff_factor=0.1, backoff_max=0.5)))
                assert session.get(f"{uri}/health").text == "OK"
            yield uri
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@pytest.fixture(scope="session")
def server(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / "mlflow.db")
    with serve(folder, free_port()) as uri:
        yield uri


@pytest.fixture
def start_server(database: Path) -> Callable[[], AbstractContextManager[str]]:
    """Starts the same server again and again: the same port, the same database."""
    port = free_port()
    return lambda: serve(database.parent, port)
