"""Subnets trained from scratch, or from the weights that they inherit: one process of the cluster each."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Generic, Literal, TypeVar

import ray
import torch
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from raysearch.distributed.board import Board, Reporter
from raysearch.distributed.cluster import Actor, answer, beside_caller, brief
from raysearch.distributed.evaluators import EvaluatorConfig
from raysearch.distributed.files import NodeFile, local_path
from raysearch.distributed.growth import instead, share_of
from raysearch.distributed.keeper import lacks_memory, out_of_memory
from raysearch.distributed.room import Need, NoNodeError, Waiting, check_room
from raysearch.errors import UserError
from raysearch.nodes import NodesConfig
from raysearch.scoring.proxies import PROXIES
from raysearch.scoring.score import score
from raysearch.scoring.subnets import open_subnets
from raysearch.search.protocol import Failure, Result, outcome_from_dict, outcome_to_dict
from raysearch.space import Architecture, Cost
from raysearch.spaces import Family, build_subnet
from raysearch.tasks.images.cache import open_cache
from raysearch.tasks.images.device import DeviceImages, room_on
from raysearch.tasks.task import Task
from raysearch.training.alone import train_alone
from raysearch.training.config import TrainingConfig
from raysearch.training.trainer import TrainingDivergedError

log = logging.getLogger(__name__)

A = TypeVar("A", bound=Architecture)


Start = Literal["fresh", "inherited"]
"""Weights that a training begins with: the subnet's own, drawn anew, or the supernet's."""

PROXY_ITEMS = 64
"""Items of the one batch of zero-cost proxies."""

_MORE = (
    "free some on the cluster's machines, or give --ray-address of a cluster that has more: the same command continues with "
    "the subnets that are not done"
)
"""What helps a retraining that needs more memory than there is: its settings are those of the search."""


@dataclass(frozen=True, slots=True)
class RetrainingJob:
    """All that a process needs to train one subnet and to score it."""

    family: Family[Any, Any]
    settings: dict[str, Any]
    """Constructor arguments of the supernet."""
    train: TrainingConfig
    """From fresh weights: as the supernet's, with the epochs wanted."""
    finetune: TrainingConfig
    """From inherited weights."""
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
class Retraining(Generic[A]):
    """One training of one subnet."""

    arch: A
    cost: Cost
    start: Start = "fresh"
    repeat: int = 0
    """0 for the first: trainings of a subnet differ in their initial weights, in the order of the items and in augmentation."""

    @property
    def name(self) -> str:
        """Of its own among all trainings."""
        return f"{self.arch.id}/{self.start}/{self.repeat}"

    def seed(self, seed: int) -> int:
        """Its own draw from a seed of all."""
        purpose = "retrain" if self.start == "fresh" else "finetune"
        return Random(f"{seed}/{purpose}/{self.arch.id}{f'/{self.repeat}' if self.repeat else ''}").getrandbits(31)


@dataclass(frozen=True, slots=True)
class Retrained(Generic[A]):
    """What came of one training."""

    training: Retraining[A]
    outcome: Result | Failure
    """On the scored images."""
    loss: float | None
    """Training loss of the last epoch; None when training diverged."""
    seconds: float
    """Of training and scoring."""
    proxies: dict[str, float] = field(default_factory=dict[str, float])
    """Zero-cost proxies of the fresh weights, by name; of a first training from these alone."""


def _retrain(job: RetrainingJob, training: Retraining[Any], board: Actor) -> dict[str, Any]:
    """What a process of the cluster runs; the outcome as JSON values. Raises UserError when memory is too small."""
    try:
        return _train_and_score(job, training, board)
    except Exception as error:
        if lacks_memory(error):
            raise out_of_memory("the training of a subnet found no room", _MORE) from error
        raise


def _train_and_score(job: RetrainingJob, training: Retraining[Any], board: Actor) -> dict[str, Any]:
    """One subnet, from the weights that its training begins with to the score after it."""
    started = time.perf_counter()
    board.report.remote(training.name, 0, 1)
    device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)  # the processor that it asked for
    cached = open_cache(local_path(job.images))
    images = DeviceImages(cached, device, room_bytes=room_on(device))
    seed, inherits = training.seed(job.seed), training.start == "inherited"
    start = proxies = None
    if inherits:
        subnets = open_subnets(
            local_path(job.supernet),
            job.family,
            task=job.task,
            calibration=None if job.calibration is None else local_path(job.calibration),
            device=device,
        )
        start = subnets.extract(training.arch).state_dict()
    elif training.repeat == 0:
        proxies = _proxies(job, training.arch, images, seed=seed)
    losses: list[float] = []
    try:
        subnet = train_alone(
            job.family,
            job.settings,
            training.arch,
            job.task.splits(expected_digest=job.splits),
            train=job.finetune if inherits else job.train,
            task=job.task,
            seed=seed,
            device=device,
            start=start,
            on_epoch=lambda record: losses.append(record.loss),
            on_step=Reporter(board, training.name),
        )
    except TrainingDivergedError:
        outcome: Result | Failure = Failure("its training diverged")
    else:
        outcome = score(
            subnet,
            images,
            task=job.task,
            cost=training.cost,
            normalise=job.task.normalise,
            batch_size=job.evaluators.batch_size,
            precision=job.evaluators.precision,
        )
    return {
        "outcome": outcome_to_dict(outcome),
        "loss": losses[-1] if isinstance(outcome, Result) else None,
        "seconds": time.perf_counter() - started,
        "proxies": proxies or {},
    }


def _proxies(job: RetrainingJob, arch: Architecture, images: DeviceImages, *, seed: int) -> dict[str, float]:
    """Zero-cost proxies of the weights that a training from scratch begins with, on the first images; finite ones alone."""
    subnet = build_subnet(job.family, job.settings, arch.to_dict())
    generator = torch.Generator().manual_seed(seed)
    subnet.reset_parameters(weight_init=job.train.weight_init, pos_embed_std=job.train.pos_embed_std, generator=generator)
    subnet.to(images.device).eval()
    pixels, targets = images.batch(slice(0, PROXY_ITEMS))
    inputs = job.task.normalise(pixels)
    values = {name: proxy(subnet, inputs, targets, job.task.loss) for name, proxy in PROXIES.items()}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def retrain(
    job: RetrainingJob,
    trainings: Sequence[Retraining[A]],
    *,
    on_steps: Callable[[float], None] = lambda share: None,
    say: Callable[[str], None] = log.warning,
) -> Iterator[Retrained[A]]:
    """Do all of ``trainings``, as many at once as the cluster holds; yields each as it is done, in no order.

    A process takes one GPU of those kept for training, or one CPU where there are none; one that is lost starts its training
    again. Nodes are started for as many as ``job.train`` says, not for all trainings.

    ``on_steps`` is called about once a second with how many trainings those in progress are worth together, as 1.5 for one that
    is done by half and one that is nearly done; ``say`` with a line for processes that are lost or find no room.

    Raises UserError in one line when an image cannot be read, the splits are not those of the job, memory is too small, no node
    can hold such a process, or one was lost too often; OSError when there is no room to write to.
    """
    nodes = job.train.nodes
    _, need = _at_once(nodes)
    check_room(need)
    shared, board = ray.put(job), beside_caller(Board, max_restarts=-1, max_task_retries=-1)
    queue, running = deque(trainings), dict[Any, Retraining[A]]()
    lost = dict.fromkeys((training.name for training in trainings), 0)
    waiting = Waiting(need, say)
    try:
        while queue or running:
            count, need = _at_once(nodes)
            if need != waiting.need:
                waiting = Waiting(need, say)
            # Ray itself would start one that is short of memory again for ever, without a word.
            task = ray.remote(max_retries=0, **need.options)(_retrain)
            while queue and len(running) < count:
                training = queue.popleft()
                running[task.remote(shared, training, board)] = training
            done, _ = ray.wait([*running], num_returns=1, timeout=1)
            steps: dict[str, tuple[int, int]] = answer(board.read.remote())
            left = {training.name for training in running.values()}
            on_steps(sum(of / total for name, (of, total) in steps.items() if name in left))
            try:
                waiting.look(len(left - steps.keys()) if not left & steps.keys() else 0, of=len(left))
            except NoNodeError as error:
                nodes = instead(nodes, error, say)
                for reference in running:
                    ray.cancel(reference, force=True)
                queue.extendleft(reversed(running.values()))
                running.clear()
                continue
            for reference in done:
                training = running.pop(reference)
                try:
                    values: dict[str, Any] = answer(reference)
                except RayTaskError:  # a bug
                    raise
                except RayError as error:
                    lost[training.name] += 1
                    _check_loss(error, lost[training.name], most=job.train.max_failures)
                    say(f"a training process was lost; its subnet is trained again: {brief(error)}")
                    queue.append(training)
                    continue
                outcome = outcome_from_dict(values["outcome"])
                yield Retrained(training, outcome, values["loss"], values["seconds"], values["proxies"])
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        ray.kill(board)


def _at_once(nodes: NodesConfig) -> tuple[int, Need]:
    """How many processes there shall be at a time, and what each asks for."""
    share = share_of("training", nodes)
    resources = share.asks()
    return share.wanted(resources, given=None), share.need("training process", resources)


def _check_loss(error: RayError, count: int, *, most: int) -> None:
    """Raises UserError when losing a process once more makes no sense to try again."""
    if isinstance(error, OutOfMemoryError):
        raise out_of_memory("Ray ended a training process", _MORE) from error
    if count > most:
        raise UserError(
            f"the training of one subnet was lost {count} times (train.max-failures is {most}), now: {brief(error)}; "
            "the same command continues with those that are not done"
        ) from error
