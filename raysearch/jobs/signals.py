"""Signals that end a job: what schedulers, clusters and closed terminals send does what Ctrl-C does."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came. A KeyboardInterrupt, so that whoever cleans up after Ctrl-C cleans up after these too."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_code(interruption: KeyboardInterrupt) -> int:
    """What shells expect of a program that a signal ended: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    return 128 + (interruption.number if isinstance(interruption, Terminated) else signal.SIGINT)


@contextmanager
def interrupting() -> Generator[None]:
    """Have SIGTERM and SIGHUP raise :class:`Terminated` in the main thread, for the length of a ``with`` block.

    The first one only: cleaning up takes seconds, and a second must not cut it short. One that is ignored, as under nohup,
    stays ignored.
    """
    before = {number: signal.getsignal(number) for number in ENDING}

    def end(number: int, frame: FrameType | None) -> None:
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)
        raise Terminated(number)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
