"""The test run's cluster between two tests, and its processes."""

from __future__ import annotations

import threading

import psutil
import ray


def wait_until_idle() -> None:
    """Return when nothing that an earlier test started holds one of the head's two processors, and no other node is left.

    A training takes as many processes as are free when it starts, and processes of an earlier test end in their own time.
    """
    pulse = threading.Event()
    while not ray.cluster_resources().get("CPU") == ray.available_resources().get("CPU") == 2:
        pulse.wait(0.05)


def actors(run: psutil.Process, name: str) -> list[psutil.Process]:
    """The processes below ``run`` that hold an actor of the class ``name``."""
    return [process for process in run.children(recursive=True) if _title(process).startswith(f"ray::{name}")]


def _title(process: psutil.Process) -> str:
    """How a process of Ray calls itself; nothing of one that has just ended."""
    try:
        return process.cmdline()[0]
    except (psutil.NoSuchProcess, IndexError):
        return ""
