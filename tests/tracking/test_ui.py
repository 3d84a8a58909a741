"""The UI on a local record: what it shows, and what of it other users of the machine see."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from small_servers import free_port
from tracked_search import candidate, settings

from raysearch.tracking import Tracker, TrackingError, UiServer, artifact_of_run, recorded_searches, ui_command


def command_lines(parent: int) -> list[str]:
    """Of the processes below one."""
    below, found = {parent}, list[str]()
    for folder in sorted((p for p in Path("/proc").iterdir() if p.name.isdigit()), key=lambda p: int(p.name)):
        try:
            above = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it ended
            continue
        if above in below:
            below.add(int(folder.name))
            found.append(words)
    return found


def test_no_command_line_names_the_store_that_the_ui_shows(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = database.rename(database.with_name("of-the-ui.db"))  # servers of other tests may be processes below this one
    uri, port = f"sqlite:///{database}", free_port()
    with Tracker(**settings(uri, "seen")) as tracker:
        tracker.log_candidate(candidate(0))
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", f"sqlite:///{database.with_name('another.db')}")
    with UiServer(uri, port=port):
        lines = command_lines(os.getpid())
        assert MlflowClient(f"http://127.0.0.1:{port}").get_run(tracker.run_id).info.run_id == tracker.run_id
    assert any(f"ui --port {port}" in line for line in lines)
    assert not [line for line in lines if database.name in line]
    assert not database.with_name("another.db").exists()


def test_a_password_is_in_no_command_that_is_printed() -> None:
    uri = "postgresql+psycopg2://ada:t0psecret@127.0.0.1:1/runs"
    assert "ui --backend-store-uri 'postgresql+psycopg2://ada:***@127.0.0.1:1/runs' --port" in ui_command(uri)


def test_a_ui_that_ends_by_itself_is_told_without_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "mlflow"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    server = UiServer("mysql://ada:t0psecret@h/x", port=free_port())
    with pytest.raises(TrackingError, match=r"ended with code 3; `\S+mlflow ui .*ada:\*\*\*@") as failed, server:
        pass
    assert "t0psecret" not in str(failed.value)


def test_an_sqlite_address_may_hold_settings(database: Path, tmp_path: Path) -> None:
    with Tracker(**settings(f"sqlite:///{database}", "seen")) as tracker:
        tracker.log_candidate(candidate(0))
    found = recorded_searches(f"sqlite:///{database}?timeout=60")
    assert [search.experiment for search in found] == [settings("", "seen")["experiment"]]
    with pytest.raises(TrackingError, match=r"no search in MLflow at sqlite:///\S*absent\.db\?timeout=60; run one first"):
        recorded_searches(f"sqlite:///{tmp_path / 'absent.db'}?timeout=60")
    with pytest.raises(TrackingError, match=r"no MLflow record at sqlite:///\S*absent\.db\?timeout=60"):
        artifact_of_run(f"sqlite:///{tmp_path / 'absent.db'}?timeout=60", "1234", "config.json", folder=tmp_path)
    assert not (tmp_path / "absent.db").exists()
    with pytest.raises(TrackingError, match=r"cannot use MLflow at sqlite:runs"):
        recorded_searches("sqlite:runs")
