"""Supernet training by Ray Train: one process for each GPU, or two on CPUs; finished epochs are never trained again."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
from ray.train.v2.api.exceptions import TrainingFailedError

from raysearch.distributed.cluster import Actor, answer, beside_caller, share_of
from raysearch.errors import UserError
from raysearch.space import SearchSpace
from raysearch.spaces import Family
from raysearch.store.summary import EpochRecord
from raysearch.tasks.task import Task
from raysearch.training import checkpoint
from raysearch.training.config import TrainingConfig
from raysearch.training.supernets import build_supernet
from raysearch.training.trainer import SupernetTrainer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """All that a training process needs to know; a few bytes, sent to each."""

    family: Family[Any, Any]
    settings: dict[str, Any]
    """Constructor arguments of the supernet."""
    space: SearchSpace[Any]
    train: TrainingConfig
    task: Task
    seed: int
    images: str
    """Digest of the splits, which every process must find."""


class CheckpointKeeper:
    """Writes each finished epoch to the output folder, on the driver's node: training nodes need no shared storage.

    Args:
        path: the training checkpoint; one that is already there is where training continues.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.complaint: str | None = None
        """What ended training for good: an image or a setting. Starting processes again would not help."""
        self.records = _history(checkpoint.read(path)[1]) if path.exists() else []

    def latest(self) -> bytes | None:
        """The last finished epoch's checkpoint; None before the first."""
        return self.path.read_bytes() if self.path.exists() else None

    def save(self, content: np.ndarray, records: list[EpochRecord]) -> None:
        """Keep a checkpoint (its bytes, as uint8) and the epochs so far; on disk when this returns."""
        checkpoint.write(self.path, content.data)
        self.records = records

    def complain(self, reason: str) -> None:
        """Keep the first reason why training cannot go on."""
        self.complaint = self.complaint or reason

    def complained(self) -> str | None:
        """The reason why training cannot go on, if there is one."""
        return self.complaint

    def finished(self, start: int) -> list[EpochRecord]:
        """Records of the epochs from ``start`` on."""
        return self.records[start:]


def _history(metadata: dict[str, Any]) -> list[EpochRecord]:
    """The epochs that a training checkpoint has behind it."""
    return [EpochRecord(**record) for record in metadata["history"]]


def _train_worker(config: dict[str, Any]) -> None:
    """What every training process runs."""
    keeper: Actor = config["keeper"]
    if answer(keeper.complained.remote()):
        return  # Ray Train starts lost processes again, and knows no error that makes this useless
    try:
        _train(config["job"], keeper, threads=config["threads"])
    except UserError as error:
        ray.get(keeper.complain.remote(str(error)))
        raise


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
    )
    history: list[EpochRecord] = []
    content: bytes | None = answer(keeper.latest.remote())
    if content is not None:
        tensors, metadata = checkpoint.unpack(content)
        trainer.load_state(tensors)
        history = _history(metadata)
    saved = None
    for epoch in range(len(history), job.train.epochs):
        history.append(trainer.train_epoch(epoch))
        if rank == 0:
            metadata = {"kind": "training", "history": [asdict(r) for r in history]}
            # As an array, which Ray hands over without a copy.
            content_array = np.frombuffer(checkpoint.pack(trainer.state(), metadata), dtype=np.uint8)
            if saved is not None:
                ray.get(saved)  # one epoch is written while the next is trained, never more
            saved = keeper.save.remote(content_array, history)
    if saved is not None:
        ray.get(saved)


def _scaling(config: TrainingConfig) -> tuple[ray.train.ScalingConfig, int]:
    """Number and size of the training processes, and the threads of each on a CPU."""
    room = share_of("training")
    if room.gpus >= 1:
        count, threads = config.workers or int(room.gpus), 1
        scaling = ray.train.ScalingConfig(num_workers=count, use_gpu=True, resources_per_worker={"GPU": 1, **room.per_gpu})
    else:
        free = max(1, int(ray.available_resources().get("CPU", 1)))
        count = min(config.workers or 2, free)
        threads = max(1, free // count)
        scaling = ray.train.ScalingConfig(num_workers=count, resources_per_worker={"CPU": 1})
    if config.batch_size % count:
        raise UserError(f"train.batch-size {config.batch_size} is not a multiple of {count} training workers")
    return scaling, threads


def train_supernet(job: TrainingJob, path: Path, *, on_epoch: Callable[[EpochRecord], None]) -> list[EpochRecord]:
    """Train the supernet of ``job``, from the last epoch in ``path`` if there is one.

    ``on_epoch`` is called for every finished epoch, from another thread, those of an earlier run included. Returns all epochs'
    records; ``path`` then holds the trained weights (:func:`trained_weights`). Raises UserError when the training diverged or
    an image could not be read, RuntimeError when processes were lost more often than the recipe allows.
    """
    keeper = beside_caller(CheckpointKeeper, path.resolve())
    shown = 0
    stop = threading.Event()

    def show() -> int:
        records: list[EpochRecord] = answer(keeper.finished.remote(shown))
        for record in records:
            on_epoch(record)
        return shown + len(records)

    def watch() -> None:
        nonlocal shown
        while not stop.wait(0.5):
            shown = show()

    shown = show()
    if shown < job.train.epochs:
        scaling, threads = _scaling(job.train)
        watcher = threading.Thread(target=watch, name="training-progress", daemon=True)
        watcher.start()
        failure: RuntimeError | None = None
        try:
            with tempfile.TemporaryDirectory(prefix="raysearch-train-", ignore_cleanup_errors=True) as folder:
                ray.train.torch.TorchTrainer(
                    _train_worker,
                    train_loop_config={"job": job, "keeper": keeper, "threads": threads},
                    scaling_config=scaling,
                    run_config=ray.train.RunConfig(
                        name="supernet",
                        storage_path=folder,
                        failure_config=ray.train.FailureConfig(max_failures=job.train.max_failures),
                    ),
                ).fit()
        except TrainingFailedError as error:
            failure = RuntimeError(f"training failed: {str(error).strip().splitlines()[-1]}")
            failure.__cause__ = error
        finally:
            stop.set()
            watcher.join()
        if complaint := answer(keeper.complained.remote()):
            raise UserError(complaint)
        if failure is not None:
            raise failure
        shown = show()
    records: list[EpochRecord] = answer(keeper.finished.remote(0))
    ray.kill(keeper)
    return records


def trained_weights(path: Path) -> dict[str, torch.Tensor]:
    """The supernet's weights in a training checkpoint."""
    tensors, _ = checkpoint.read(path)
    return checkpoint.without_prefix("model/", tensors)
