"""Subnets trained from scratch, one process of the cluster each, beside the score that they inherit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, TypeVar

import ray
import torch
from ray.exceptions import RayTaskError

from raysearch.distributed.cluster import share_of
from raysearch.distributed.evaluators import EvaluatorConfig
from raysearch.distributed.files import NodeFile, local_path
from raysearch.errors import UserError
from raysearch.scoring.score import score
from raysearch.scoring.subnets import open_subnets
from raysearch.search.protocol import Failure, Result, outcome_from_dict, outcome_to_dict
from raysearch.space import Architecture
from raysearch.spaces import Family
from raysearch.tasks.images.cache import open_cache
from raysearch.tasks.images.device import DeviceImages, room_on
from raysearch.tasks.task import Task
from raysearch.training.alone import train_alone
from raysearch.training.config import TrainingConfig
from raysearch.training.trainer import TrainingDivergedError

A = TypeVar("A", bound=Architecture)


@dataclass(frozen=True, slots=True)
class RetrainingJob:
    """All that a process needs to train one subnet and to score it twice."""

    family: Family[Any, Any]
    settings: dict[str, Any]
    """Constructor arguments of the supernet."""
    train: TrainingConfig
    """As the supernet's, with the epochs wanted."""
    task: Task
    evaluators: EvaluatorConfig
    """Batch size and precision of scoring."""
    splits: str
    """Digest of the splits, which every process must find."""
    seed: int
    """Of the trainings; each subnet has its own draw from it."""
    supernet: NodeFile
    """Weights to inherit."""
    images: NodeFile
    """Cache of the images that are scored."""
    calibration: NodeFile | None = None
    """Cache of the images from which running statistics are estimated, for families that have them."""


@dataclass(frozen=True, slots=True)
class Retrained(Generic[A]):
    """One subnet with both of its outcomes on the same images."""

    arch: A
    inherited: Result | Failure
    retrained: Result | Failure
    loss: float | None
    """Training loss of the last epoch; None when training diverged."""
    seconds: float
    """Of training and scoring."""


def _retrain(job: RetrainingJob, arch: Architecture) -> dict[str, Any]:
    """What a process of the cluster runs; outcomes as JSON values."""
    started = time.perf_counter()
    device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)  # the processor that it asked for
    cached = open_cache(local_path(job.images))
    images = DeviceImages(cached, device, room_bytes=room_on(device))
    subnets = open_subnets(
        local_path(job.supernet),
        job.family,
        task=job.task,
        calibration=None if job.calibration is None else local_path(job.calibration),
        device=device,
    )

    def scored(subnet: torch.nn.Module) -> Result | Failure:
        return score(
            subnet,
            images,
            task=job.task,
            cost=subnets.supernet.cost(arch),
            normalise=job.task.normalise,
            batch_size=job.evaluators.batch_size,
            precision=job.evaluators.precision,
        )

    inherited = scored(subnets.extract(arch))
    losses: list[float] = []
    try:
        subnet = train_alone(
            job.family,
            job.settings,
            arch,
            job.task.splits(expected_digest=job.splits),
            train=job.train,
            task=job.task,
            seed=Random(f"{job.seed}/retrain/{arch.id}").getrandbits(31),
            device=device,
            on_epoch=lambda record: losses.append(record.loss),
        )
        retrained = scored(subnet)
    except TrainingDivergedError:
        retrained = Failure("training from scratch diverged")
    return {
        "inherited": outcome_to_dict(inherited),
        "retrained": outcome_to_dict(retrained),
        "loss": losses[-1] if isinstance(retrained, Result) else None,
        "seconds": time.perf_counter() - started,
    }


def retrain(job: RetrainingJob, archs: Sequence[A]) -> Iterator[Retrained[A]]:
    """Train each of ``archs`` from scratch, as many at once as the cluster holds; yields each as it is done, in no order.

    A process takes one GPU of those kept for training, or one CPU where there are none; one that is lost starts its subnet
    again. Raises UserError in one line when an image cannot be read or the splits are not those of the job.
    """
    room = share_of("training")
    options: dict[str, Any] = {"num_gpus": 1, "resources": room.per_gpu} if room.gpus >= 1 else {"num_cpus": 1}
    task = ray.remote(max_retries=job.train.max_failures, **options)(_retrain)
    shared = ray.put(job)
    waiting = {task.remote(shared, arch): arch for arch in archs}
    while waiting:
        (done,), _ = ray.wait([*waiting], num_returns=1)
        try:
            values: dict[str, Any] = ray.get(done)
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise UserError(str(error.cause)) from None
            raise
        yield Retrained(
            waiting.pop(done),
            outcome_from_dict(values["inherited"]),
            outcome_from_dict(values["retrained"]),
            values["loss"],
            values["seconds"],
        )
