"""What a cluster offers a search, and steps timed where training will run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import ray
import torch
from torch import Tensor

from raysearch.distributed.growth import share_of
from raysearch.distributed.room import awaited, check_room
from raysearch.spaces import Family
from raysearch.tasks.task import Task
from raysearch.training.config import TrainingConfig
from raysearch.training.draws import Draws
from raysearch.training.teacher import TeacherFile
from raysearch.training.timing import Timing, time_steps

log = logging.getLogger(__name__)


def training_processes(train: TrainingConfig) -> tuple[int, int]:
    """How many training processes there will be in the connected cluster, and the processor threads of each."""
    share = share_of("training", train.nodes)
    _, asked = train.worker_range or (None, None)
    if share.accelerated:
        return asked or share.wanted(share.asks(), given=None), 1
    cores = max(1, int(share.cpus))
    count = min(asked or 2, cores)
    return count, max(1, cores // count)


def timed_steps(
    family: Family[Any, Any],
    settings: Mapping[str, Any],
    draws: Draws[Any],
    sample: tuple[Tensor, Tensor],
    *,
    task: Task,
    train: TrainingConfig,
    teacher: TeacherFile | None = None,
    say: Callable[[str], None] = log.warning,
) -> Timing | None:
    """See :func:`~raysearch.training.timing.time_steps`: on a GPU of those kept for training, else in this process.

    None where the GPU has too little memory. ``say`` gets a line a minute while no GPU is free. Raises NoNodeError when no node
    came that has one.
    """
    processes, threads = training_processes(train)
    batch = max(1, train.batch_size // processes)
    share = share_of("training", train.nodes)
    if share.accelerated:
        need = share.need("timed training step", share.asks())
        check_room(need)
        remote = ray.remote(**need.options, max_retries=0)(on_gpu)
        timed = remote.remote(family, settings, draws, sample, task, train, batch, teacher)
        return awaited(timed, need, say)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _timed(family, settings, draws, sample, task, train, batch, teacher, torch.device("cpu"))
    finally:
        torch.set_num_threads(before)


def on_gpu(
    family: Family[Any, Any],
    settings: Mapping[str, Any],
    draws: Draws[Any],
    sample: tuple[Tensor, Tensor],
    task: Task,
    train: TrainingConfig,
    batch: int,
    teacher: TeacherFile | None,
) -> Timing | None:
    """The same on the GPU of this process."""
    try:
        return _timed(family, settings, draws, sample, task, train, batch, teacher, torch.device("cuda"))
    except torch.OutOfMemoryError:
        return None


def _timed(
    family: Family[Any, Any],
    settings: Mapping[str, Any],
    draws: Draws[Any],
    sample: tuple[Tensor, Tensor],
    task: Task,
    train: TrainingConfig,
    batch: int,
    teacher: TeacherFile | None,
    device: torch.device,
) -> Timing:
    teaches = None if teacher is None else teacher.build(task.preprocessing(), device)
    return time_steps(family, settings, draws, sample, task=task, train=train, batch=batch, device=device, teacher=teaches)
