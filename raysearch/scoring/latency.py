"""Milliseconds of a forward pass: measured on a device, and predicted from the parts that a network is made of."""

from __future__ import annotations

import platform
import re
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from random import Random
from typing import Annotated, Any, Self, TypeVar

import numpy as np
import torch
from torch import nn

from raysearch.bounds import Count, CountOrNone, at_least, check_numbers
from raysearch.nn.precision import Precision, autocast
from raysearch.search import SearchProblem
from raysearch.space import Architecture
from raysearch.tasks.images.device import image_format

A = TypeVar("A", bound=Architecture)

PATIENCE = 3
"""How many times the repetitions may be made where other processes interrupt them."""
AGREEMENT = 0.03
"""How far apart the two least measurements of a subnet for a latency table may be, relative to the least."""
MOST_ROUNDS = 10
"""How often such a subnet is measured at most."""

Features = Mapping[str, float]
"""What a network's latency is made of, by name: it is taken to be a sum of these with nonnegative coefficients."""


@dataclass(frozen=True, slots=True)
class LatencyConfig:
    """How latency is measured. It is where ``measure`` is set or the budget limits it."""

    measure: bool = False
    """Measure every candidate that is scored on all images, without a limit too."""
    batch_size: Count = 1
    """Images per forward pass."""
    warmup: CountOrNone = 3
    """Passes before the first that counts."""
    repetitions: Count = 20
    """Passes that count; their median is the latency."""
    fitted: Annotated[int, at_least(2)] = 24
    """Subnets that the latency table is fitted to before the search."""
    held_out: Count = 8
    """Further subnets, which tell the table's error."""

    def __post_init__(self) -> None:
        """Raises UserError for counts that measure nothing."""
        check_numbers(self)


@dataclass(frozen=True, slots=True)
class LatencyRule:
    """What an evaluator does about latency."""

    config: LatencyConfig
    device: str
    """Where the latency table was measured, as :func:`device_name` says: times of other devices do not compare."""
    max_ms: float | None
    """A candidate that takes longer is excluded."""


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's with the number of threads that this process computes with."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    described = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", described.read_text(), re.MULTILINE) if described.exists() else None
    threads = torch.get_num_threads()
    return f"{found[1] if found else platform.machine()}, {threads} thread{'s' * (threads > 1)}"


def computes_in(device: torch.device, precision: Precision) -> str:
    """``float32``, ``bfloat16`` or ``float16``: what ``precision`` comes to on ``device``."""
    with autocast(device, precision):
        enabled = torch.is_autocast_enabled(device.type)
        return str(torch.get_autocast_dtype(device.type)).removeprefix("torch.") if enabled else "float32"


@torch.inference_mode()
def measure(
    subnet: nn.Module,
    input_shape: tuple[int, ...],
    *,
    device: torch.device,
    precision: Precision,
    config: LatencyConfig,
) -> float:
    """Median milliseconds of one forward pass, from handing it to the device until its outputs are there.

    Nothing else should compute on the device meanwhile. Passes of a CPU during which the kernel gave the processor to another
    process do not count where others do; up to :data:`PATIENCE` times the repetitions are made for enough that count.
    ``input_shape``: of one item, as channels, height, width.
    """
    layout = image_format(device)
    subnet = subnet.to(device).to(memory_format=layout).eval()
    images = torch.zeros((config.batch_size, *input_shape), device=device).to(memory_format=layout)

    def one_pass() -> tuple[float, bool]:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        interruptions = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        started = time.perf_counter()
        subnet(images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        milliseconds = 1000 * (time.perf_counter() - started)
        return milliseconds, device.type == "cpu" and resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw > interruptions

    with autocast(device, precision):  # one context for all passes, as in scoring: within it, weights are converted once
        for _ in range(config.warmup):
            one_pass()
        passes = [one_pass() for _ in range(config.repetitions)]
        calm = [milliseconds for milliseconds, interrupted in passes if not interrupted]
        while calm and len(calm) < config.repetitions and len(passes) < PATIENCE * config.repetitions:
            passes.append(one_pass())
            if not passes[-1][1]:
                calm.append(passes[-1][0])
    return statistics.median(calm or [milliseconds for milliseconds, _ in passes])


def undisturbed(measure_one: Callable[[A], float], archs: Sequence[A]) -> dict[A, float]:
    """Milliseconds of each architecture, the least of several rounds over all of them.

    Whatever else a machine does makes a network slower, never faster. So each is measured until the two least of its values
    agree within :data:`AGREEMENT`, in two rounds on a quiet machine and at most in :data:`MOST_ROUNDS`.
    """
    values = {arch: [measure_one(arch)] for arch in archs}
    for _ in range(MOST_ROUNDS - 1):
        for arch, found in values.items():
            least = sorted(found)[:2]
            if len(least) < 2 or least[1] > (1 + AGREEMENT) * least[0]:
                found.append(measure_one(arch))
    return {arch: min(found) for arch, found in values.items()}


def architectures_to_measure(problem: SearchProblem[A], config: LatencyConfig, *, seed: int) -> tuple[list[A], list[A]]:
    """Architectures to fit a table to, and others to tell its error by.

    The smallest and the largest of the space and random ones inside the band, all different. Where the band holds fewer than
    wanted, a quarter of those that it holds is kept for the error.
    """
    ends = list(dict.fromkeys((problem.space.smallest(), problem.space.largest())))
    drawn: dict[A, None] = {}
    for i in range(config.fitted + config.held_out - len(ends)):
        arch = problem.sample(Random(f"{seed}/latency/{i}"), exclude={*ends, *drawn})
        if arch is None:
            break
        drawn[arch] = None
    held_out = min(config.held_out, max(1, len(drawn) // 4)) if len(drawn) < config.fitted else config.held_out
    chosen = [*ends, *drawn]
    cut = max(1, len(chosen) - held_out)
    return chosen[:cut], chosen[cut:]


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """Predicts milliseconds of subnets that were never measured. JSON in and out."""

    coefficients: dict[str, float]
    """Milliseconds per unit of each feature, none negative."""
    device: str
    """Where it was measured, as :func:`device_name` says."""
    batch_size: int
    precision: str
    fitted: int
    """How many subnets it was fitted to."""
    held_out: int
    """How many others the errors are those of."""
    median_error: float | None
    """|predicted / measured - 1| of the subnets held out, in the middle; None when there were none."""
    largest_error: float | None

    @classmethod
    def fit(
        cls,
        fitted: Sequence[tuple[Features, float]],
        held_out: Sequence[tuple[Features, float]],
        *,
        device: str,
        batch_size: int,
        precision: str,
    ) -> Self:
        """From features and measured milliseconds of subnets; relative errors count, so small subnets count as large ones."""
        coefficients = fit_coefficients(fitted)
        errors = [abs(_predicted(coefficients, features) / ms - 1) for features, ms in held_out]
        return cls(
            coefficients=coefficients,
            device=device,
            batch_size=batch_size,
            precision=precision,
            fitted=len(fitted),
            held_out=len(held_out),
            median_error=statistics.median(errors) if errors else None,
            largest_error=max(errors, default=None),
        )

    def predict(self, features: Features) -> float:
        """Milliseconds of one forward pass of a network, or of a part of one."""
        return _predicted(self.coefficients, features)

    def rows(self, parts: Sequence[tuple[Mapping[str, Any], Features]]) -> list[dict[str, Any]]:
        """Milliseconds of each part that networks are made of, beside the choices that name it: the table a person reads."""
        return [{**choices, "ms": self.predict(features)} for choices, features in parts]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`; other keys are ignored. Raises KeyError for one that is missing."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})


def fit_coefficients(measured: Sequence[tuple[Features, float]]) -> dict[str, float]:
    """Nonnegative coefficients that minimise the sum of squared relative errors (Lawson and Hanson's NNLS)."""
    from scipy.optimize import nnls  # a second to import, in the one process that fits

    names = list(measured[0][0])
    milliseconds = np.array([ms for _, ms in measured])
    rows = np.array([[features[name] for name in names] for features, _ in measured]) / milliseconds[:, None]
    scale = np.maximum(rows.max(axis=0), np.finfo(float).tiny)
    solution, _ = nnls(rows / scale, np.ones(len(measured)))
    return {name: float(value) for name, value in zip(names, solution / scale, strict=True)}


def _predicted(coefficients: Mapping[str, float], features: Features) -> float:
    return sum(coefficients[name] * value for name, value in features.items())
