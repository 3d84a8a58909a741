"""Where processes write how far they are, and their driver reads it."""

from __future__ import annotations

import time

from raysearch.distributed.cluster import Actor

OFTEN = 0.5
"""Seconds between two reports of a process at least."""


class Board:
    """Steps that processes have done, by their names."""

    def __init__(self) -> None:
        self.steps: dict[str, tuple[int, int]] = {}

    def report(self, name: str, done: int, total: int) -> None:
        """Note that a process has done so many of its steps."""
        self.steps[name] = done, total

    def read(self) -> dict[str, tuple[int, int]]:
        """Steps done, and all steps, of each process that has begun."""
        return self.steps


class Reporter:
    """Writes the steps of one process to a board, not too often, and never waits for it.

    Args:
        board: actor handle of a :class:`Board`.
        name: of the process.

    """

    def __init__(self, board: Actor, name: str) -> None:
        self.board, self.name = board, name
        self.next = float("-inf")

    def __call__(self, done: int, total: int) -> None:
        """Report ``done`` of ``total`` steps."""
        if time.monotonic() >= self.next or done == total:
            self.next = time.monotonic() + OFTEN
            self.board.report.remote(self.name, done, total)
