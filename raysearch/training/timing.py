"""How long a training step takes here, and how much memory: measured on a few steps before anything is begun."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from raysearch.nn.precision import autocast
from raysearch.spaces import Family
from raysearch.tasks.task import Task
from raysearch.training.config import TrainingConfig
from raysearch.training.supernets import build_supernet

PROBED = 16
"""Most items of a timed step on a CPU; time and memory of a whole step follow in proportion."""
FIRST = 2
"""Items of the first step, which measures memory: it must fit where the whole batch would not."""
STEP_S = 0.5
"""Seconds that a timed step on a CPU should take at most; it has fewer items where it would take longer."""
DRAWS = 3
"""Subnets timed; a step trains one drawn by chance, so the middle one counts."""
MOMENTS = 4
"""Copies of the weights in training: themselves, gradients and AdamW's two moments."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What one training process needs for one step, and an evaluator for one item."""

    step_s: float
    """Seconds of forward, backward and update for the batch of one process."""
    score_s: float
    """Seconds of scoring one item."""
    memory_bytes: int
    """Of one training process beside Python and its libraries: weights, moments and saved activations."""
    device: str
    """Where it was measured, as ``cpu``."""


def time_steps(
    family: Family[Any, Any],
    settings: Mapping[str, Any],
    space: Any,
    sample: tuple[Tensor, Tensor],
    *,
    task: Task,
    train: TrainingConfig,
    batch: int,
    device: torch.device,
) -> Timing:
    """Time training steps and scoring on a few items of the training split.

    Args:
        family: of the supernet.
        settings: its constructor arguments.
        space: where the timed subnets are drawn from.
        sample: normalised inputs (items, ...) and their targets, on the CPU; repeated where more are needed.
        task: gives the loss.
        train: precision and smoothing of the training.
        batch: items per step of one process.
        device: where to compute. On a GPU a whole batch, as a small one does not fill it.

    Raises:
        torch.OutOfMemoryError: a GPU does not hold the step.

    """
    inputs, targets = (part.to(device) for part in sample)
    with torch.random.fork_rng(devices=[]):  # layers draw weights as they are made
        supernet = build_supernet(family, settings, weight_init="trunc_normal", pos_embed_std=0.02, seed=0).to(device)
    optimizer = torch.optim.AdamW(supernet.parameters(), lr=0.0, fused=True)
    own = {parameter.untyped_storage().data_ptr() for parameter in supernet.parameters()}
    saved: dict[int, int] = {}

    def remember(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:  # weights do not grow with the batch
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    def step(arch: Any, rows: Tensor) -> float:
        x, y = inputs[rows], targets[rows]
        _finish(device)
        begun = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, train.precision):
            loss = task.loss(supernet(x, arch), y, label_smoothing=train.label_smoothing)
        loss.backward()
        optimizer.step()
        _finish(device)
        return time.perf_counter() - begun

    def rows(count: int) -> Tensor:
        return torch.arange(count, device=device) % len(inputs)

    supernet.train()
    first = rows(FIRST)
    with saved_tensors_hooks(remember, lambda tensor: tensor):
        step(space.largest(), first)  # the one that needs most memory
    memory = MOMENTS * sum(parameter.nbytes for parameter in supernet.parameters())
    memory += sum(saved.values()) * batch // FIRST
    if device.type == "cuda":
        timed = rows(batch)
        step(space.largest(), timed)
        memory = torch.cuda.max_memory_allocated(device)
    else:
        timed = rows(max(FIRST, min(PROBED, batch, int(FIRST * STEP_S / step(space.largest(), first)))))
    seconds = [step(space.sample(Random(f"timing/{draw}")), timed) for draw in range(DRAWS)]
    supernet.eval()
    with torch.inference_mode(), autocast(device, train.precision):
        arch = space.sample(Random("timing/score"))
        supernet(inputs[timed], arch)
        _finish(device)
        begun = time.perf_counter()
        supernet(inputs[timed], arch)
        _finish(device)
        score_s = (time.perf_counter() - begun) / len(timed)
    return Timing(
        step_s=sorted(seconds)[DRAWS // 2] * batch / len(timed) * train.archs_per_step,
        score_s=score_s,
        memory_bytes=memory,
        device="cpu" if device.type == "cpu" else torch.cuda.get_device_name(device),
    )


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
