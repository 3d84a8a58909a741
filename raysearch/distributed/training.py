"""Training by Ray Train, of a supernet or single networks: a process per GPU, or two on CPUs, or as many as find room."""

from __future__ import annotations

import logging
import math
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import ray
import ray.train
import ray.train.torch
import torch
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError
from ray.train.v2.api.exceptions import WorkerGroupError

from raysearch.distributed.cluster import LOST, Actor, answer, beside_caller, brief
from raysearch.distributed.growth import ask_for_nodes, instead, share_of
from raysearch.distributed.keeper import CheckpointKeeper, TrainingState, history_of, out_of_memory
from raysearch.distributed.metrics import training_loss
from raysearch.distributed.restarts import RESTARTS, Restarts
from raysearch.distributed.room import Need, NoNodeError, Waiting, check_room, starts_nodes
from raysearch.distributed.streaming import check_free_cpus
from raysearch.distributed.training_worker import Losses, NoFurther, TrainingBugError, TrainingJob, train_worker
from raysearch.errors import UserError
from raysearch.store.summary import EpochRecord
from raysearch.training import checkpoint
from raysearch.training.config import TrainingConfig
from raysearch.training.trainer import trained

log = logging.getLogger(__name__)

RESIZE_EVERY = 60.0
"""Seconds between two looks whether more processes of a training find room, or fewer."""
STOPPING = 10.0
"""Seconds that training processes get to end, when the driver ends before them."""


@dataclass(frozen=True, slots=True)
class Training:
    """One training of several that the same processes do, one after the other."""

    job: TrainingJob
    path: Path
    """Its checkpoint: training goes on from the last epoch in it, and at the end it holds the trained weights."""
    on_epoch: Callable[[EpochRecord], None]
    """Called for every finished epoch, those of an earlier run included."""
    on_step: Callable[[int, int], None] = lambda done, total: None
    """Called twice a second with the steps that are done and those of the whole training."""


def train_network(
    job: TrainingJob,
    path: Path,
    *,
    on_epoch: Callable[[EpochRecord], None],
    on_step: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = log.warning,
) -> list[EpochRecord]:
    """:func:`train_networks` of one. Returns all epochs' records; ``path`` then holds the weights (:func:`trained_weights`)."""
    return train_networks([Training(job, path, on_epoch, on_step)], say=say)[0]


def train_networks(trainings: Sequence[Training], *, say: Callable[[str], None] = log.warning) -> list[list[EpochRecord]]:
    """Train each supernet or subnet, at least one, in the order given, by one group of processes; all epochs' records of each.

    How many processes there are follows from the first, as does whether a cluster starts nodes for them, and what follows
    where none come. ``say`` gets a line for processes that are lost or find no room.

    Raises UserError when a training diverged, an image could not be read, memory was too small, or processes were lost more
    often than the recipe allows; OSError when there is no room to write to; TrainingBugError at once for a bug. What was
    trained before stays in its file.
    """
    try:
        return _train_networks(trainings, say=say)
    except NoNodeError as error:
        config = trainings[0].job.train
        present = replace(config, nodes=instead(config.nodes, error, say))
        first = replace(trainings[0], job=replace(trainings[0].job, train=present))
        return _train_networks([first, *trainings[1:]], say=say)


def _train_networks(trainings: Sequence[Training], *, say: Callable[[str], None]) -> list[list[EpochRecord]]:
    watched = [_Watched(training) for training in trainings]

    def show() -> int:
        """Pass on what is new. Returns how many processes have begun the training that is in progress."""
        states = [each.show(say) for each in watched if not each.finished]
        return states[0].processes if states else 0

    try:
        show()
        config = trainings[0].job.train
        if not all(each.finished for each in watched):
            scale = _scaling(config, _shards_so_far(watched), say)
            check_free_cpus(trainings[0].job.task, scale.need, scale.most)
            ask_for_nodes(scale.need, scale.least, say=say)
            # One that is lost later, and not replaced, is waited for: Ray Train has no end for that.
            waiting = Waiting(replace(scale.need, wait=math.inf), say)
            restarts = Restarts("Ray Train's controller", say)
            while True:
                fit = _Fit(watched, scale)
                try:
                    while fit.is_alive():
                        fit.join(0.5)
                        waiting.look(max(0, scale.least - show()), of=scale.least)
                except BaseException:
                    for each in watched:
                        with suppress(RayError):
                            ray.get(each.keeper.complain.remote(NoFurther()), timeout=STOPPING)
                    fit.join(STOPPING)
                    raise
                for each in watched:
                    answer(each.keeper.check.remote())
                if not isinstance(fit.failure, LOST):
                    break
                restarts.another(fit.failure)
            if fit.failure is not None:
                raise fit.failure
            show()
        return [each.state(0, 0).records for each in watched]
    except RayTaskError as error:
        if isinstance(cause := cast(object, error.cause), TrainingBugError):
            raise cause from None
        raise
    except OutOfMemoryError as error:
        raise out_of_memory("Ray ended the process that keeps checkpoints") from error
    finally:
        for each in watched:
            ray.kill(each.keeper)


class _Watched:
    """One training and the process that keeps its checkpoints, as its driver follows it."""

    def __init__(self, training: Training) -> None:
        self.training, job = training, training.job
        self.keeper: Actor = beside_caller(
            CheckpointKeeper,
            training.path.resolve(),
            job.train.epochs,
            job.continued,
            max_restarts=RESTARTS,
            max_task_retries=RESTARTS,
        )
        self.shown, self.heard = 0, 0

    @property
    def finished(self) -> bool:
        """Whether all epochs were shown."""
        return self.shown >= self.training.job.train.epochs

    def state(self, records: int, said: int) -> TrainingState:
        """How far it is; ``records`` and ``said``: how many epochs and lines are known."""
        return answer(self.keeper.state.remote(records, said))

    def show(self, say: Callable[[str], None]) -> TrainingState:
        """Pass on what is new."""
        state = self.state(self.shown, self.heard)
        for record in state.records:
            self.training.on_epoch(record)
            training_loss(self.training.path, record.loss)
        for line in state.said:
            say(line)
        self.shown, self.heard = self.shown + len(state.records), self.heard + len(state.said)
        if state.steps_per_epoch is not None:
            self.training.on_step(state.step, state.steps_per_epoch * self.training.job.train.epochs)
        return state


@dataclass(frozen=True, slots=True)
class _Scale:
    """How many processes train."""

    least: int
    most: int
    shards: int
    """Of a step that is not dealt yet."""
    threads: int
    """Of each process, on a CPU."""
    need: Need
    """What each asks for."""


def _scaling(config: TrainingConfig, so_far: int | None, say: Callable[[str], None]) -> _Scale:
    """How many processes train; ``so_far``: the shards of trainings that go on, which are not more than those.

    Raises UserError for more than the cluster could ever hold.
    """
    share = share_of("training", config.nodes)
    gpus, resources = share.accelerated, share.asks()
    need = share.need("training process", resources)
    held = share.ever(resources)
    least, most = config.worker_range or 2 * (share.wanted(resources, given=None) if gpus else min(2, max(1, held)),)
    check_room(need)
    if least > held and not (share.unknown or (need.comes is None and starts_nodes())):
        raise UserError(f"train.workers is {least}, but the cluster holds {held} training processes; give {held} or fewer")
    shards = config.dealt_into(most, gpus=gpus)
    if so_far is not None and so_far < most:
        say(f"this training deals its steps into {so_far} parts: at most so many processes go on with it")
        least, most = min(least, so_far), so_far
    if config.batch_size % shards:
        raise UserError(f"train.batch-size {config.batch_size} is not a multiple of {shards} training workers")
    free = max(1, int(ray.available_resources().get("CPU", 1)))
    return _Scale(least, most, shards, 1 if gpus else max(1, free // most), need)


def _shards_so_far(watched: Sequence[_Watched]) -> int | None:
    """Those of a training that goes on; None where none does, or an earlier version began it."""
    metadata = (checkpoint.read(path)[1] for each in watched if not each.finished and (path := each.training.path).exists())
    return min((one["shards"] for one in metadata if "shards" in one), default=None)


class _Fit(threading.Thread):
    """Ray Train at work. In a thread: in the main one it would keep Ctrl-C to itself, for the rest of the program."""

    def __init__(self, watched: Sequence[_Watched], scale: _Scale) -> None:
        super().__init__(name="training", daemon=True)
        self.watched, self.scale = watched, scale
        self.failure: Exception | None = None
        self.start()

    def run(self) -> None:
        """Train; keeps the error."""
        job, keepers = self.watched[0].training.job, [each.keeper for each in self.watched]
        most, scale = job.train.max_failures, self.scale
        try:
            with tempfile.TemporaryDirectory(prefix="raysearch-train-", ignore_cleanup_errors=True) as folder:
                ray.train.torch.TorchTrainer(
                    train_worker,
                    train_loop_config={
                        "jobs": [each.training.job for each in self.watched],
                        "keepers": keepers,
                        "shards": scale.shards,
                        "threads": scale.threads,
                    },
                    scaling_config=ray.train.ScalingConfig(
                        # A fixed number is Ray's own word for one that waits for all of them.
                        num_workers=scale.most if scale.least == scale.most else (scale.least, scale.most),
                        use_gpu="GPU" in scale.need.resources,
                        resources_per_worker=dict(scale.need.resources),
                        elastic_resize_monitor_interval_s=RESIZE_EVERY,
                    ),
                    run_config=ray.train.RunConfig(
                        name="training",
                        storage_path=folder,
                        failure_config=ray.train.FailureConfig(max_failures=most),
                        callbacks=[Losses(keepers, most)],
                    ),
                ).fit()
        except SystemExit:
            return  # how Ray ends the thread when the program leaves it
        except WorkerGroupError as error:
            reason = next((brief(each) for each in error.worker_failures.values()), brief(error))
            self.failure = UserError(
                f"training processes were lost {most + 1} times (train.max-failures is {most}), now: {reason}; "
                f"{job.continued} continues after the last finished epoch"
            )
            self.failure.__cause__ = error
        except Exception as error:  # raised by whoever waits for this thread
            self.failure = error


def trained_weights(job: TrainingJob, path: Path) -> tuple[dict[str, torch.Tensor], list[EpochRecord]]:
    """The weights in a training checkpoint of ``job``, under the network's own names, and the epochs behind them.

    Their moving average where the training keeps one.
    """
    tensors, metadata = checkpoint.read(path)
    return checkpoint.without_prefix(job.names, trained(tensors)), history_of(metadata)


def write_weights(path: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Write weights that a training begins with, whole or not at all."""
    checkpoint.write(path, checkpoint.pack(weights, {"kind": "weights"}))
