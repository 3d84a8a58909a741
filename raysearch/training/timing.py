"""How long a training step takes here, and how much memory: measured on a few steps before anything is begun."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from raysearch.nn.precision import autocast
from raysearch.spaces import Family
from raysearch.tasks.task import Task
from raysearch.training.alone import for_one
from raysearch.training.config import DistillConfig, TrainingConfig
from raysearch.training.draws import Draws, Only
from raysearch.training.strategy import Strategy
from raysearch.training.supernets import build_supernet
from raysearch.training.trainer import SupernetTrainer

PROBED = 16
"""Most items of a timed step on a CPU; time and memory of a whole step follow in proportion."""
FIRST = 2
"""Items of the first step, which measures memory: it must fit where the whole batch would not."""
STEP_S = 0.5
"""Seconds that a timed step on a CPU should take at most; it has fewer items where it would take longer."""
DRAWS = 3
"""Steps timed of each part of the schedule; what a step trains is drawn by chance, so the middle one counts."""
MOMENTS = 4
"""Copies of the weights in training: themselves, gradients and AdamW's two moments."""
STEPS = 1000
"""Steps of the training that a timed step is one of: its place in the schedule."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What one training process needs for one step, and an evaluator for one item."""

    step_s: float
    """Seconds of a step with the batch of one process, the mean over the training: all forward and backward passes, and the
    update."""
    score_s: float
    """Seconds of scoring one item."""
    memory_bytes: int
    """Of one training process beside Python and its libraries: weights, moments and saved activations."""
    device: str
    """Where it was measured, as ``cpu``."""
    fixed_bytes: int = 0
    """The part of ``memory_bytes`` that does not grow with the items of a forward pass."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Stands for the batches of a training of :data:`STEPS` steps."""

    steps_per_epoch: int = STEPS

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        raise NotImplementedError


def items_at_once(train: TrainingConfig, batch: int) -> int:
    """Most items of one process that a forward pass sees: a micro-batch, an architecture's part of the batch, or all."""
    parts = train.archs_per_step if train.strategy == "multi" and not train.largest_first else 1
    return min(train.micro_batch or batch, math.ceil(batch / parts))


def time_steps(
    family: Family[Any, Any],
    settings: Mapping[str, Any],
    draws: Draws[Any],
    sample: tuple[Tensor, Tensor],
    *,
    task: Task,
    train: TrainingConfig,
    batch: int,
    device: torch.device,
    teacher: Callable[[Tensor], Tensor] | None = None,
) -> Timing:
    """Time training steps and scoring on a few items of the training split.

    Args:
        family: of the supernet.
        settings: its constructor arguments.
        draws: where the timed subnets are drawn from.
        sample: normalised inputs (items, ...) and their targets, on the CPU; repeated where more are needed.
        task: gives the loss.
        train: the recipe's numbers: what a step trains decides how long it takes.
        batch: items per step of one process.
        device: where to compute. On a GPU a whole batch, as a small one does not fill it.
        teacher: as :class:`~raysearch.training.trainer.SupernetTrainer` takes it, on ``device``.

    Raises:
        torch.OutOfMemoryError: a GPU does not hold the step.

    """
    inputs, targets = (part.to(device) for part in sample)
    with torch.random.fork_rng(devices=[]):  # layers draw weights as they are made
        supernet = build_supernet(family, settings, weight_init="trunc_normal", pos_embed_std=0.02, seed=0).to(device)
    at_once = items_at_once(train, batch)
    trainer = SupernetTrainer(
        supernet,
        draws,
        _Place(),
        replace(
            train,
            epochs=1,
            warmup_epochs=0,
            mixup=0.0,
            cutmix=0.0,
            micro_batch=train.micro_batch and max(FIRST, train.micro_batch),
            # A teacher whose logits are known is not asked.
            distill=train.distill if teacher or train.distill.source == "largest" else DistillConfig(),
        ),
        task=task,
        outputs=1,
        seed=0,
        device=device,
        cost=supernet.cost,
        teacher=teacher,
    )
    everything = trainer.strategy
    own = {parameter.untyped_storage().data_ptr() for parameter in supernet.parameters()}
    saved: dict[int, int] = {}

    def remember(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:  # weights do not grow with the batch
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    def step(rows: Tensor, place: float = 0.0) -> float:
        x, y = inputs[rows], targets[rows]
        _finish(device)
        begun = time.perf_counter()
        trainer.step(x, y, step=int(place * STEPS), lr=0.0)
        _finish(device)
        return time.perf_counter() - begun

    def rows(count: int) -> Tensor:
        return torch.arange(count, device=device) % len(inputs)

    supernet.train()
    # The largest alone needs the most memory, and is what the number of timed items is found by.
    trainer.strategy = Strategy(Only(draws.largest()), for_one(train), seed=0, rank=0, cost=None)
    first = rows(FIRST)
    with saved_tensors_hooks(remember, lambda tensor: tensor):
        step(first)
    weights = sum(parameter.nbytes for parameter in supernet.parameters())
    fixed = weights * (MOMENTS + (train.ema is not None))
    if isinstance(teacher, nn.Module):
        fixed += sum(parameter.nbytes for parameter in teacher.parameters())
    memory = fixed + sum(saved.values()) * at_once // FIRST
    if device.type == "cuda":
        timed = rows(batch)
        step(rows(at_once))
        memory = torch.cuda.max_memory_allocated(device)
    else:
        timed = rows(max(FIRST, min(PROBED, batch, int(FIRST * STEP_S / step(first)))))
    trainer.strategy = everything
    seconds = sum(
        share * sorted(step(timed, place) for place in places)[len(places) // 2] for share, places in _schedule(train)
    )
    supernet.eval()
    with torch.inference_mode(), autocast(device, train.precision):
        arch = draws.sample(Random("timing/score"))
        supernet(inputs[timed], arch)
        _finish(device)
        begun = time.perf_counter()
        supernet(inputs[timed], arch)
        _finish(device)
        score_s = (time.perf_counter() - begun) / len(timed)
    return Timing(
        step_s=seconds * batch / len(timed),
        score_s=score_s,
        memory_bytes=memory,
        device="cpu" if device.type == "cpu" else torch.cuda.get_device_name(device),
        fixed_bytes=fixed,
    )


def _schedule(train: TrainingConfig) -> Iterator[tuple[float, list[float]]]:
    """The parts of the training in which steps cost alike: the share of each in all, and places in it, from 0 to 1."""
    begin = 0.0
    for share, count in ((train.largest_first, 1), (train.widen, DRAWS), (1 - train.largest_first - train.widen, DRAWS)):
        if share > 0:
            yield share, [begin + share * (2 * i + 1) / (2 * count) for i in range(count)]
        begin += share


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
