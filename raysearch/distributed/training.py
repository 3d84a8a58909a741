"""Supernet training by Ray Train: one process for each GPU, or two on CPUs; finished epochs are never trained again."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import ray
import ray.train
import ray.train.collective
import ray.train.torch
import torch
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError
from ray.train.v2.api.exceptions import WorkerGroupError

from raysearch.distributed.cluster import LOST, Actor, answer, beside_caller, brief, share_of, told
from raysearch.distributed.files import NodeFile, local_path
from raysearch.distributed.restarts import RESTARTS, Restarts
from raysearch.distributed.room import Need, Waiting, check_room, grows
from raysearch.errors import UserError
from raysearch.spaces import Family
from raysearch.store.summary import EpochRecord
from raysearch.tasks.task import Task
from raysearch.training import checkpoint
from raysearch.training.config import TrainingConfig
from raysearch.training.draws import Draws
from raysearch.training.supernets import build_supernet
from raysearch.training.teacher import SoftLabels, TeacherFile, read_logits
from raysearch.training.trainer import SupernetTrainer, TrainingDivergedError, trained

log = logging.getLogger(__name__)

STOPPING = 10.0
"""Seconds that training processes get to end, when the driver ends before them."""


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """All that a training process needs to know; a few bytes, sent to each."""

    family: Family[Any, Any]
    settings: dict[str, Any]
    """Constructor arguments of the supernet."""
    space: Draws[Any]
    """Where architectures are drawn from: the search space, or its part that keeps the budget."""
    train: TrainingConfig
    task: Task
    seed: int
    images: str
    """Digest of the splits, which every process must find."""
    teacher: NodeFile | None = None
    """A frozen network that teaches (:class:`~raysearch.training.teacher.TeacherFile`)."""
    soft_labels: NodeFile | None = None
    """Its logits of the training images, which then take its place."""


@dataclass(frozen=True, slots=True)
class TrainingState:
    """How far a training is, as its driver asks."""

    records: list[EpochRecord]
    """Of the epochs that are new to who asks."""
    step: int
    """Steps done, of all epochs."""
    steps_per_epoch: int | None
    """None before the first step."""
    processes: int
    """How many of the training processes have begun, in the present attempt."""
    said: list[str]
    """Lines for the user that are new to who asks."""


class CheckpointKeeper:
    """Writes each finished epoch to the output folder, on the driver's node: training nodes need no shared storage.

    It is also where training processes and driver meet: steps done, why training cannot go on, what was lost.

    Args:
        path: the training checkpoint; one that is already there is where training continues.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failure: Exception | None = None
        """What ended training for good: an image, a setting, a full disk, a bug. Starting processes again would not help."""
        self.records = _history(checkpoint.read(path)[1]) if path.exists() else []
        self.step: tuple[int, int] | None = None
        """Steps done, and steps per epoch."""
        self.begun: set[int] = set()
        """Ranks of the present attempt that have begun."""
        self.said: list[str] = []
        self.losses = 0
        self.killed: dict[str, int] = {}
        """By node, how many processes its system had killed for lack of memory when training began there."""

    def begin(self, rank: int, node: str, killed: int | None) -> bool:
        """Note that a process begins. Whether it shall train: starting it again is of no use after some failures.

        ``killed``: how many processes the system of its node killed for lack of memory so far; None where that is unknown.
        """
        self.begun.add(rank)
        if killed is not None and killed > self.killed.setdefault(node, killed) and self.losses:
            self.complain(out_of_memory("the system ended a training process"))
        return self.failure is None

    def latest(self) -> bytes | None:
        """The last finished epoch's checkpoint; None before the first."""
        return self.path.read_bytes() if self.path.exists() else None

    def save(self, content: np.ndarray, records: list[EpochRecord]) -> None:
        """Keep a checkpoint (its bytes, as uint8) and the epochs so far; on disk when this returns."""
        try:
            checkpoint.write(self.path, content.data)
        except OSError as error:
            self.complain(error)
            raise
        self.records = records

    def report(self, step: int, steps_per_epoch: int) -> bool:
        """Note how many steps are done. Whether to go on."""
        self.step = step, steps_per_epoch
        return self.failure is None

    def complain(self, failure: Exception) -> None:
        """Keep the first reason why training cannot go on."""
        if isinstance(failure, TrainingDivergedError):
            kept = f"--resume continues after epoch {len(self.records)}" if self.records else "--resume starts it again"
            failure = TrainingDivergedError(f"{failure}; {kept}")
        self.failure = self.failure or failure

    def lost(self, reasons: list[str], most: int) -> bool:
        """Note that processes were lost; ``most``: how often that may be. Whether starting them again makes sense."""
        self.losses += 1
        self.begun.clear()
        reason = reasons[0] if reasons else "no reason given"
        if any(sign in text.lower() for text in reasons for sign in _SHORT_OF_MEMORY):
            self.complain(out_of_memory("Ray ended a training process"))
        elif self.failure is None and self.losses <= most:
            begins = f"training goes on from epoch {len(self.records) + 1} ({self.losses} of {most})"
            self.said.append(f"a training process was lost; {begins}: {reason}")
        return self.failure is None

    def check(self) -> None:
        """Raise why training cannot go on, if there is a reason."""
        if self.failure is not None:
            raise self.failure

    def state(self, records: int, said: int) -> TrainingState:
        """How far training is; ``records`` and ``said``: how many epochs and lines are known already."""
        step, steps_per_epoch = self.step or (0, None)
        return TrainingState(self.records[records:], step, steps_per_epoch, len(self.begun), self.said[said:])


_SHORT_OF_MEMORY = ("out of memory", "outofmemory", "low on memory", "memory monitor")
"""Signs, in what Ray says of a lost process, that its memory monitor ended it."""


_LESS = (
    "lower train.batch-size, dataset.img-size or train.loader-workers and start again, or continue with --resume where more "
    "memory is free"
)
"""What helps a supernet's training that needs more memory than there is."""


def out_of_memory(what: str, remedy: str = _LESS) -> UserError:
    """What to tell a user whose training needs more memory than there is."""
    return UserError(f"{what} for lack of memory; {remedy}")


def lacks_memory(error: Exception) -> bool:
    """Whether an error says that a GPU or this machine has no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def _killed_for_memory() -> int | None:
    """How many processes this machine's system has killed for lack of memory since it started; None where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def _history(metadata: dict[str, Any]) -> list[EpochRecord]:
    """The epochs that a training checkpoint has behind it."""
    return [EpochRecord(**record) for record in metadata["history"]]


class _Losses(ray.train.UserCallback):
    """Tells the keeper of processes that were lost, and ends training where it would not start them again.

    Runs in Ray Train's controller, which after an exception raised here ends all processes and starts none.
    """

    def __init__(self, keeper: Actor, most: int) -> None:
        self.keeper, self.most = keeper, most

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called when an attempt has failed, before the next. Raises _NoFurther when there shall be none."""
        if not answer(self.keeper.lost.remote([brief(error) for error in worker_exceptions.values()], self.most)):
            raise _NoFurther


class _NoFurther(Exception):
    """Training was told to end."""


class TrainingBugError(RuntimeError):
    """A training process ended in an error of our code or of a family's; its traceback is in the message."""


def train_worker(config: dict[str, Any]) -> None:
    """What every training process runs.

    Whatever keeps it from training to the end is an exception, by which Ray Train ends the others too: they wait for this
    process in their next step. What would happen again is told to the keeper before, which then has none started again.
    """
    keeper: Actor = config["keeper"]
    context = ray.train.get_context()
    node = ray.get_runtime_context().get_node_id()
    if not answer(keeper.begin.remote(context.get_world_rank(), node, _killed_for_memory())):
        raise _NoFurther
    try:
        _train(config["job"], keeper, threads=config["threads"])
    except RayTaskError as error:
        failure = told(error)
    except (RayError, _NoFurther):
        raise
    except Exception as error:
        failure = lasting_failure(error)
        if failure is None:
            raise
    else:
        return
    ray.get(keeper.complain.remote(failure))
    raise _NoFurther  # not the failure itself, which may be one that cannot travel to Ray Train's controller


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


def _train(job: TrainingJob, keeper: Actor, *, threads: int) -> None:
    """Train from the last finished epoch to the end."""
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(threads)  # Ray's start commands export OMP_NUM_THREADS=1
    splits = job.task.splits(expected_digest=job.images)
    batches = job.task.batches(
        splits.train,
        batch_size=job.train.batch_size // world_size,
        rank=rank,
        world_size=world_size,
        seed=job.seed,
        workers=job.train.loader_workers,
    )
    supernet = build_supernet(
        job.family,
        job.settings,
        weight_init=job.train.weight_init,
        pos_embed_std=job.train.pos_embed_std,
        seed=job.seed,
    ).to(device)

    teacher = soft_labels = None
    if job.soft_labels is not None:
        soft_labels = SoftLabels(read_logits(local_path(job.soft_labels)), {rank: batches})
    elif job.teacher is not None:
        teacher = TeacherFile.read(local_path(job.teacher)).build(job.task.preprocessing(), device)

    def parallel(network: torch.nn.Module) -> torch.nn.Module:
        # A step uses some blocks only: the others have no gradient to wait for.
        return ray.train.torch.prepare_model(network, parallel_strategy_kwargs={"find_unused_parameters": True})

    trainer = SupernetTrainer(
        supernet,
        job.space,
        batches,
        job.train,
        task=job.task,
        outputs=job.task.ends(splits).outputs,
        seed=job.seed,
        device=device,
        rank=rank,
        undecayed=job.family.undecayed,
        parallel=parallel if world_size > 1 else None,
        cost=supernet.cost,
        teacher=teacher,
        soft_labels=soft_labels,
    )
    history: list[EpochRecord] = []
    # One process asks for the checkpoint, and all read what it was given: a save between two reads would divide them.
    asked: list[Any] | None = [keeper.latest.remote()] if rank == 0 else None
    asked = ray.train.collective.broadcast_from_rank_zero(asked)
    assert asked is not None
    content: bytes | None = answer(asked[0])
    ray.train.collective.barrier()  # the first process owns the content until all have it
    del asked
    if content is not None:
        tensors, metadata = checkpoint.unpack(content)
        trainer.load_state(tensors)
        history = _history(metadata)
    del content
    steps = _Steps(keeper, per_epoch=batches.steps_per_epoch) if rank == 0 else None
    saved = None
    for epoch in range(len(history), job.train.epochs):
        history.append(trainer.train_epoch(epoch, on_step=partial(steps.report, epoch) if steps else lambda _: None))
        last = epoch + 1 == job.train.epochs
        # After skipped steps the weights may be those that all further steps fail with: then an earlier epoch is the last good.
        if rank == 0 and (trainer.steady or last):
            metadata = {"kind": "training", "history": [asdict(r) for r in history]}
            # As an array, which Ray hands over without a copy.
            content_array = np.frombuffer(checkpoint.pack(trainer.state(), metadata), dtype=np.uint8)
            if saved is not None:
                answer(saved)  # one epoch is written while the next is trained, never more
            saved = keeper.save.remote(content_array, history)
    if saved is not None:
        answer(saved)


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
        """Take note of the ``step``-th step of an epoch. Raises _NoFurther when training was told to end."""
        if time.monotonic() < self.next and step < self.per_epoch:
            return
        self.next = time.monotonic() + 0.5
        if self.reply is not None and ray.wait([self.reply], timeout=0)[0] and not answer(self.reply):
            raise _NoFurther
        self.reply = self.keeper.report.remote(epoch * self.per_epoch + step, self.per_epoch)


def _scaling(config: TrainingConfig) -> tuple[int, Need, int]:
    """Number of the training processes, what each asks for, and the threads of each on a CPU.

    Raises UserError for more than the cluster could ever hold.
    """
    room = share_of("training")
    if room.gpus >= 1:
        count, threads, most = config.workers or int(room.gpus), 1, int(room.gpus)
        need = Need("training process", {"GPU": 1, **room.per_gpu}, "")
    else:
        free = max(1, int(ray.available_resources().get("CPU", 1)))
        count, most = config.workers or min(2, free), int(room.cpus)
        threads = max(1, free // count)
        need = Need("training process", {"CPU": 1}, "")
    check_room(need)
    if count > most and not grows():
        raise UserError(f"train.workers is {count}, but the cluster holds {most} training processes; give {most} or fewer")
    if config.batch_size % count:
        raise UserError(f"train.batch-size {config.batch_size} is not a multiple of {count} training workers")
    return count, need, threads


def train_supernet(
    job: TrainingJob,
    path: Path,
    *,
    on_epoch: Callable[[EpochRecord], None],
    on_step: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = log.warning,
) -> list[EpochRecord]:
    """Train the supernet of ``job``, from the last epoch in ``path`` if there is one.

    ``on_epoch`` is called for every finished epoch, those of an earlier run included, ``on_step`` twice a second with the steps
    that are done and those of the whole training, ``say`` with a line for processes that are lost or find no room. Returns all
    epochs' records; ``path`` then holds the trained weights (:func:`trained_weights`).

    Raises UserError when training diverged, an image could not be read, memory was too small, or processes were lost more often
    than the recipe allows; OSError when there is no room to write to; TrainingBugError at once for a bug.
    """
    keeper = beside_caller(CheckpointKeeper, path.resolve(), max_restarts=RESTARTS, max_task_retries=RESTARTS)
    shown, heard = 0, 0

    def show() -> TrainingState:
        nonlocal shown, heard
        state: TrainingState = answer(keeper.state.remote(shown, heard))
        for record in state.records:
            on_epoch(record)
        for line in state.said:
            say(line)
        shown, heard = shown + len(state.records), heard + len(state.said)
        if state.steps_per_epoch is not None:
            on_step(state.step, state.steps_per_epoch * job.train.epochs)
        return state

    try:
        show()
        if shown < job.train.epochs:
            count, need, threads = _scaling(job.train)
            waiting = Waiting(need, say)
            restarts = Restarts("Ray Train's controller", say)
            while True:
                fit = _Fit(job, keeper, count=count, need=need, threads=threads)
                try:
                    while fit.is_alive():
                        fit.join(0.5)
                        waiting.look(count - show().processes, of=count)
                except BaseException:
                    with suppress(RayError):
                        ray.get(keeper.complain.remote(_NoFurther()), timeout=STOPPING)
                    fit.join(STOPPING)
                    raise
                answer(keeper.check.remote())
                if not isinstance(fit.failure, LOST):
                    break
                restarts.another(fit.failure)
            if fit.failure is not None:
                raise fit.failure
            show()
        records: list[EpochRecord] = answer(keeper.state.remote(0, 0)).records
    except RayTaskError as error:
        if isinstance(cause := cast(object, error.cause), TrainingBugError):
            raise cause from None
        raise
    except OutOfMemoryError as error:
        raise out_of_memory("Ray ended the process that keeps checkpoints") from error
    finally:
        ray.kill(keeper)
    return records


class _Fit(threading.Thread):
    """Ray Train at work. In a thread: in the main one it would keep Ctrl-C to itself, for the rest of the program."""

    def __init__(self, job: TrainingJob, keeper: Actor, *, count: int, need: Need, threads: int) -> None:
        super().__init__(name="training", daemon=True)
        self.job, self.keeper, self.count, self.need, self.threads = job, keeper, count, need, threads
        self.failure: Exception | None = None
        self.start()

    def run(self) -> None:
        """Train; keeps the error."""
        most = self.job.train.max_failures
        gpu = "GPU" in self.need.resources
        try:
            with tempfile.TemporaryDirectory(prefix="raysearch-train-", ignore_cleanup_errors=True) as folder:
                ray.train.torch.TorchTrainer(
                    train_worker,
                    train_loop_config={"job": self.job, "keeper": self.keeper, "threads": self.threads},
                    scaling_config=ray.train.ScalingConfig(
                        num_workers=self.count, use_gpu=gpu, resources_per_worker=dict(self.need.resources)
                    ),
                    run_config=ray.train.RunConfig(
                        name="supernet",
                        storage_path=folder,
                        failure_config=ray.train.FailureConfig(max_failures=most),
                        callbacks=[_Losses(self.keeper, most)],
                    ),
                ).fit()
        except SystemExit:
            return  # how Ray ends the thread when the program leaves it
        except WorkerGroupError as error:
            reason = next((brief(each) for each in error.worker_failures.values()), brief(error))
            self.failure = UserError(
                f"training processes were lost {most + 1} times (train.max-failures is {most}), now: {reason}; "
                "--resume continues after the last finished epoch"
            )
            self.failure.__cause__ = error
        except Exception as error:  # raised by whoever waits for this thread
            self.failure = error


def trained_weights(path: Path) -> dict[str, torch.Tensor]:
    """The supernet's weights in a training checkpoint, or their moving average where the training keeps one."""
    tensors, _ = checkpoint.read(path)
    return trained(tensors)
