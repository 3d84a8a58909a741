"""Supernet training by two real processes: the same as by one, and the same when one of them is killed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from idle_cluster import wait_until_idle
from ray.cluster_utils import Cluster
from torch import Tensor

from raysearch.distributed.training import TrainingJob, train_supernet
from raysearch.recipes.autoformer import DIGITS_RECIPE
from raysearch.spaces.autoformer import FAMILY
from raysearch.store.summary import EpochRecord
from raysearch.training import checkpoint
from raysearch.training.config import TrainingConfig
from raysearch.training.supernets import build_supernet
from raysearch.training.trainer import SupernetTrainer

EPOCHS = 4
SEED = 3
SPLITS = DIGITS_RECIPE.task.splits()


@dataclass(frozen=True)
class Trained:
    """What a training leaves: its epochs, and every tensor of its last checkpoint, optimiser included."""

    records: list[EpochRecord]
    state: dict[str, Tensor]


def job(archs_per_step: int) -> TrainingJob:
    """Digits without shifts and stochastic depth: those are chance of each process, so two would train otherwise than one."""
    train = TrainingConfig(
        epochs=EPOCHS,
        batch_size=100,
        lr=1e-3,
        warmup_epochs=1,
        drop_path=0.0,
        clip_grad=1.0,
        archs_per_step=archs_per_step,
        weight_init="xavier",
        pos_embed_std=0.2,
        workers=2,
    )
    task = replace(DIGITS_RECIPE.task, augment=replace(DIGITS_RECIPE.task.augment, shift=0))
    geometry = FAMILY.build(DIGITS_RECIPE.config, task.ends(SPLITS))
    return TrainingJob(
        family=FAMILY,
        settings={**geometry.settings, "drop_path_rate": 0.0},
        space=geometry.space,
        train=train,
        task=task,
        seed=SEED,
        images=SPLITS.digest,
    )


def by_one(job: TrainingJob) -> Trained:
    """In this process, which sees whole batches."""
    train = job.train
    supernet = build_supernet(
        job.family, job.settings, weight_init=train.weight_init, pos_embed_std=train.pos_embed_std, seed=job.seed
    )
    batches = job.task.batches(SPLITS.train, batch_size=train.batch_size, seed=job.seed)
    trainer = SupernetTrainer(
        supernet,
        job.space,
        batches,
        train,
        task=job.task,
        outputs=10,
        seed=job.seed,
        device=torch.device("cpu"),
        undecayed=FAMILY.undecayed,
    )
    records = [trainer.train_epoch(epoch) for epoch in range(train.epochs)]
    return Trained(records, trainer.state())


def by_two(job: TrainingJob, path: Path, *, meanwhile: Callable[[], object] | None = None) -> Trained:
    """By two processes of the cluster."""
    wait_until_idle()
    helper = threading.Thread(target=meanwhile) if meanwhile else None
    if helper:
        helper.start()
    records = train_supernet(job, path, on_epoch=lambda record: None)
    if helper:
        helper.join()
    return Trained(records, checkpoint.read(path)[0])


@pytest.fixture(scope="module")
def trained(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Trained]:
    """Trained by two processes, undisturbed, with so many architectures per step; once each."""
    kept: dict[int, Trained] = {}

    def get(archs_per_step: int) -> Trained:
        if archs_per_step not in kept:
            kept[archs_per_step] = by_two(job(archs_per_step), tmp_path_factory.mktemp("trained") / "training.safetensors")
        return kept[archs_per_step]

    return get


@pytest.mark.parametrize("archs_per_step", [1, 3])
def test_two_processes_train_as_one(trained: Callable[[int], Trained], archs_per_step: int) -> None:
    """To rounding: two halves of a batch are summed in another order than the whole.

    Losses agree to 1e-7 and moments to 3e-6 of their norm (measured). Adam divides a gradient by its own size, so where it is
    rounding and nothing else (biases of keys, which attention cancels) it moves weights by up to a step: 3e-4 of the norm.
    Processes that do not average their gradients are apart by the size of what they learned.
    """
    two, one = trained(archs_per_step), by_one(job(archs_per_step))
    assert [r.lr for r in two.records] == [r.lr for r in one.records]
    assert [r.loss for r in two.records] == pytest.approx([r.loss for r in one.records], abs=2e-6)
    assert two.state.keys() == one.state.keys()
    for name, value in one.state.items():
        if name.endswith("/step"):
            assert torch.equal(two.state[name], value)
            continue
        apart = float((two.state[name] - value).double().norm() / value.double().norm())
        assert apart < (1e-4 if name.startswith("optimizer/") else 2e-3), name


def training_processes(cluster: Cluster) -> list[psutil.Process]:
    """Those of this cluster, whatever else runs on the machine."""
    raylet = psutil.Process(cluster.head_node.all_processes["raylet"][0].process.pid)
    return [p for p in raylet.children(recursive=True) if p.cmdline()[0].startswith("ray::RayTrainWorker")]


def test_a_training_process_that_is_killed_costs_its_unfinished_epoch(
    cluster: Cluster, trained: Callable[[int], Trained], tmp_path: Path
) -> None:
    path = tmp_path / "training.safetensors"
    finished: list[dict[str, Any]] = []

    def kill() -> None:
        pulse = threading.Event()
        while not path.exists():
            pulse.wait(0.005)
        finished.extend(checkpoint.read(path)[1]["history"])
        os.kill(training_processes(cluster)[-1].pid, signal.SIGKILL)

    disturbed, whole = by_two(job(3), path, meanwhile=kill), trained(3)
    assert 1 <= len(finished) < EPOCHS
    assert [asdict(record) for record in disturbed.records][: len(finished)] == finished  # their seconds too: trained once
    assert [(r.epoch, r.loss, r.lr) for r in disturbed.records] == [(r.epoch, r.loss, r.lr) for r in whole.records]
    assert disturbed.state.keys() == whole.state.keys()
    assert all(torch.equal(disturbed.state[name], whole.state[name]) for name in whole.state)
