"""Stores that are not there, die, or lose an answer, and a search that is killed while it logs."""

import logging
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient
from small_servers import http_server
from tracked_search import arch, candidate, children, settings

from raysearch.tracking import Tracker, TrackingError


def answering(status: int, body: bytes = b"no") -> type[BaseHTTPRequestHandler]:
    """A server that says the same to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    return Handler


def refused_at_opening(uri: str) -> str:
    """The message; the environment is as it was, so that other users of MLflow in this process keep their patience."""
    before = dict(os.environ)
    with pytest.raises(TrackingError) as caught:
        Tracker(**settings(uri, "s"))
    assert dict(os.environ) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("http://127.0.0.1:9", "refused"),
        ("http://mlflow.invalid:5000", "mlflow.invalid:5000"),
        ("gopher://somewhere", "unsupported URI"),
        ("sqlite:////proc/nowhere/mlflow.db", "No such file"),
        (f"sqlite:///{__file__}", "not a database"),
        ("/srv/mlruns", "sqlite:///mlflow.db"),
    ],
)
def test_a_store_that_cannot_be_used_is_named_with_the_remedy(uri, reason):
    message = refused_at_opening(uri)
    assert message.startswith(f"cannot use MLflow at {uri}")
    assert reason in message
    assert "MLFLOW_TRACKING_URI" in message


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "MLFLOW_TRACKING_TOKEN"), (500, "start the server"), (200, "correct MLFLOW_TRACKING_URI")]
)
def test_a_server_that_is_ill_locked_or_another_is_named(status, remedy):
    with http_server(answering(status)) as uri:
        message = refused_at_opening(uri)
    assert uri in message
    assert remedy in message


def test_a_password_is_not_shown():
    message = refused_at_opening("http://ada:secret@127.0.0.1:9")
    assert "ada:***@" in message
    assert "secret" not in message


def test_a_deleted_experiment_is_named_with_the_remedy(database):
    uri = f"sqlite:///{database}"
    with Tracker(**settings(uri, "s")) as tracker:
        pass
    MlflowClient(uri).delete_experiment(tracker.experiment_id)
    assert f"mlflow experiments restore --experiment-id {tracker.experiment_id}" in refused_at_opening(uri)


def test_a_server_that_dies_in_mid_search(database, start_server, caplog):
    """One search lives to see it come back; one ends before, is told what is missing, and a resume makes it good."""
    noticed, heard = threading.Event(), logging.Handler()
    heard.emit = lambda record: noticed.set() if "does not answer" in record.getMessage() else None
    logger = logging.getLogger("raysearch")
    logger.addHandler(heard)
    with start_server() as uri:
        patient, hasty = Tracker(**settings(uri, "patient")), Tracker(**settings(uri, "hasty"), patience=0.1)
        for i in range(3):
            patient.log_candidate(candidate(i))
    for i in range(3, 6):  # nobody listens now
        patient.log_candidate(candidate(i))
        hasty.log_candidate(candidate(i))
    patient.log_metrics({"train/loss": 1.0}, step=0)
    assert noticed.wait(60)
    logger.removeHandler(heard)
    assert hasty.close() == 4  # three candidates and the end of the run
    (warning,) = [r.getMessage() for r in caplog.records if "missing" in r.getMessage()]
    assert warning.startswith(f"4 records are missing in MLflow at {uri}; the same command with --resume")
    with start_server():
        assert patient.close() == 0

    uri = f"sqlite:///{database}"
    assert MlflowClient(uri).get_run(hasty.run_id).info.status == "RUNNING"
    with Tracker(**settings(uri, "hasty")) as resumed:
        for i in range(3, 6):
            resumed.log_candidate(candidate(i))
    assert resumed.run_id == hasty.run_id
    for search, indices in ((patient, range(6)), (hasty, range(3, 6))):
        runs = children(uri, search.run_id)
        assert Counter(r.data.tags["raysearch.key"] for r in runs) == Counter(arch(i).id for i in indices)
        assert "RUNNING" not in {r.info.status for r in runs}
        assert MlflowClient(uri).get_run(search.run_id).info.status == "FINISHED"


def test_records_wait_on_disk_for_the_next_start_to_write_them(database, start_server, tmp_path):
    """The server goes away, the search ends without it, and the next process begins with what that left."""
    spool = tmp_path / "tracking.jsonl"
    with start_server() as uri:
        search = {**settings(uri, "spooled"), "spool": spool, "patience": 0.1}
        tracker = Tracker(**search)
    tracker.log_candidate(candidate(0))
    tracker.log_metrics({"train/loss": 1.0}, step=0, run="supernet")
    tracker.end_training()
    tracker.set_tags({"raysearch.champion": arch(0).id})
    assert tracker.close() == 5  # and the end of the run
    assert len(spool.read_text().splitlines()) == 5
    with spool.open("a") as file:
        file.write('{"kind": "tags", "what": "tags", "val')  # killed in the middle of a line
    with start_server():
        Tracker(**search | {"patience": 60}).close()
    assert not spool.exists()
    client = MlflowClient(f"sqlite:///{database}")
    parent = client.get_run(tracker.run_id)
    assert (parent.info.status, parent.data.tags["raysearch.champion"]) == ("FINISHED", arch(0).id)
    runs = {run.data.tags["raysearch.role"]: run for run in children(f"sqlite:///{database}", tracker.run_id)}
    assert runs["candidate"].data.metrics["score"] == 0.5
    assert runs["supernet"].data.metrics == {"train/loss": 1.0}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


KILLED_WITHOUT_A_STORE = """
import os, signal, sys
from pathlib import Path
from raysearch.tracking import Tracker
from tracked_search import candidate, settings

tracker = Tracker(**settings(sys.argv[1], "killed alone"), spool=Path(sys.argv[2]))
print("open", flush=True)
sys.stdin.readline()  # the server is gone now
for i in range(3):
    tracker.log_candidate(candidate(i))
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_search_killed_while_the_server_is_away_leaves_its_records(database, start_server, tmp_path):
    spool = tmp_path / "tracking.jsonl"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with start_server() as uri:
        command = [sys.executable, "-c", KILLED_WITHOUT_A_STORE, uri, str(spool)]
        search = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert search.stdin is not None
        assert search.stdout is not None
        assert search.stdout.readline() == "open\n"
    print(file=search.stdin, flush=True)
    pulse = threading.Event()
    while not spool.exists() or spool.read_text().count("\n") < 3:
        assert search.poll() is None
        pulse.wait(0.01)
    search.communicate("\n")
    with start_server():
        with Tracker(**settings(uri, "killed alone"), spool=spool, patience=60) as resumed:
            resumed.log_candidate(candidate(1))
        assert resumed.close() == 0
    runs = children(f"sqlite:///{database}", resumed.run_id)
    assert Counter(r.data.tags["raysearch.key"] for r in runs) == Counter(arch(i).id for i in range(3))
    assert not spool.exists()


def test_a_damaged_record_that_waited_is_named_before_anything_is_opened(tmp_path):
    spool = tmp_path / "tracking.jsonl"
    whole = '{"kind": "tags", "what": "tags", "values": {"tags": {}}}\n'
    spool.write_text(whole + '{"kind": "tags"}\n' + whole)
    before = dict(os.environ)
    with pytest.raises(ValueError, match=r"tracking\.jsonl line 2 is damaged; remove that line; what it held is missing"):
        Tracker(**settings(f"sqlite:///{tmp_path / 'mlflow.db'}", "s"), spool=spool)
    assert dict(os.environ) == before
    assert [path.name for path in tmp_path.iterdir()] == ["tracking.jsonl"]


def test_a_disk_that_is_full_costs_a_warning(start_server, caplog):
    with start_server() as uri:
        tracker = Tracker(**settings(uri, "full"), spool=Path("/proc/tracking.jsonl"), patience=0.1)
    tracker.log_candidate(candidate(0))
    assert tracker.close() == 2
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize("call", ["runs/create", "runs/log-batch", "runs/update"])
def test_an_answer_that_is_lost_makes_no_duplicate(server, call):
    """The store has done what was asked, but the connection breaks before it says so."""
    lost: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {"Content-Type": self.headers.get("Content-Type", "application/json")}
            answer = requests.request(self.command, server + self.path, data=body, headers=headers)
            if self.path.endswith(call) and (call != "runs/create" or b"candidate" in body) and not lost:
                lost.append(self.path)
                self.close_connection = True
                return
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    with http_server(Proxy) as uri:
        tracker = Tracker(**settings(server, call))  # opened in peace
        tracker.close()
        with Tracker(**settings(uri, call)) if call == "runs/create" else _opened_before(uri, call, lost) as tracker:
            for i in range(3):
                tracker.log_candidate(candidate(i))
    assert lost
    runs = children(server, tracker.run_id)
    assert Counter(r.data.tags["raysearch.key"] for r in runs) == Counter(arch(i).id for i in range(3))
    assert {r.info.status for r in runs} == {"FINISHED"}
    client = MlflowClient(server)
    assert all(len(client.get_metric_history(r.info.run_id, "score")) == 1 for r in runs)


@contextmanager
def _opened_before(uri: str, call: str, lost: list[str]) -> Iterator[Tracker]:
    """Opening makes these calls too: they pass, and the first of the search is lost."""
    lost.append("not yet")
    with Tracker(**settings(uri, call)) as tracker:
        lost.clear()
        yield tracker


KILLED_WHILE_LOGGING = """
import os, signal, sys
import mlflow.store.tracking.sqlalchemy_store
from sqlalchemy import Engine, event
from sqlalchemy.orm import configure_mappers
from raysearch.tracking import Tracker
from tracked_search import candidate, settings

configure_mappers()  # a second of work, once for all that follow
for commits in range(int(sys.argv[2])):
    if os.fork() == 0:
        tracker = Tracker(**settings(sys.argv[1], f"killed after {commits}"))
        tracker.log_candidate(candidate(0))
        done = iter(range(commits))
        event.listen(Engine, "commit", lambda connection: next(done, None) is None and os.kill(os.getpid(), signal.SIGKILL))
        for i in range(1, 40):
            tracker.log_candidate(candidate(i))
        tracker.close()
        os._exit(1)
    _, status = os.wait()
    assert os.WTERMSIG(status) == signal.SIGKILL, status
"""


def test_a_search_killed_at_any_commit_goes_on_without_duplicates_or_running_runs(database):
    """A candidate takes about six commits: a search is killed at each of the first ten, then continued."""
    uri, kills = f"sqlite:///{database}", 10
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, "-c", KILLED_WHILE_LOGGING, uri, str(kills)], check=True, env=environment, timeout=120)
    client = MlflowClient(uri)
    left_running = 0
    for kill in range(kills):
        search = settings(uri, f"killed after {kill}")
        experiment = client.get_experiment_by_name(search["experiment"])
        condition = f"tags.`raysearch.search_id` = '{search['search_id']}' and status = 'RUNNING'"
        left_running += len(client.search_runs([experiment.experiment_id], condition))
        with Tracker(**search) as tracker:
            for i in range(4):
                tracker.log_candidate(candidate(i))
        runs = children(uri, tracker.run_id)
        assert Counter(r.data.tags["raysearch.key"] for r in runs) == Counter(arch(i).id for i in range(4))
        assert {r.info.status for r in runs} == {"FINISHED"}
        assert all(len(client.get_metric_history(r.info.run_id, "score")) == 1 for r in runs)
        assert all({"architecture", "depth"} <= set(r.data.params) for r in runs)
        assert client.get_run(tracker.run_id).info.status == "FINISHED"
    assert left_running > kills  # parents, and children in the middle of being written


def test_a_bug_in_the_writer_is_raised_in_the_search(database, monkeypatch):
    """It is not a store's trouble: it must not be retried for ever, nor vanish."""

    def broken(*_, **__):
        raise AttributeError("a bug")

    tracker = Tracker(**settings(f"sqlite:///{database}", "s"))
    monkeypatch.setattr(MlflowClient, "log_batch", broken)
    tracker.log_candidate(candidate(0))
    with pytest.raises(RuntimeError, match="writer broke") as caught:
        tracker.close()
    assert isinstance(caught.value.__cause__, AttributeError)
