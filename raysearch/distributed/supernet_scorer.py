"""What an evaluator runs: subnets of one supernet, scored and, where that is asked for, measured."""

from __future__ import annotations

import math
from dataclasses import replace

import ray
import torch

from raysearch.distributed.device_lock import DeviceLock
from raysearch.distributed.evaluators import EvaluatorConfig
from raysearch.distributed.files import NodeFile, local_path, node_folder
from raysearch.scoring.latency import LatencyRule, device_name, measure
from raysearch.scoring.score import compile_blocks, score
from raysearch.search.protocol import Failure, Result
from raysearch.search.racing import Race
from raysearch.space import Architecture
from raysearch.tasks.images.cache import open_cache
from raysearch.tasks.images.device import DeviceImages, room_on
from raysearch.tasks.images.transforms import Normalisation
from raysearch.tasks.task import Task
from raysearch.training.supernets import read_supernet

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
        task: what counts as correct.
        normalise: pixels to network input.
        config: batch size and precision.
        latency: how candidates are measured once they are scored; None: they are not. Raises ValueError when this process
            computes on another device than the one whose latency table the search uses.

    """

    def __init__(
        self,
        weights: NodeFile,
        *,
        task: Task,
        normalise: Normalisation,
        config: EvaluatorConfig,
        latency: LatencyRule | None = None,
    ) -> None:
        self.task, self.normalise, self.config, self.latency = task, normalise, config, latency
        self.device, self.lock = evaluator_device(config)
        if latency is not None and (here := device_name(self.device)) != latency.device:
            raise ValueError(
                f"this evaluator computes on {here}, but the search predicts the latency of {latency.device}: "
                "keep evaluators on one kind of device, or start a new search"
            )
        self.supernet = read_supernet(local_path(weights)).build()
        self.opened: dict[str, DeviceImages] = {}

    def score(self, arch: Architecture, images: NodeFile, race: Race | None = None) -> Result | Failure:
        """Extract the subnet, then one pass over the images, or as much of it as the race takes.

        Then, where that is asked for, its latency is measured, alone on the device; not that of one that is out of its race.
        """
        with self.lock.shared():
            if images.digest not in self.opened:
                cached = open_cache(local_path(images))
                self.opened[images.digest] = DeviceImages(cached, self.device, room_bytes=room_on(self.device))
            opened = self.opened[images.digest]
            subnet = self.supernet.extract(arch)
            if self.config.compile:
                compile_blocks(subnet)
            outcome = score(
                subnet,
                opened,
                task=self.task,
                cost=self.supernet.cost(arch),
                normalise=self.normalise,
                batch_size=self.config.batch_size,
                precision=self.config.precision,
                race=race,
            )
        if self.latency is None or isinstance(outcome, Failure) or not outcome.competes:
            return outcome
        with self.lock.alone():
            return self._measured(outcome, subnet, opened.cached.info.shape[1:], self.latency)

    def _measured(
        self, result: Result, subnet: torch.nn.Module, image_shape: tuple[int, int, int], rule: LatencyRule
    ) -> Result:
        """``result`` with the subnet's latency; one above the limit is measured again, as something may have disturbed it."""
        milliseconds = math.inf
        for _ in range(LOOKS):
            found = measure(subnet, image_shape, device=self.device, precision=self.config.precision, config=rule.config)
            milliseconds = min(milliseconds, found)
            if rule.max_ms is None or milliseconds <= rule.max_ms:
                return replace(result, latency_ms=milliseconds)
        return replace(result, latency_ms=milliseconds, excluded="slow")
