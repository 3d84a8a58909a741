"""Subnets with the weights that they inherit: the same for scoring, champion, registry, validation and export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from raysearch.errors import UserError
from raysearch.space import Architecture
from raysearch.spaces import Family, Supernet
from raysearch.spaces.supernet import Calibration
from raysearch.store.folder import OutputFolder
from raysearch.tasks.images.cache import open_cache
from raysearch.tasks.task import Normalise, Task
from raysearch.training.supernets import read_supernet

A = TypeVar("A", bound=Architecture)

CALIBRATION_ITEMS = 1024
"""Training items from which running statistics are estimated; fewer where there are fewer. Slimmable networks take 1,000."""
CALIBRATION_BATCH = 128
"""Items of a batch of these."""


@dataclass(frozen=True, eq=False, slots=True)
class CalibrationBatches:
    """Normalised batches of cached inputs, made anew each time: a thousand pictures are 150 MB cached and 600 MB as floats."""

    inputs: np.ndarray
    """(items, ...), as cached; mapped memory that all processes of a node share."""
    normalise: Normalise
    device: torch.device

    def __iter__(self) -> Iterator[Tensor]:
        """Batches of :data:`CALIBRATION_BATCH`; a last one of a single item is left out, as it may have no variance."""
        for start in range(0, len(self.inputs), CALIBRATION_BATCH):
            batch = torch.tensor(self.inputs[start : start + CALIBRATION_BATCH])  # a copy: the cache is not writable
            if len(batch) > 1 or start == 0:
                yield self.normalise(batch.to(self.device))


class Subnets(Generic[A]):
    """A supernet and what its subnets are made ready with.

    Args:
        supernet: whose weights are inherited.
        calibration: training inputs, for a family with running statistics.

    """

    def __init__(self, supernet: Supernet[A], calibration: Calibration | None = None) -> None:
        self.supernet, self.calibration = supernet, calibration

    def extract(self, arch: A) -> nn.Module:
        """A subnet with weights of its own, calibrated where its family needs that; in evaluation mode."""
        return self.supernet.extract(arch, self.calibration).eval()


def open_subnets(
    weights: Path, family: Family[Any, A], *, task: Task, calibration: Path | None, device: torch.device | None = None
) -> Subnets[A]:
    """The subnets of a checkpoint.

    Args:
        weights: checkpoint of the supernet.
        family: of the supernet.
        task: how cached inputs become network inputs.
        calibration: cache of training items, for a family that calibrates; of no use to others.
        device: where statistics are estimated; the CPU when not given.

    Raises:
        UserError: a file is missing, damaged or another's; or the family calibrates and there is nothing to do so with.

    """
    supernet = read_supernet(weights, family).build()
    if not family.calibrates:
        return Subnets(supernet)
    if calibration is None:
        raise UserError(f"subnets of the family {family.name} need calibration inputs, and none are given beside {weights}")
    return Subnets(supernet, CalibrationBatches(open_cache(calibration).images, task.normalise, device or torch.device("cpu")))


def open_subnets_of(folder: OutputFolder, family: Family[Any, A], task: Task) -> Subnets[A]:
    """The subnets of a search's supernet, on the CPU. Raises UserError as :func:`open_subnets` does."""
    calibration = folder.calibration if folder.calibration.exists() else None
    return open_subnets(folder.supernet, family, task=task, calibration=calibration)


def calibration_items(items: Any, *, seed: int) -> Any:
    """The training items from which running statistics are estimated: drawn once for a search, in a fixed order."""
    count = min(CALIBRATION_ITEMS, len(items))
    return items.subset(sorted(Random(f"{seed}/calibration").sample(range(len(items)), count)))
