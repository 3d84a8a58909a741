"""What progress says, where the output is no terminal."""

from __future__ import annotations

import io
import re
import threading

import pytest
from rich.console import Console

from raysearch.jobs import progress
from raysearch.jobs.progress import TrainingProgress, activity, phase
from raysearch.store.summary import EpochRecord


class Lines(io.StringIO):
    """Lets a test wait until so many lines are there."""

    def __init__(self) -> None:
        super().__init__()
        self.more = threading.Condition()

    def write(self, text: str, /) -> int:
        with self.more:
            written = super().write(text)
            self.more.notify_all()
        return written

    def wait_for(self, count: int) -> list[str]:
        """The first ``count`` lines, when they are there."""
        with self.more:
            self.more.wait_for(lambda: self.getvalue().count("\n") >= count)
        return self.getvalue().splitlines()[:count]


def test_a_phase_speaks_first_last_and_in_between_although_no_step_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SOON", 0.02)
    monkeypatch.setattr(progress, "EVERY", 0.02)
    lines = Lines()
    with phase(Console(file=lines), "train", 300, at_first="processes start") as shown:
        assert re.fullmatch(r"train    processes start  0 of 300  0\.\d s so far", lines.wait_for(1)[0])
        training = TrainingProgress(shown, epochs=300)
        training.on_step(1, 3000)
        said = lines.wait_for(6)
        assert re.fullmatch(r"train    epoch 1/300  1 of 3,000  .* so far", said[-1])
        training.on_step(9, 3000)
        said = lines.wait_for(9)
        assert re.fullmatch(r"train    epoch 1/300  9 of 3,000  .* left", said[-1])
        training.on_epoch(EpochRecord(0, 2.5, 1e-3, 1.0, skipped=2))
        training.on_step(3000, 3000)
    assert re.fullmatch(
        r"train    epoch 300/300  3,000 of 3,000  loss 2\.500, 2 steps skipped  in \d\.\d s", lines.getvalue().splitlines()[-1]
    )


def test_a_phase_without_haste_has_two_lines() -> None:
    lines = Lines()
    with phase(Console(file=lines), "search", 2) as shown:
        lines.wait_for(1)
        for done in (1, 2):
            shown.show(done, step="generation 1/1", best="best 90 %")
    first, last = lines.getvalue().splitlines()
    assert first.startswith("search  0 of 2  ")
    assert last.startswith("search   generation 1/1  2 of 2  best 90 %")


def test_what_takes_long_without_steps_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Lines()
    with activity(Console(file=lines), "reading a book"):
        pass
    assert lines.getvalue() == ""
    monkeypatch.setattr(progress, "LONG", 0.0)
    monkeypatch.setattr(progress, "EVERY", 0.02)
    with activity(Console(file=lines), "starting Ray"):
        said = lines.wait_for(2)
    assert said[0] == "starting Ray"
    assert re.fullmatch(r"starting Ray: 0\.\d s so far", said[1])
