"""Subnets trained from scratch, one process of the cluster each, beside the score that they inherit."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, TypeVar

import ray
import torch
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from raysearch.distributed.board import Board, Reporter
from raysearch.distributed.cluster import Actor, answer, beside_caller, brief, share_of
from raysearch.distributed.evaluators import EvaluatorConfig
from raysearch.distributed.files import NodeFile, local_path
from raysearch.distributed.room import Need, Waiting, check_room
from raysearch.distributed.training import lacks_memory, out_of_memory
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

log = logging.getLogger(__name__)

A = TypeVar("A", bound=Architecture)


_MORE = (
    "free some on the cluster's machines, or give --ray-address of a cluster that has more: the same command continues with "
    "the subnets that are not done"
)
"""What helps a retraining that needs more memory than there is: its settings are those of the search."""


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


def _retrain(job: RetrainingJob, arch: Architecture, board: Actor) -> dict[str, Any]:
    """What a process of the cluster runs; outcomes as JSON values. Raises UserError when memory is too small."""
    try:
        return _train_and_score(job, arch, board)
    except Exception as error:
        if lacks_memory(error):
            raise out_of_memory("the training of a subnet found no room", _MORE) from error
        raise


def _train_and_score(job: RetrainingJob, arch: Architecture, board: Actor) -> dict[str, Any]:
    """One subnet, with the weights that it inherits and with its own."""
    started = time.perf_counter()
    board.report.remote(arch.id, 0, 1)
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
            on_step=Reporter(board, arch.id),
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


def retrain(
    job: RetrainingJob,
    archs: Sequence[A],
    *,
    on_steps: Callable[[float], None] = lambda share: None,
    say: Callable[[str], None] = log.warning,
) -> Iterator[Retrained[A]]:
    """Train each of ``archs`` from scratch, as many at once as the cluster holds; yields each as it is done, in no order.

    A process takes one GPU of those kept for training, or one CPU where there are none; one that is lost starts its subnet
    again. ``on_steps`` is called about once a second with how many subnets the trainings in progress are worth together, as 1.5
    for one that is done by half and one that is nearly done; ``say`` with a line for processes that are lost or find no room.

    Raises UserError in one line when an image cannot be read, the splits are not those of the job, memory is too small, no node
    can hold such a process, or one was lost too often; OSError when there is no room to write to.
    """
    room = share_of("training")
    resources = {"GPU": 1.0, **room.per_gpu} if room.gpus >= 1 else {"CPU": 1.0}
    need = Need("training process", resources, "")
    check_room(need)
    # Ray itself would start one that is short of memory again for ever, without a word.
    task = ray.remote(max_retries=0, **need.options)(_retrain)
    shared, board = ray.put(job), beside_caller(Board, max_restarts=-1, max_task_retries=-1)
    running = {task.remote(shared, arch, board): arch for arch in archs}
    lost = dict.fromkeys((arch.id for arch in archs), 0)
    waiting = Waiting(need, say)
    try:
        while running:
            done, _ = ray.wait([*running], num_returns=1, timeout=1)
            steps: dict[str, tuple[int, int]] = answer(board.read.remote())
            left = {arch.id for arch in running.values()}
            on_steps(sum(of / total for name, (of, total) in steps.items() if name in left))
            waiting.look(len(left - steps.keys()) if not left & steps.keys() else 0, of=len(left))
            for reference in done:
                arch = running.pop(reference)
                try:
                    values: dict[str, Any] = answer(reference)
                except RayTaskError:  # a bug
                    raise
                except RayError as error:
                    lost[arch.id] += 1
                    _check_loss(error, lost[arch.id], most=job.train.max_failures)
                    say(f"a training process was lost; its subnet is trained again: {brief(error)}")
                    running[task.remote(shared, arch, board)] = arch
                    continue
                yield Retrained(
                    arch,
                    outcome_from_dict(values["inherited"]),
                    outcome_from_dict(values["retrained"]),
                    values["loss"],
                    values["seconds"],
                )
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        ray.kill(board)


def _check_loss(error: RayError, count: int, *, most: int) -> None:
    """Raises UserError when losing a process once more makes no sense to try again."""
    if isinstance(error, OutOfMemoryError):
        raise out_of_memory("Ray ended a training process", _MORE) from error
    if count > most:
        raise UserError(
            f"the training of one subnet was lost {count} times (train.max-failures is {most}), now: {brief(error)}; "
            "the same command continues with those that are not done"
        ) from error
