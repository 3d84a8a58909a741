"""What the benchmark scripts share: the machine they ran on, medians of interleaved repetitions, tables.

Timings on a shared machine drift. So alternatives are measured in turns within one process, and what is compared are medians
of the ratios within a turn, never two numbers of different runs.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from raysearch.store.versions import package_versions


def console() -> Console:
    """Where tables go: as wide as the terminal, wide enough for every table in a file."""
    screen = Console()
    return screen if screen.is_terminal else Console(width=160)


def machine() -> str:
    """Processor, usable cores, memory and load of this machine, in one line."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB; load {os.getloadavg()[0]:.1f} at the start"


def versions() -> str:
    """Python and the packages that matter, in one line."""
    return ", ".join(f"{name} {version}" for name, version in package_versions().items())


def print_heading(screen: Console, title: str) -> None:
    """What is measured, on which machine, with which versions."""
    screen.print(f"[bold]{title}[/bold]\n{machine()}\n{versions()}", highlight=False, soft_wrap=True)


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call, in seconds."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def interleaved(measures: Mapping[str, Callable[[], float]], *, repetitions: int, warmups: int = 1) -> dict[str, list[float]]:
    """What each of ``measures`` returns, ``repetitions`` times: all of them once in every turn, every second turn backwards.

    The first ``warmups`` turns are not counted. Raises ValueError when nothing would be counted.
    """
    if repetitions < 1:
        raise ValueError(f"{repetitions} repetitions measure nothing; at least 1")
    values: dict[str, list[float]] = {name: [] for name in measures}
    for turn in range(warmups + repetitions):
        for name in list(measures) if turn % 2 == 0 else reversed(list(measures)):
            value = measures[name]()
            if turn >= warmups:
                values[name].append(value)
    return values


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of the ratios turn by turn. Both are lists of :func:`interleaved`."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "") -> Table:
    """A table whose first column is text and whose others are numbers."""
    result = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for i, column in enumerate(columns):
        result.add_column(column, justify="right" if i else "left")
    for row in rows:
        result.add_row(*row)
    return result
