"""Signals that end a job: what schedulers, clusters and closed terminals send does what Ctrl-C does."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class Ending:
    """The signal that ended a job, if one did."""

    def __init__(self) -> None:
        self.number: int = signal.SIGINT  # which Python turns into a KeyboardInterrupt by itself

    @property
    def exit_code(self) -> int:
        """What shells expect of a program that a signal ended: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
        return 128 + self.number


@contextmanager
def interrupting() -> Generator[Ending]:
    """Have SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread, for the length of a ``with`` block.

    So whoever cleans up after Ctrl-C cleans up after these too. Which it was stands in what is yielded, not in the exception:
    Ray's ray.get makes another one of it. The first signal only: cleaning up takes seconds, and a second must not cut it short.
    One that is ignored, as under nohup, stays ignored.
    """
    ending = Ending()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def end(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        ending.number = number
        raise KeyboardInterrupt

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
