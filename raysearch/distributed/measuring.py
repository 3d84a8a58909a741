"""Latency of subnets before the search, where an evaluator will measure those of the search: same resources, same device."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray

from raysearch.distributed.cluster import Actor, answer
from raysearch.distributed.evaluators import ATTEMPTS, EvaluatorConfig, plan_evaluators
from raysearch.distributed.room import Waiting, check_room
from raysearch.distributed.supernet_scorer import evaluator_device
from raysearch.nn.compiled import compile_blocks
from raysearch.scoring.latency import LatencyConfig, computes_in, device_name, measure, undisturbed
from raysearch.space import Architecture
from raysearch.spaces import Family, build_subnet

log = logging.getLogger(__name__)

A = TypeVar("A", bound=Architecture)


@dataclass(frozen=True, slots=True)
class LatencyJob:
    """All that a measuring process needs to know."""

    family: Family[Any, Any]
    settings: dict[str, Any]
    """Constructor arguments of the supernet."""
    input_shape: tuple[int, ...]
    """Of one item, as channels, height, width."""
    config: LatencyConfig
    evaluators: EvaluatorConfig


@dataclass(frozen=True, slots=True)
class Measured(Generic[A]):
    """Milliseconds of subnets, and of which device they are."""

    milliseconds: dict[A, float]
    device: str
    precision: str


class LatencyProbe:
    """Measures subnets with fresh weights, which are as fast as trained ones."""

    def __init__(self, job: LatencyJob) -> None:
        self.job = job
        self.device, self.lock = evaluator_device(job.evaluators)

    def describe(self) -> tuple[str, str]:
        """Name of the device, and the precision in which it computes."""
        return device_name(self.device), computes_in(self.device, self.job.evaluators.precision)

    def measure(self, arch: Architecture) -> float:
        """Milliseconds of one forward pass, alone on the device."""
        job = self.job
        subnet = build_subnet(job.family, job.settings, arch.to_dict())
        if job.evaluators.compile:
            compile_blocks(subnet)
        with self.lock.alone():
            return measure(subnet, job.input_shape, device=self.device, precision=job.evaluators.precision, config=job.config)


def measure_subnets(
    job: LatencyJob, archs: Sequence[A], *, on_measured: Callable[[], None], say: Callable[[str], None] = log.warning
) -> Measured[A]:
    """Measure subnets one after the other in a process such as an evaluator's; ``on_measured`` is called after each.

    ``say`` gets a line a minute while there is no room for that process. Raises UserError when there never can be.
    """
    _, need = plan_evaluators(job.evaluators)
    check_room(need)
    before = ray.available_resources()
    probe: Actor = ray.remote(**need.options, max_restarts=ATTEMPTS, max_task_retries=ATTEMPTS)(LatencyProbe).remote(job)
    described = probe.describe.remote()
    waiting = Waiting(need, say)
    while not ray.wait([described], timeout=1)[0]:
        waiting.look(1, of=1)

    def one(arch: A) -> float:
        milliseconds: float = answer(probe.measure.remote(arch))
        on_measured()
        return milliseconds

    device, precision = answer(described)
    measured = Measured(undisturbed(one, archs), device, precision)
    ray.kill(probe)
    # Training, which is next, counts what is free: the processors of a killed actor take a moment to be.
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(
        ray.available_resources().get(r, 0) < before[r] for r in ("CPU", "GPU") if r in before
    ):
        time.sleep(0.05)
    return measured
