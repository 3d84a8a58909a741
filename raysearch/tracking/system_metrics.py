"""How busy this machine is, under the names that MLflow's page of system metrics knows.

What is read is read by MLflow's own monitors of CPU and GPU (with psutil and, where it is installed, nvidia-ml-py). When it is
read, and where it goes, is ours: MLflow's ``SystemMetricsMonitor`` (3.17, as its code reads) would harm the record. It writes
past our queue, with a client of its own, so that what it measures while the store is silent is lost; it asks the store for its
run before each point and stops for good at the first answer that fails; it wants the run's id at its start, when our run of the
training is not made yet; and it reports nothing at its end, so a training of less than ten seconds would have no point.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

_SECONDS = 10.0


class Sampler:
    """Reads CPU, memory and (where nvidia-ml-py is installed) GPUs every ten seconds, in a thread, until :meth:`stop`.

    ``report`` takes the values by name; the last one is reported by :meth:`stop` itself.
    """

    def __init__(self, report: Callable[[dict[str, float]], None]) -> None:
        self._report = report
        self._monitors: list[Any] = [CPUMonitor()]
        with suppress(ImportError, RuntimeError):  # no library that asks, or no GPU that answers
            self._monitors.append(GPUMonitor())
        self._read()  # the first says nothing: the CPU's use is counted from one reading to the next
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="system-metrics", daemon=True)
        self._thread.start()

    def _read(self) -> dict[str, float]:
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return values

    def _run(self) -> None:
        while not self._stopped.wait(_SECONDS):
            self._report(self._read())

    def stop(self) -> None:
        """Report once more and end the thread."""
        self._stopped.set()
        self._thread.join()
        self._report(self._read())
