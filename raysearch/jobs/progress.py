"""One progress line that a person can read: phase, step, done of total, best score, time left."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from raysearch.report.tables import duration_text

EVERY = 5.0
"""Seconds between lines where the output is no terminal."""


class Phase:
    """A phase in progress. ``show`` is called from any thread."""

    def __init__(self, console: Console, name: str, total: int, bar: Progress | None) -> None:
        self._console, self._name, self._total, self._bar = console, name, total, bar
        self._printed = float("-inf")
        self._first: tuple[float, int] | None = None
        self._task: TaskID | None = bar.add_task(name, total=total, step="", best="", left="") if bar else None

    def show(self, done: int, *, step: str, best: str = "") -> None:
        """Show the state; ``step`` names the epoch or generation."""
        now = time.monotonic()
        if self._first is None:
            self._first = (now, done)  # counted from here: starting processes took time, and an earlier run did the rest
        since, fresh = now - self._first[0], done - self._first[1]
        left = duration_text(since / fresh * (self._total - done)) if fresh > 0 else "?"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, step=step, best=best, left=f"{left} left")
        elif now - self._printed >= EVERY or done == self._total:
            self._printed = now
            parts = [f"{self._name:<8} {step}", f"{done} of {self._total}", best, f"{left} left"]
            self._console.print("  ".join(p for p in parts if p), highlight=False, soft_wrap=True)


@contextmanager
def phase(console: Console, name: str, total: int) -> Generator[Phase]:
    """A phase of ``total`` steps: a bar on a terminal, a line every few seconds elsewhere."""
    if not console.is_terminal:
        yield Phase(console, name, total, None)
        return
    columns = (
        TextColumn("{task.description:<8} {task.fields[step]}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[best]}"),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console) as bar:
        yield Phase(console, name, total, bar)
