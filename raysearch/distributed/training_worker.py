"""What a training process runs, from its place among the others to the last epoch."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.collective
import ray.train.torch
import torch
from ray.exceptions import RayError, RayTaskError

from raysearch.distributed.cluster import Actor, answer, brief, told
from raysearch.distributed.files import NodeFile, local_path
from raysearch.distributed.keeper import history_of, killed_for_memory, lacks_memory, out_of_memory, within_of
from raysearch.distributed.network_file import NetworkFile
from raysearch.distributed.streaming import training_batches
from raysearch.errors import UserError
from raysearch.space import Architecture
from raysearch.spaces import Family
from raysearch.store.summary import EpochRecord
from raysearch.tasks.task import Batches, Task
from raysearch.training import checkpoint
from raysearch.training.alone import for_one, network_to_train
from raysearch.training.config import TrainingConfig
from raysearch.training.draws import Draws, Only
from raysearch.training.shards import Shards
from raysearch.training.teacher import SoftLabels, TeacherFile, read_logits
from raysearch.training.trainer import LOOK_EVERY, SupernetTrainer, Within


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """All that a training process needs to know; a few bytes, sent to each."""

    family: Family[Any, Any]
    settings: dict[str, Any]
    """Constructor arguments of the supernet."""
    space: Draws[Any]
    """Where the architectures of a step are drawn from: the search space, or its part that keeps the budget; :class:`Only` one
    for a subnet that is trained alone."""
    train: TrainingConfig
    task: Task
    seed: int
    images: str
    """Digest of the splits, which every process must find."""
    start: NodeFile | None = None
    """Weights to begin with, under the names of the supernet or the subnet (:func:`write_weights`); None: fresh ones."""
    teacher: NodeFile | NetworkFile | None = None
    """What teaches, frozen, with the weight of ``train.distill``: the file of a network of timm's
    (:class:`~raysearch.training.teacher.TeacherFile`), or a network of the family; None: nothing."""
    soft_labels: NodeFile | None = None
    """Its logits of the training images, which then take its place."""
    continued: str = "--resume"
    """What continues the training after its end, as a user is told."""

    @property
    def arch(self) -> Architecture | None:
        """The subnet that is trained alone; None: the supernet is trained."""
        return self.space.arch if isinstance(self.space, Only) else None

    @property
    def names(self) -> str:
        """What stands before the network's own names of its weights in the trainer's state."""
        return "" if self.arch is None else "subnet."


class Losses(ray.train.UserCallback):
    """Tells the keeper of processes that were lost, and ends training where it would not start them again.

    Runs in Ray Train's controller, which after an exception raised here ends all processes and starts none.

    Args:
        keepers: of the trainings, in their order; the first that is not finished is told.
        most: how often processes may be lost in each.

    """

    def __init__(self, keepers: Sequence[Actor], most: int) -> None:
        self.keepers, self.most = keepers, most

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called when an attempt has failed, before the next. Raises NoFurther when there shall be none."""
        keeper = next((keeper for keeper in self.keepers if not answer(keeper.finished.remote())), self.keepers[-1])
        if not answer(keeper.lost.remote([brief(error) for error in worker_exceptions.values()], self.most)):
            raise NoFurther


class NoFurther(Exception):
    """Training was told to end."""


class TrainingBugError(RuntimeError):
    """A training process ended in an error of our code or of a family's; its traceback is in the message."""


def train_worker(config: dict[str, Any]) -> None:
    """What every training process runs.

    Whatever keeps it from training to the end is an exception, by which Ray Train ends the others too: they wait for this
    process in their next step. What would happen again is told to the keeper before, which then has none started again.
    """
    for job, keeper in zip(config["jobs"], config["keepers"], strict=True):
        _train_one(job, keeper, shards=config["shards"], threads=config["threads"])


def _train_one(job: TrainingJob, keeper: Actor, *, shards: int, threads: int) -> None:
    context = ray.train.get_context()
    node = ray.get_runtime_context().get_node_id()
    if not answer(keeper.begin.remote(context.get_world_rank(), node, killed_for_memory())):
        raise NoFurther
    try:
        _train(job, keeper, shards=shards, threads=threads)
    except RayTaskError as error:
        failure = told(error)
    except (RayError, NoFurther):
        raise
    except Exception as error:
        failure = lasting_failure(error)
        if failure is None:
            raise
    else:
        return
    ray.get(keeper.complain.remote(failure))
    raise NoFurther  # not the failure itself, which may be one that cannot travel to Ray Train's controller


def lasting_failure(error: Exception) -> Exception | None:
    """What to tell the driver of an error that would come again; None where another process was lost."""
    text = str(error)
    if isinstance(error, UserError):
        return error
    if lacks_memory(error):
        return out_of_memory("a training step found no room")
    if isinstance(error, torch.distributed.DistError | ConnectionError) or any(sign in text for sign in _OF_OTHERS):
        return None
    if isinstance(error, OSError):
        return error
    return TrainingBugError("".join(traceback.format_exception(error)))


_OF_OTHERS = (
    *("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "heartbeat"),
    *("DataLoader worker", "Timed out waiting"),
)
"""Signs, in an error of PyTorch's, that another process is gone: it has no types for all of these."""


def _train(job: TrainingJob, keeper: Actor, *, shards: int, threads: int) -> None:
    """Train from the last checkpoint to the end; one that begins deals its steps into ``shards``."""
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(threads)  # Ray's start commands export OMP_NUM_THREADS=1
    tensors, metadata = _latest(keeper, first=rank == 0)
    # What an earlier version began had as many shards as processes.
    of: int = metadata.get("shards", world_size) if metadata else shards
    splits = job.task.splits(expected_digest=job.images)
    batches = Shards.dealt(partial(_batches_of, job, splits.train, of, world_size), of=of, rank=rank, world_size=world_size)
    start = None if job.start is None else checkpoint.read(local_path(job.start))[0]
    network: Any = network_to_train(job.family, job.settings, job.arch, train=job.train, seed=job.seed, start=start).to(device)

    teacher = soft_labels = None
    if job.soft_labels is not None:
        soft_labels = SoftLabels(read_logits(local_path(job.soft_labels)), batches.mine)
    elif isinstance(job.teacher, NetworkFile):
        teacher = job.teacher.open().to(device).eval()
    elif job.teacher is not None:
        teacher = TeacherFile.read(local_path(job.teacher)).build(job.task.preprocessing(), device)

    def parallel(network: torch.nn.Module) -> torch.nn.Module:
        # A step of a supernet uses some blocks only: the others have no gradient to wait for.
        return ray.train.torch.prepare_model(network, parallel_strategy_kwargs={"find_unused_parameters": job.arch is None})

    trainer = SupernetTrainer(
        network,
        job.space,
        batches,
        job.train if job.arch is None else for_one(job.train),
        task=job.task,
        outputs=job.task.ends(splits).outputs,
        seed=job.seed,
        device=device,
        rank=rank,
        undecayed=job.family.undecayed,
        parallel=parallel if world_size > 1 else None,
        cost=None if job.arch is not None else network.cost,
        teacher=teacher,
        soft_labels=soft_labels,
    )
    history: list[EpochRecord] = []
    begun: Within | None = None
    if metadata:
        trainer.load_state(tensors)
        history = history_of(metadata)
        begun = within_of(metadata)
    del tensors
    steps = _Steps(keeper, per_epoch=batches.steps_per_epoch) if rank == 0 else None
    saves = _Saves(keeper, trainer, shards=of, minutes=job.train.save_minutes, first=rank == 0)
    for epoch in range(len(history), job.train.epochs):
        record = trainer.train_epoch(
            epoch,
            begun=begun,
            on_step=partial(steps.report, epoch) if steps else lambda _: None,
            wanted=saves.due,
            keep=partial(saves.save, history),
        )
        history.append(record)
        begun = None
        last = epoch + 1 == job.train.epochs
        # After skipped steps the weights may be those that all further steps fail with: then an earlier epoch is the last good.
        if last or (trainer.steady and (epoch + 1) % job.train.save_epochs == 0):
            saves.save(history)
    saves.wait()


def _latest(keeper: Actor, *, first: bool) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The checkpoint that training goes on from, the same in every process; empty where there is none.

    The first process asks for it, and all read what it was given: a save between two reads would divide them.
    """
    asked: list[Any] | None = [keeper.latest.remote()] if first else None
    asked = ray.train.collective.broadcast_from_rank_zero(asked)
    assert asked is not None
    content: bytes | None = answer(asked[0])
    ray.train.collective.barrier()  # the first process owns the content until all have it
    return ({}, {}) if content is None else checkpoint.unpack(content)


def _batches_of(job: TrainingJob, items: Any, of: int, world_size: int, shard: int) -> Batches:
    """The images of one of ``of`` shards, of which a process has its part, as of the processes that prepare them."""
    loaders = job.train.loader_workers
    return training_batches(
        job.task,
        items,
        epochs=job.train.epochs,
        batch_size=job.train.batch_size // of,
        rank=shard,
        world_size=of,
        seed=job.seed,
        workers=loaders and -(-loaders * world_size // of),
    )


ASK_EVERY = 5.0
"""Seconds between two questions whether nodes of the training will be taken away, for each of which processes wait."""
AFTER_NOTICE = 0.25
"""Minutes between two checkpoints once they will."""


class _Saves:
    """Checkpoints of a training, and when an unfinished epoch has one: after some minutes, and before a node is taken away.

    Args:
        keeper: who keeps them.
        trainer: of this process.
        shards: of a step.
        minutes: between two.
        first: whether this is the process whose clock decides.

    """

    def __init__(self, keeper: Actor, trainer: SupernetTrainer[Any], *, shards: int, minutes: float, first: bool) -> None:
        self.keeper, self.trainer, self.shards, self.minutes, self.first = keeper, trainer, shards, minutes, first
        self.last = self.asked = time.monotonic()
        self.noticed = False
        """Whether nodes will be taken away."""
        self.urgent = False
        """Whether the next checkpoint is the first since that was told."""
        self.saved: Any = None

    def due(self, step: int) -> bool:
        """Whether to save after so many steps of an epoch. Every process asks after every step, and all get the same answer."""
        if self.trainer.device.type != "cpu" and step % LOOK_EVERY:
            return False  # as often as the device is waited for anyhow
        now = time.monotonic()
        save, ask = self._agreed([now - self.last >= 60 * self.minutes, now - self.asked >= ASK_EVERY])
        if ask:
            self.asked = now
            if not self.noticed and ray.train.get_preemption_info() is not None:
                self.noticed = self.urgent = True
                self.minutes = min(self.minutes, AFTER_NOTICE)
                return True
        return save

    def _agreed(self, signs: list[bool]) -> list[bool]:
        """Those of the first process: clocks differ."""
        if not torch.distributed.is_initialized():
            return signs
        told = torch.tensor(signs, dtype=torch.uint8, device=self.trainer.device)
        torch.distributed.broadcast(told, src=0)
        return [bool(sign) for sign in told.tolist()]

    def save(self, history: Sequence[EpochRecord], within: Within | None = None) -> None:
        """Have the state kept, after the epochs in ``history`` and what is done ``within`` another."""
        state = self.trainer.state()
        self.last = time.monotonic()
        if not self.first:
            return
        metadata: dict[str, Any] = {"kind": "training", "shards": self.shards, "history": [asdict(r) for r in history]}
        if within is not None:
            metadata["within"] = asdict(within)
        # As an array, which Ray hands over without a copy.
        content = np.frombuffer(checkpoint.pack(state, metadata), dtype=np.uint8)
        self.wait()  # one is written while training goes on, never more
        done = 0 if within is None else within.step
        self.saved = self.keeper.save.remote(content, list(history), done, notice=self.urgent)
        if self.urgent:
            self.urgent = False
            self.wait()

    def wait(self) -> None:
        """Return when the last is on disk."""
        if self.saved is not None:
            answer(self.saved)


class _Steps:
    """Tells the keeper how many steps are done, twice a second at most, and whether to go on.

    Args:
        keeper: who is told.
        per_epoch: steps.

    """

    def __init__(self, keeper: Actor, *, per_epoch: int) -> None:
        self.keeper, self.per_epoch = keeper, per_epoch
        self.next = float("-inf")
        self.reply: Any = None

    def report(self, epoch: int, step: int) -> None:
        """Take note of the ``step``-th step of an epoch. Raises NoFurther when training was told to end."""
        if time.monotonic() < self.next and step < self.per_epoch:
            return
        self.next = time.monotonic() + 0.5
        if self.reply is not None and ray.wait([self.reply], timeout=0)[0] and not answer(self.reply):
            raise NoFurther
        self.reply = self.keeper.report.remote(epoch * self.per_epoch + step, self.per_epoch)
