"""Supernet training by two real processes: the same as by one, and the same when one of them is killed."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
import ray.train
import ray.train.torch
import torch
from idle_cluster import actors, wait_until_idle
from ray.cluster_utils import Cluster
from torch import Tensor

from raysearch.distributed.keeper import CheckpointKeeper
from raysearch.distributed.training import TrainingJob, train_network
from raysearch.distributed.training_worker import TrainingBugError, lasting_failure, train_worker
from raysearch.errors import UserError
from raysearch.recipes.autoformer import DIGITS_RECIPE
from raysearch.spaces.autoformer import FAMILY
from raysearch.store.summary import EpochRecord
from raysearch.tasks.task import Batches
from raysearch.training import checkpoint
from raysearch.training.config import DistillConfig, TrainingConfig
from raysearch.training.shards import Shards
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


def job(archs_per_step: int, **settings: Any) -> TrainingJob:
    """Digits, shifted by chance, with stochastic depth; each step is dealt into two shards, whoever trains them."""
    train = TrainingConfig(
        epochs=EPOCHS,
        batch_size=100,
        lr=1e-3,
        warmup_epochs=1,
        drop_path=0.1,
        clip_grad=1.0,
        archs_per_step=archs_per_step,
        weight_init="xavier",
        pos_embed_std=0.2,
        **{"workers": 2, "shards": 2, **settings},
    )
    task = DIGITS_RECIPE.task
    geometry = FAMILY.build(DIGITS_RECIPE.config, task.ends(SPLITS))
    return TrainingJob(
        family=FAMILY,
        settings={**geometry.settings, "drop_path_rate": train.drop_path},
        space=geometry.space,
        train=train,
        task=task,
        seed=SEED,
        images=SPLITS.digest,
    )


def rich() -> TrainingJob:
    """A sandwich of three architectures whose largest teaches, in passes of 20 images, with a moving average."""
    return job(1, strategy="sandwich", distill=DistillConfig("largest"), micro_batch=20, ema=0.9)


def by_one(job: TrainingJob) -> Trained:
    """In this process, which has all shards."""
    train, of = job.train, job.train.shards or 1
    supernet = build_supernet(
        job.family, job.settings, weight_init=train.weight_init, pos_embed_std=train.pos_embed_std, seed=job.seed
    )

    def dealt(shard: int) -> Batches:
        return job.task.batches(SPLITS.train, batch_size=train.batch_size // of, seed=job.seed, rank=shard, world_size=of)

    trainer = SupernetTrainer(
        supernet,
        job.space,
        Shards.dealt(dealt, of=of, rank=0, world_size=1),
        train,
        task=job.task,
        outputs=10,
        seed=job.seed,
        device=torch.device("cpu"),
        undecayed=FAMILY.undecayed,
    )
    records = [trainer.train_epoch(epoch) for epoch in range(train.epochs)]
    return Trained(records, trainer.state())


def by_two(
    job: TrainingJob,
    path: Path,
    *,
    meanwhile: Callable[[], object] | None = None,
    steps: Callable[[int, int], None] = lambda done, total: None,
    said: Callable[[str], None] = lambda line: None,
) -> Trained:
    """By two processes of the cluster."""
    wait_until_idle()
    helper = threading.Thread(target=meanwhile) if meanwhile else None
    if helper:
        helper.start()
    records = train_network(job, path, on_epoch=lambda record: None, on_step=steps, say=said)
    if helper:
        helper.join()
    return Trained(records, checkpoint.read(path)[0])


@pytest.fixture(scope="module")
def trained(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trained by two processes, undisturbed: steps of many passes, and an average of the weights beside them."""
    return by_two(rich(), tmp_path_factory.mktemp("trained") / "training.safetensors")


def check_equal(two: Trained, one: Trained) -> None:
    """To rounding: two halves of a batch are summed in another order than the whole.

    Losses agree to 1e-7 and moments to 3e-6 of their norm (measured). Adam divides a gradient by its own size, so where it is
    rounding and nothing else (biases of keys, which attention cancels) it moves weights by up to a step: 3e-4 of the norm.
    Processes that do not average their gradients are apart by the size of what they learned.
    """
    assert [r.lr for r in two.records] == [r.lr for r in one.records]
    assert [r.loss for r in two.records] == pytest.approx([r.loss for r in one.records], abs=2e-6)
    assert two.state.keys() == one.state.keys()
    for name, value in one.state.items():
        if name.endswith("/step"):
            assert torch.equal(two.state[name], value)
            continue
        apart = float((two.state[name] - value).double().norm() / value.double().norm())
        assert apart < (1e-4 if name.startswith("optimizer/") else 2e-3), name


def test_two_processes_train_as_one(trained: Trained) -> None:
    check_equal(trained, by_one(rich()))


def training_processes() -> list[psutil.Process]:
    """Those of the test run's cluster."""
    return actors(psutil.Process(), "RayTrainWorker")


def wait_until_none() -> None:
    """Return when no training process is left."""
    pulse = threading.Event()
    while training_processes():
        pulse.wait(0.05)


def test_a_training_process_that_is_killed_costs_what_was_not_saved(cluster: Cluster, trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "training.safetensors"
    finished: list[dict[str, Any]] = []

    def kill() -> None:
        pulse = threading.Event()
        while not path.exists() or not {"within", "history"} <= {name for name, value in metadata().items() if value}:
            pulse.wait(0.005)
        finished.extend(metadata()["history"])
        os.kill(training_processes()[-1].pid, signal.SIGKILL)

    def metadata() -> dict[str, Any]:
        return checkpoint.read(path)[1]

    steps, said = list[tuple[int, int]](), list[str]()
    often = rich()
    often = replace(often, train=replace(often.train, save_minutes=1e-6))
    disturbed = by_two(often, path, meanwhile=kill, steps=lambda *each: steps.append(each), said=said.append)
    (line,) = said
    assert re.match(r"a training process was lost; training goes on from (step \d of )?epoch \d \(1 of 3\): ", line)
    assert {total for _, total in steps} == {EPOCHS * (len(SPLITS.train) // 100)}
    assert steps[-1][0] == EPOCHS * (len(SPLITS.train) // 100)
    assert 1 <= len(finished) < EPOCHS
    assert "within" not in metadata()  # the end is whole epochs
    assert [asdict(record) for record in disturbed.records][: len(finished)] == finished  # their seconds too: trained once
    assert [(r.epoch, r.loss, r.lr) for r in disturbed.records] == [(r.epoch, r.loss, r.lr) for r in trained.records]
    assert disturbed.state.keys() == trained.state.keys()
    assert all(torch.equal(disturbed.state[name], trained.state[name]) for name in trained.state)


def test_another_number_of_processes_goes_on_within_an_epoch_and_trains_alike(
    cluster: Cluster, trained: Trained, tmp_path: Path
) -> None:
    """One has both shards of the steps that two began: the same to rounding."""
    path, often = tmp_path / "training.safetensors", rich()
    often = replace(often, train=replace(often.train, save_minutes=1e-6))

    def leave(done: int, total: int) -> None:
        if path.exists() and {"within", "history"} <= {name for name, value in checkpoint.read(path)[1].items() if value}:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        by_two(often, path, steps=leave)
    begun = checkpoint.read(path)[1]
    fewer = replace(often, train=replace(often.train, workers=1, shards=None))  # the training keeps those that it has
    check_equal(by_two(fewer, path), trained)
    assert begun["shards"] == checkpoint.read(path)[1]["shards"] == 2


@pytest.fixture(scope="module")
def _spoilers_travel(cluster: Cluster) -> None:
    """Workers cannot import the tests' modules: what is defined here travels by value."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class SpoiledBatches:
    """Batches of which the last process finds one not finite."""

    def __init__(self, batches: Batches, *, here: bool) -> None:
        self.batches, self.here, self.steps_per_epoch = batches, here, batches.steps_per_epoch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for step, (images, labels) in enumerate(self.batches.epoch(epoch, start), start):
            yield images * (float("nan") if self.here and (epoch, step) == (1, 4) else 1.0), labels


class SpoiledDigits(type(DIGITS_RECIPE.task)):  # pyright: ignore[reportUntypedBaseClass, reportGeneralTypeIssues]
    """Digits with :class:`SpoiledBatches`."""

    def batches(self, items: Any, *, rank: int = 0, world_size: int = 1, **settings: Any) -> Batches:
        batches = super().batches(items, rank=rank, world_size=world_size, **settings)
        return SpoiledBatches(batches, here=rank == world_size - 1)


@pytest.mark.usefixtures("_spoilers_travel")
def test_a_step_that_one_process_finds_not_finite_is_left_out_by_both(cluster: Cluster, tmp_path: Path) -> None:
    plain = job(1)
    spoiled = replace(plain, task=SpoiledDigits(**{f.name: getattr(plain.task, f.name) for f in fields(plain.task)}))
    two, one = by_two(spoiled, tmp_path / "training.safetensors"), by_one(spoiled)
    assert [r.skipped for r in two.records] == [r.skipped for r in one.records] == [0, 1, 0, 0]
    check_equal(two, one)


class FaultyDigits(type(DIGITS_RECIPE.task)):  # pyright: ignore[reportUntypedBaseClass, reportGeneralTypeIssues]
    """Digits whose loss has a bug."""

    def loss(self, outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        raise RuntimeError("shapes do not match")


@pytest.mark.usefixtures("_spoilers_travel")
def test_a_bug_ends_training_at_once_with_its_traceback(cluster: Cluster, tmp_path: Path) -> None:
    plain, said = job(1), list[str]()
    faulty = replace(
        plain,
        train=replace(plain.train, workers=1),
        task=FaultyDigits(**{f.name: getattr(plain.task, f.name) for f in fields(plain.task)}),
    )
    with pytest.raises(TrainingBugError, match=r"(?s)in loss\n.*RuntimeError: shapes do not match"):
        by_two(faulty, tmp_path / "training.safetensors", said=said.append)
    assert said == []  # nothing was started again


class HalfBlindDigits(type(DIGITS_RECIPE.task)):  # pyright: ignore[reportUntypedBaseClass, reportGeneralTypeIssues]
    """Digits of which the last process cannot read the images of the second epoch's fifth step."""

    def batches(self, items: Any, *, rank: int = 0, world_size: int = 1, **settings: Any) -> Batches:
        batches = super().batches(items, rank=rank, world_size=world_size, **settings)
        return UnreadableBatches(batches, here=rank == world_size - 1)


class UnreadableBatches(SpoiledBatches):
    """As their name says, in the process where ``here`` is true."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for step, batch in enumerate(self.batches.epoch(epoch, start), start):
            if self.here and (epoch, step) == (1, 4):
                raise UserError("cannot read images/7.png")
            yield batch


@pytest.mark.usefixtures("_spoilers_travel")
def test_what_one_process_meets_alone_ends_training_at_once_and_leaves_no_process(cluster: Cluster, tmp_path: Path) -> None:
    """The other waits for it in a step: for half an hour, were it not ended too."""
    plain, said = job(1), list[str]()
    half_blind = replace(plain, task=HalfBlindDigits(**{f.name: getattr(plain.task, f.name) for f in fields(plain.task)}))
    path = tmp_path / "training.safetensors"
    with pytest.raises(UserError, match=r"^cannot read images/7\.png"):
        by_two(half_blind, path, said=said.append)
    wait_until_none()
    assert time.time() - path.stat().st_mtime < 120  # seconds since the last epoch that was finished
    assert said == []  # nothing was started again
    assert [r["epoch"] for r in checkpoint.read(path)[1]["history"]] == [0]


def test_a_driver_that_leaves_training_leaves_no_process_behind(cluster: Cluster, tmp_path: Path) -> None:
    """The first process is told; the other waits for it in a step, and is ended too."""

    def leave(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        by_two(job(1), tmp_path / "training.safetensors", steps=leave)
    wait_until_none()


class Drifting(CheckpointKeeper):
    """Has one epoch more whenever it is asked, as if another was saved meanwhile."""

    def latest(self) -> bytes | None:
        self.records.append(EpochRecord(len(self.records), 1.0, 1.0, 1.0))
        tensors, metadata = checkpoint.unpack(self.path.read_bytes())
        return checkpoint.pack(tensors, {**metadata, "history": [asdict(r) for r in self.records]})


@pytest.mark.usefixtures("_spoilers_travel")
def test_processes_continue_from_one_reading_of_the_checkpoint(cluster: Cluster, tmp_path: Path) -> None:
    """Were each to ask for itself, one would train an epoch more than the other, and wait for it for ever."""
    path, plain = tmp_path / "training.safetensors", job(1)
    begun = by_one(replace(plain, train=replace(plain.train, epochs=EPOCHS - 2)))
    history = [asdict(record) for record in begun.records]
    checkpoint.write(path, checkpoint.pack(begun.state, {"kind": "training", "history": history}))
    keeper = ray.remote(num_cpus=0)(Drifting).remote(path, epochs=EPOCHS)
    wait_until_idle()
    ray.train.torch.TorchTrainer(
        train_worker,
        train_loop_config={"jobs": [plain], "keepers": [keeper], "shards": 2, "threads": 1},
        scaling_config=ray.train.ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        run_config=ray.train.RunConfig(name="drifting", storage_path=str(tmp_path)),
    ).fit()
    ray.get(keeper.check.remote())
    assert [r["epoch"] for r in checkpoint.read(path)[1]["history"]] == list(range(EPOCHS))
    ray.kill(keeper)


# --- the keeper, in this process ---------------------------------------------------------------------------------------


def test_a_full_disk_ends_training_with_the_path_and_keeps_the_last_epoch(tmp_path: Path) -> None:
    path = tmp_path / "training.safetensors"
    keeper = CheckpointKeeper(path, epochs=EPOCHS)
    first = [EpochRecord(0, 1.0, 1e-3, 2.0)]
    metadata = {"kind": "training", "history": [asdict(r) for r in first]}
    small = np.frombuffer(checkpoint.pack({"w": torch.zeros(4)}, metadata), np.uint8)
    keeper.save(small, first)
    large = np.frombuffer(checkpoint.pack({"w": torch.zeros(100_000)}, metadata), np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # the nearest that any user can come to a full disk
    try:
        with pytest.raises(OSError, match=r"training\.safetensors"):
            keeper.save(large, [*first, EpochRecord(1, 0.5, 1e-3, 2.0)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with pytest.raises(OSError, match=r"training\.safetensors"):
        keeper.check()
    assert CheckpointKeeper(path, epochs=EPOCHS).records == first  # what --resume finds
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_nodes_whose_end_is_announced_are_no_failure(tmp_path: Path) -> None:
    """As those of spot instances: they may go as often as they will."""
    keeper = CheckpointKeeper(tmp_path / "training.safetensors", epochs=EPOCHS)
    assert all(keeper.begin(rank, "node", None) for rank in (0, 1, 2))
    within = {"step": 5, "totals": [[1.0, 2.0]], "skipped": 0, "seconds": 1.0}
    metadata = {"kind": "training", "history": [], "within": within}
    keeper.save(np.frombuffer(checkpoint.pack({"w": torch.zeros(4)}, metadata), np.uint8), [], 5, notice=True)
    assert keeper.lost(["Connection reset by peer"], 0)
    assert keeper.begin(1, "node", None)
    assert keeper.begin(0, "node", None)
    assert keeper.said == [
        "a node of the training will be taken away; all up to step 6 of epoch 1 is saved",
        "nodes of the training were taken away; it goes on from step 6 of epoch 1",
    ]
    assert keeper.losses == 0
    assert CheckpointKeeper(keeper.path, epochs=EPOCHS).kept_steps == 5  # also after the driver's end
    assert keeper.lost(["Connection reset by peer"], 3)
    assert keeper.said[-1].startswith("a training process was lost; training goes on from step 6 of epoch 1 (1 of 3): ")


@pytest.mark.parametrize(
    "reason",
    [
        "Task was killed due to the node running low on memory.\nMemory on the node was 15.2GB / 16.0GB (0.95)",
        "ray.exceptions.OutOfMemoryError: ...",
    ],
)
def test_lack_of_memory_that_ray_noticed_is_said_in_our_words_and_not_tried_again(reason: str, tmp_path: Path) -> None:
    keeper = CheckpointKeeper(tmp_path / "training.safetensors", epochs=EPOCHS)
    assert keeper.begin(0, "node", 3)
    assert not keeper.lost([reason], 3)
    with pytest.raises(UserError, match=r"lack of memory; lower train\.batch-size"):
        keeper.check()
    assert not keeper.begin(0, "node", 3)


def test_lack_of_memory_that_the_system_noticed_is_found_when_training_begins_again(tmp_path: Path) -> None:
    keeper = CheckpointKeeper(tmp_path / "training.safetensors", epochs=EPOCHS)
    assert all(keeper.begin(rank, "node", 3) for rank in (0, 1))
    assert keeper.lost(["the worker died: End of file"], 3)
    assert keeper.begin(0, "another node", 7)
    assert not keeper.begin(1, "node", 4)
    with pytest.raises(UserError, match=r"lack of memory; lower train\.batch-size"):
        keeper.check()


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), UserError, r"lower train\.batch-size"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), UserError, r"lower train\.batch-size"),
        (OSError(errno.ENOSPC, "No space left on device", "/cache/x"), OSError, "/cache/x"),
        (IndexError("list index out of range"), TrainingBugError, "IndexError: list index out of range"),
    ],
)
def test_what_would_happen_again_is_not_tried_again(error: Exception, kind: type[Exception], message: str) -> None:
    failure = lasting_failure(error)
    assert isinstance(failure, kind)
    assert re.search(message, str(failure))


@pytest.mark.parametrize(
    "text",
    [
        "[../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [192.0.2.2]:1",
        "DataLoader worker (pid 7) is killed by signal: Killed.",
    ],
)
def test_the_loss_of_another_process_is_no_bug(text: str) -> None:
    assert lasting_failure(RuntimeError(text)) is None
