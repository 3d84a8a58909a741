"""A step's images in equal parts that are the same whatever the number of processes that share them."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raysearch.tasks.task import Batches


class Shards:
    """The parts of every step that one process trains on.

    The images of a step are dealt into as many equal shards as training may have processes. Each shard has an order of its
    images, an augmentation and a stream of chance of its own, so the gradient of a step, which is the mean over the shards, is
    the same to rounding whether each process has one of them or one process has all.

    Args:
        mine: batches of the shards of this process, by their number.
        of: shards of all processes together.
        world_size: processes.

    """

    def __init__(self, mine: Mapping[int, Batches], *, of: int, world_size: int) -> None:
        self.mine, self.of, self.world_size = mine, of, world_size

    @classmethod
    def whole(cls, batches: Batches, *, shard: int = 0) -> Shards:
        """A process that has as much as every other one: one shard."""
        return cls({shard: batches}, of=1, world_size=1)

    @classmethod
    def dealt(cls, make: Callable[[int], Batches], *, of: int, rank: int, world_size: int) -> Shards:
        """Every ``world_size``-th shard from ``rank`` on; ``make`` gives the batches of a shard."""
        return cls({shard: make(shard) for shard in range(rank, of, world_size)}, of=of, world_size=world_size)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch."""
        return next(iter(self.mine.values())).steps_per_epoch

    @property
    def weight(self) -> float:
        """What the mean loss of a shard counts: processes average their gradients, of however many shards each has."""
        return self.world_size / self.of

    def epoch(self, epoch: int, start: int = 0) -> Iterator[dict[int, tuple[Tensor, Tensor]]]:
        """Inputs and targets of each step from the ``start``-th on, by shard."""
        for parts in zip(*(batches.epoch(epoch, start) for batches in self.mine.values()), strict=True):
            yield dict(zip(self.mine, parts, strict=True))


class Chance:
    """The global generators, which stochastic depth and Mixup draw from: one stream for each shard of this process.

    Args:
        seed: of the training.
        shards: their numbers.
        device: where the network computes.

    """

    def __init__(self, seed: int, shards: Mapping[int, Any], device: torch.device) -> None:
        self._seed, self._shards, self._device = seed, list(shards), device
        self._left: dict[int, Any] = {}

    def begin(self, step: int) -> None:
        """Set at the begin of each step of the training, so that it goes on from any as if it had never stopped."""
        for shard in reversed(self._shards):
            chance = Random(f"{self._seed}/augment/{step}/{shard}")
            torch.manual_seed(chance.getrandbits(63))
            np.random.seed(chance.getrandbits(32))  # noqa: NPY002  (the generator that timm's Mixup draws from)
            random.seed(chance.getrandbits(63))
            if len(self._shards) > 1:
                self._left[shard] = self._state()

    @contextmanager
    def of(self, shard: int) -> Generator[None]:
        """The generators as the shard has left them; a process with one shard has them to itself."""
        if len(self._shards) == 1:
            yield
            return
        python, numpy, cpu, device = self._left[shard]
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if device is not None:
            torch.cuda.set_rng_state(device, self._device)
        yield
        self._left[shard] = self._state()

    def _state(self) -> tuple[Any, ...]:
        device = torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None
        return random.getstate(), np.random.get_state(), torch.get_rng_state(), device  # noqa: NPY002
