"""A job's connection to Ray, with a word while that takes seconds."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from rich.console import Console

from raysearch.distributed.cluster import connected
from raysearch.jobs.progress import activity, say_on


@contextmanager
def connected_to_ray(address: str | None, console: Console) -> Generator[None]:
    """:func:`~raysearch.distributed.cluster.connected`, which tells ``console`` what it does and finds."""
    with ExitStack() as stack:
        with activity(console, "starting Ray" if address is None else f"connecting to Ray, {address}"):
            stack.enter_context(connected(address, say=say_on(console)))
        yield
