"""One progress line that a person can read: phase, step, done of total, best score, time left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from raysearch.report.tables import duration_text
from raysearch.store.summary import EpochRecord

SOON = 15.0
"""Seconds until the second line where the output is no terminal: by then a time left is known, mostly."""
EVERY = 60.0
"""Seconds between further lines there."""
LONG = 2.0
"""Seconds until an activity is worth a line there."""


def say_on(console: Console) -> Callable[[str], None]:
    """What prints one line, above a progress bar where there is one."""
    return lambda line: console.print(line, highlight=False, soft_wrap=True)


class Phase:
    """A phase in progress. ``show`` is called from any thread."""

    def __init__(self, console: Console, name: str, total: int, bar: Progress | None, *, at_first: str) -> None:
        self._console, self._name, self._total, self._bar = console, name, total, bar
        self._begun = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._done, self._step, self._best = 0, at_first, ""
        self._printed: tuple[str, int] | None = None
        self._task: TaskID | None = bar.add_task(name, total=total, step=at_first, best="", left="") if bar else None

    def show(self, done: int, *, step: str, best: str = "", total: int | None = None) -> None:
        """Show the state; ``step`` names the epoch or generation, ``total`` replaces what was planned when that is known."""
        if self._first is None:
            # Counted from here: starting processes took time, and an earlier run did the rest.
            self._first = (time.monotonic(), done)
        self._done, self._step, self._best, self._total = done, step, best, total or self._total
        self._update()

    def _update(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, completed=self._done, total=self._total, step=self._step, best=self._best, left=self._time()
            )

    def _time(self) -> str:
        """Time left, or so far where no step tells how long one takes."""
        now = time.monotonic()
        if self._done >= self._total:
            return f"in {duration_text(now - self._begun)}"
        since, before = self._first or (now, 0)
        fresh = self._done - before
        if fresh > 0 and now > since:
            return f"{duration_text((now - since) / fresh * (self._total - self._done))} left"
        return f"{duration_text(now - self._begun)} so far"

    def print(self) -> None:
        """Print a line with the state, unless it is the last one again."""
        state = f"{self._name:<8} {self._step}".rstrip()
        parts = [state, f"{self._done:,} of {self._total:,}", self._best]
        line = "  ".join(part for part in parts if part)
        if (line, self._done) != self._printed or self._done < self._total:
            self._printed = (line, self._done)
            self._console.print(f"{line}  {self._time()}", highlight=False, soft_wrap=True)

    def keep_showing(self, ended: threading.Event) -> None:
        """Have the time go on until the phase has ended, also while no step ends: on a terminal each second."""
        if self._bar is not None:
            while not ended.wait(1):
                self._update()
            return
        self.print()
        pause = SOON
        while not ended.wait(pause):
            self.print()
            pause = EVERY


class TrainingProgress:
    """Shows a training's steps, its epochs and their losses.

    Args:
        shown: the phase, which counts epochs until the steps of one are known.
        epochs: of the training.
        of: what is trained, where the phase trains several things one after the other.
        before: epochs that the phase trains before this training.
        after: and after it.

    """

    def __init__(self, shown: Phase, *, epochs: int, of: str = "", before: int = 0, after: int = 0) -> None:
        self._shown, self._epochs = shown, epochs
        self._of, self._before, self._after = f"{of}, " if of else "", before, after
        self._loss = ""
        self._skipped = 0
        self._finished = 0

    def on_epoch(self, record: EpochRecord) -> None:
        """Take the record of a finished epoch."""
        self._finished, self._skipped = record.epoch + 1, self._skipped + record.skipped
        skipped = f", {self._skipped} steps skipped" if self._skipped else ""
        self._loss = f"loss {record.loss:.3f}{skipped}"

    def on_step(self, done: int, total: int) -> None:
        """Take the number of steps that are done, of all of this training."""
        per_epoch = total // self._epochs
        epoch = min(self._epochs, max(self._finished, done // per_epoch) + 1)
        everything = (self._before + self._epochs + self._after) * per_epoch
        step = f"{self._of}epoch {epoch}/{self._epochs}"
        self._shown.show(self._before * per_epoch + done, step=step, best=self._loss, total=everything)


@contextmanager
def phase(console: Console, name: str, total: int, *, at_first: str = "") -> Generator[Phase]:
    """A phase of ``total`` steps: a bar on a terminal; elsewhere a line first, last, after some seconds, and each minute.

    ``at_first`` says what is done until the first step.
    """
    if console.is_terminal:
        columns = (
            TextColumn("{task.description:<8} {task.fields[step]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[best]}"),
            TextColumn("{task.fields[left]}"),
        )
        with Progress(*columns, console=console) as bar:
            shown = Phase(console, name, total, bar, at_first=at_first)
            with _showing(shown):
                yield shown
        return
    shown = Phase(console, name, total, None, at_first=at_first)
    with _showing(shown):
        yield shown
    shown.print()


@contextmanager
def _showing(shown: Phase) -> Generator[None]:
    ended = threading.Event()
    thread = threading.Thread(target=shown.keep_showing, args=(ended,), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def activity(console: Console, what: str) -> Generator[None]:
    """Say what takes seconds although nothing can be counted, as ``starting Ray``.

    A line that goes away on a terminal; elsewhere one that stays, and one a minute.
    """
    if console.is_terminal:
        with console.status(what):
            yield
        return
    begun, ended, say = time.monotonic(), threading.Event(), say_on(console)

    def go_on() -> None:
        if not ended.wait(LONG):
            say(what)
        while not ended.wait(EVERY):
            say(f"{what}: {duration_text(time.monotonic() - begun)} so far")

    thread = threading.Thread(target=go_on, name="activity", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
