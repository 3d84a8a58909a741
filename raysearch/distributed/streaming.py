"""Training items that free CPUs of all nodes prepare: the task's own batches, in their order, to the last bit.

By plain tasks of Ray, some batches ahead. Ray Data would do the same by an execution for each training process and shard. They
divide the cluster's CPUs among them in advance: on few CPUs some got none while others ran ahead ("the job may hang forever",
2.60), and training processes wait for each other. Its executions that are shared by processes (``streaming_split``) give each
whatever comes first, so that no training would repeat another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import ray
import torch
from torch import Tensor

from raysearch.distributed.cluster import answer
from raysearch.distributed.room import Need, starts_nodes
from raysearch.errors import UserError
from raysearch.tasks.task import Batches, ItemStream, Task

CHUNK = 32
"""Items that one task prepares: a share of a second, so that a batch comes from several CPUs at once."""
AHEAD = 3
"""Batches that are asked for before they are trained on."""


def training_batches(
    task: Task, items: Any, *, epochs: int, batch_size: int, seed: int, rank: int, world_size: int, workers: int | None
) -> Batches:
    """The batches of one part of every step, from its own node or, where the task streams, from all of them."""
    stream = task.stream(items, batch_size=batch_size, seed=seed, rank=rank, world_size=world_size) if task.streams else None
    if stream is not None:
        return StreamedBatches(stream, epochs=epochs)
    return task.batches(items, batch_size=batch_size, seed=seed, rank=rank, world_size=world_size, workers=workers)


def check_free_cpus(task: Task, need: Need, count: int) -> None:
    """Raises UserError where the task streams and ``count`` training processes leave no CPU that could prepare anything."""
    if not task.streams or (starts_nodes() if need.comes is None else need.comes):
        return
    cpus, held = ray.cluster_resources().get("CPU", 0), count * need.resources.get("CPU", 0)
    if cpus - held < 1:
        raise UserError(
            f"dataset.stream needs a CPU beside the training processes, of which {count} hold {held:g} of {cpus:g}: give fewer "
            "train.workers, or leave it out"
        )


class StreamedBatches:
    """Batches whose items are prepared by tasks wherever the cluster has a free CPU.

    Args:
        stream: the items; it is sent to the nodes once.
        epochs: how many there will be: nothing is prepared beyond them.

    """

    def __init__(self, stream: ItemStream, *, epochs: int) -> None:
        self._stream, self._epochs = stream, epochs
        self._sent = ray.put(stream)
        self._prepare: Any = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(_prepare)
        self._coming: deque[tuple[tuple[int, int], list[Any]]] = deque()
        """Epoch, step and tasks of the batches that were asked for."""
        self._keys: tuple[int, np.ndarray] | None = None
        """Of the epoch that was asked for last."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch."""
        return self._stream.steps_per_epoch

    @property
    def batch_size(self) -> int:
        """Items of one step."""
        return self._stream.batch_size

    def order(self, epoch: int) -> Tensor:
        """Which items make up each step: indices into the training split (steps, batch)."""
        return self._stream.order(epoch)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The steps of one epoch (0-based) from the ``start``-th on. Raises UserError that names an unreadable item."""
        wanted = self._from(epoch, start)
        for step in range(start, self.steps_per_epoch):
            while len(self._coming) <= AHEAD and (place := next(wanted, None)) is not None:
                self._ask(*place)
            place, asked = self._coming.popleft()
            assert place == (epoch, step)
            parts = [answer(part) for part in asked]
            # Copied: Ray's memory is not ours to write to.
            inputs, targets = (torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*parts, strict=True))
            yield (inputs.pin_memory(), targets.pin_memory()) if torch.cuda.is_available() else (inputs, targets)

    def _from(self, epoch: int, start: int) -> Iterator[tuple[int, int]]:
        """The batches that are to be asked for, next: what is coming already stays, where it is what comes next."""
        places = ((e, s) for e in range(epoch, max(self._epochs, epoch + 1)) for s in range(self.steps_per_epoch))
        for _ in range(start):
            next(places)
        if self._coming and self._coming[0][0] == (epoch, start):
            for _ in self._coming:
                next(places)
        else:
            self._coming.clear()
        return places

    def _ask(self, epoch: int, step: int) -> None:
        if self._keys is None or self._keys[0] != epoch:
            self._keys = epoch, self._stream.keys(epoch)
        keys = self._keys[1][step]
        chunks = [keys[i : i + CHUNK] for i in range(0, len(keys), CHUNK)]
        self._coming.append(((epoch, step), [self._prepare.remote([self._sent], chunk) for chunk in chunks]))


def _prepare(sent: list[Any], keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of a few items."""
    return _here(sent[0]).prepare(keys)


@lru_cache(maxsize=2)
def _here(sent: Any) -> ItemStream:
    """The items in this process, which prepares many parts of one training."""
    return ray.get(sent)
