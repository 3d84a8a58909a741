"""The test run's cluster between two tests."""

from __future__ import annotations

import threading

import ray


def wait_until_idle() -> None:
    """Return when nothing that an earlier test started holds one of the head's two processors, and no other node is left.

    A training takes as many processes as are free when it starts, and processes of an earlier test end in their own time.
    """
    pulse = threading.Event()
    while not ray.cluster_resources().get("CPU") == ray.available_resources().get("CPU") == 2:
        pulse.wait(0.05)
