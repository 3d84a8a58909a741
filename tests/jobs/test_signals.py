"""What ends a program from outside ends it as Ctrl-C does, and says how it is continued."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from raysearch.cli import Interruption, reported


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_interrupts_cleans_up_and_says_how_to_go_on(
    number: int, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.excepthook", None)  # restored afterwards
    # Ignored where tests run in the background of a shell; Ray Train's own after a training in this thread.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    cleaned: list[str] = []

    def job() -> None:
        try:
            signal.raise_signal(number)
        finally:
            if number != signal.SIGINT:
                signal.raise_signal(number)  # impatience
            cleaned.append("all")

    with pytest.raises(SystemExit) as left, reported(continued="the same command with --resume"):
        job()
    assert left.value.code == code
    assert cleaned == ["all"]
    assert capsys.readouterr().err == "interrupted; the same command with --resume continues\n"
    assert {each: signal.getsignal(each) for each in before} == before


def test_a_job_is_not_continued_before_there_is_something_to_continue(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.excepthook", None)
    with pytest.raises(SystemExit), reported(continued=None):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "interrupted before anything was kept; the same command begins again\n"
    with pytest.raises(SystemExit), reported(continued=None):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/b")
    assert "continue" not in capsys.readouterr().err

    def job(interruption: Interruption) -> None:
        interruption.continues("the same command with --output runs/one --resume")
        raise KeyboardInterrupt

    with pytest.raises(SystemExit), reported(continued=None) as interruption:
        job(interruption)
    assert capsys.readouterr().err == "interrupted; the same command with --output runs/one --resume continues\n"


def test_a_hangup_that_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.excepthook", None)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with reported(continued="the same command"):
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
