"""What an evaluator runs: subnets of one supernet, scored and, where that is asked for, measured."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import ray
import torch

from raysearch.distributed.device_lock import DeviceLock
from raysearch.distributed.evaluators import EvaluatorConfig
from raysearch.distributed.files import NodeFile, local_path, node_folder
from raysearch.errors import UserError
from raysearch.nn.compiled import compile_blocks
from raysearch.scoring.latency import LatencyRule, device_name, measure
from raysearch.scoring.predictions import predict
from raysearch.scoring.score import score
from raysearch.scoring.subnets import open_subnets
from raysearch.search.protocol import Failure, Result
from raysearch.search.racing import Part
from raysearch.space import Architecture
from raysearch.spaces import Family
from raysearch.store.predictions import Predictions
from raysearch.tasks.images.cache import open_cache
from raysearch.tasks.images.device import DeviceImages, room_on
from raysearch.tasks.task import Task

LOOKS = 3
"""How often a candidate is measured before it counts as too slow; the least of these counts."""


def evaluator_device(config: EvaluatorConfig) -> tuple[torch.device, DeviceLock]:
    """The device of this process, which computes on a CPU with as many threads as its share allows, and its lock."""
    if gpus := ray.get_gpu_ids():
        return torch.device("cuda"), DeviceLock(node_folder(), f"gpu-{gpus[0]}")
    torch.set_num_threads(max(1, round(config.cpus)))  # Ray's start commands export OMP_NUM_THREADS=1
    return torch.device("cpu"), DeviceLock(node_folder(), "cpu")


class SupernetScorer:
    """Scores architectures with the weights that they inherit from one supernet.

    Args:
        weights: checkpoint of the supernet.
        family: of the supernet.
        task: what counts as good, and how cached inputs become network inputs.
        config: batch size and precision.
        calibration: cached training inputs from which running statistics are estimated, for families that have them.
        latency: how candidates are measured once they are scored; None: they are not. Raises UserError when this process
            computes on another device than the one whose latency table the search uses.

    """

    def __init__(
        self,
        weights: NodeFile,
        *,
        family: Family[Any, Any],
        task: Task,
        config: EvaluatorConfig,
        calibration: NodeFile | None = None,
        latency: LatencyRule | None = None,
    ) -> None:
        self.task, self.config, self.latency = task, config, latency
        self.device, self.lock = evaluator_device(config)
        if latency is not None and (here := device_name(self.device)) != latency.device:
            raise UserError(
                f"this evaluator computes on {here}, but the search predicts the latency of {latency.device}: "
                "keep evaluators on one kind of device, or start a new search"
            )
        self.subnets = open_subnets(
            local_path(weights),
            family,
            task=task,
            calibration=None if calibration is None else local_path(calibration),
            device=self.device,
        )
        self.opened: dict[str, DeviceImages] = {}

    def score(self, arch: Architecture, images: NodeFile, part: Part | None = None) -> Result | Failure:
        """Extract the subnet, then one pass over the images, or over a part of them.

        Then, where that is asked for, its latency is measured, alone on the device; not that of one that is out of its race.
        """
        with self.lock.shared():
            opened = self._open(images)
            subnet = self.subnets.extract(arch)
            if self.config.compile:
                compile_blocks(subnet)
            outcome = score(
                subnet,
                opened,
                task=self.task,
                cost=self.subnets.supernet.cost(arch),
                normalise=self.task.normalise,
                batch_size=self.config.batch_size,
                precision=self.config.precision,
                part=part,
            )
        if self.latency is None or isinstance(outcome, Failure) or not outcome.competes:
            return outcome
        with self.lock.alone():
            return self._measured(outcome, subnet, opened.cached.info.shape[1:], self.latency)

    def predict(self, arch: Architecture, images: NodeFile) -> Predictions | None:
        """What the subnet says of each image; None where the task is no classification."""
        with self.lock.shared():
            config = self.config
            return predict(
                self.subnets.extract(arch),
                self._open(images),
                task=self.task,
                batch_size=config.batch_size,
                precision=config.precision,
            )

    def _open(self, images: NodeFile) -> DeviceImages:
        """A split on this process's device, read once."""
        if images.digest not in self.opened:
            cached = open_cache(local_path(images))
            self.opened[images.digest] = DeviceImages(cached, self.device, room_bytes=room_on(self.device))
        return self.opened[images.digest]

    def _measured(self, result: Result, subnet: torch.nn.Module, input_shape: tuple[int, ...], rule: LatencyRule) -> Result:
        """``result`` with the subnet's latency; one above the limit is measured again, as something may have disturbed it."""
        milliseconds = math.inf
        for _ in range(LOOKS):
            found = measure(subnet, input_shape, device=self.device, precision=self.config.precision, config=rule.config)
            milliseconds = min(milliseconds, found)
            if rule.max_ms is None or milliseconds <= rule.max_ms:
                return replace(result, latency_ms=milliseconds)
        return replace(result, latency_ms=milliseconds, excluded="slow")
