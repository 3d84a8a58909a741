"""What machine and files refuse is one line with the place and the remedy, from any process; a bug keeps its traceback."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy
from ray.exceptions import RayTaskError
from ray.train.v2.api.exceptions import WorkerGroupError

from raysearch import cli
from raysearch.errors import UserError
from raysearch.store.files import write_whole


def of_a_task(cause: Exception) -> None:
    """As Ray raises what a task raised: an error that is of both classes."""
    raise RayTaskError("score", "a traceback", cause).as_instanceof_cause()


def of_a_training_worker(cause: Exception) -> None:
    failure = RuntimeError("the training failed")
    failure.__cause__ = WorkerGroupError("a worker failed", {0: cause})
    raise failure


def full(folder: Path) -> None:
    (folder / "report.html.tmp").symlink_to("/dev/full")
    write_whole(folder / "report.html", "x" * 10_000)


def no_database(folder: Path) -> None:
    (folder / "mlflow.db").touch()
    engine = sqlalchemy.create_engine(f"sqlite:///file:{folder}/mlflow.db?mode=ro&uri=true")
    try:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE runs (id INTEGER)"))
    finally:
        engine.dispose()


def refuse(kind: int) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        raise OSError(kind, os.strerror(kind), str(folder / "file"))

    return act


@pytest.fixture
def job(tmp_path: Path) -> Callable[[Callable[[Path], Any]], None]:
    """Runs what it is given as a job of the command line."""

    def run(act: Callable[[Path], Any]) -> None:
        with cli.reported(continued="the same command with --resume"):
            act(tmp_path)

    return run


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (full, ["report.html: No space left on device; make room there"]),
        (lambda folder: (folder / ("n" * 300)).touch(), ["n: File name too long; give a shorter name"]),
        (lambda folder: (folder / "absent").read_text(), ["absent: No such file or directory; restore it"]),
        (refuse(errno.EACCES), ["file: Permission denied; give another place, or the right"]),
        (refuse(errno.EROFS), ["file: Read-only file system; give another place"]),
        (refuse(errno.EDQUOT), ["file: Disk quota exceeded; make room there"]),
        (refuse(errno.EMFILE), ["Too many open files", "ulimit -n"]),
        (refuse(errno.EIO), ["file: Input/output error"]),
        (no_database, ["MLflow's database: attempt to write a readonly database", "give another place"]),
        (lambda _: of_a_task(OSError(errno.ENOSPC, "No space left on device", "/a/b")), ["/a/b: No space left on device"]),
        (lambda _: of_a_training_worker(OSError(errno.ENOSPC, "No space left on device", "/a/b")), ["/a/b: No space left"]),
        (lambda _: of_a_training_worker(sqlite3.OperationalError("database is locked")), ["is locked; another program"]),
    ],
)  # fmt: skip
def test_trouble_of_the_machine_is_one_line(
    job: Callable[..., None], act: Callable[[Path], Any], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        job(act)
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert "the same command with --resume continues" in said
    for word in words:
        assert word in said


def test_whole_files_stay_as_they_were_when_there_is_no_room(job: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    with pytest.raises(SystemExit):
        job(full)
    assert (tmp_path / "report.html").read_text() == "old"
    assert not (tmp_path / "report.html.tmp").exists()


def test_what_the_user_can_mend_is_their_own_line_from_a_task_too(
    job: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        job(lambda _: of_a_task(UserError("a.png is not a readable image")))
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: a.png is not a readable image\n"


def shapes(_: Path) -> None:
    np.zeros(3) + np.zeros(4)


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (shapes, ValueError),
        (lambda _: of_a_task(ValueError("a bug")), ValueError),
        (lambda _: of_a_training_worker(IndexError("a bug")), RuntimeError),
        (lambda _: {}["absent"], KeyError),
    ],
)
def test_a_bug_keeps_its_traceback(job: Callable[..., None], act: Callable[[Path], Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        job(act)


def test_whoever_wants_the_traceback_gets_it(job: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSEARCH_TRACEBACK", "1")
    with pytest.raises(OSError, match="No space left"):
        job(full)
