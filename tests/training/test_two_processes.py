"""Trainers of several processes, without Ray: the same by any number, weights that they divide, architectures of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from raysearch.errors import SettingError
from raysearch.recipes.autoformer import DIGITS_RECIPE
from raysearch.spaces.autoformer import FAMILY, AutoFormerSpace
from raysearch.tasks.images.classification import ImageClassification
from raysearch.tasks.task import Batches
from raysearch.training import checkpoint
from raysearch.training.config import DistillConfig, TrainingConfig
from raysearch.training.shards import Shards
from raysearch.training.supernets import build_supernet
from raysearch.training.trainer import SupernetTrainer, Within

SPACE = AutoFormerSpace(embed_dim=(16, 24), num_heads=(1, 2), mlp_ratio=(1.0, 2.0), depth=(1, 2, 3))
SETTINGS: dict[str, Any] = {
    **{"img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 3, "embed_dim": 24, "depth": 3, "num_heads": 2},
    **{"mlp_ratio": 2.0, "head_dim": 8, "max_relative_position": 1, "drop_path_rate": 0.0},
}
DIVIDED = TrainingConfig(
    **{"epochs": 2, "batch_size": 12, "lr": 1e-3, "warmup_epochs": 0, "strategy": "sandwich", "clip_grad": 1.0},  # pyright: ignore
    distill=DistillConfig("largest"),
    micro_batch=4,
    ema=0.5,
    fsdp=True,
)
SHARED = TrainingConfig(
    **{"epochs": 2, "batch_size": 48, "lr": 1e-3, "warmup_epochs": 0, "mixup": 0.8, "drop_path": 0.3},  # pyright: ignore
    strategy="multi",
    archs_per_step=2,
)
APART = TrainingConfig(epochs=1, batch_size=12, lr=1e-3, warmup_epochs=0, archs_per_step=3, arch_per_rank=True)


SPLITS = DIGITS_RECIPE.task.splits()


class Noise:
    """Two steps an epoch, of which each of two processes has every other image."""

    steps_per_epoch = 2

    def __init__(self, rank: int, world_size: int) -> None:
        self.mine = slice(rank, None, world_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(start, self.steps_per_epoch):
            generator = torch.Generator().manual_seed(10 * epoch + step)
            labels = torch.arange(12) % 3
            images = torch.randn(12, 1, 8, 8, generator=generator) + labels.view(-1, 1, 1, 1)
            yield images[self.mine], labels[self.mine]


def digits(shard: int) -> Batches:
    """Of one of three shards, shifted by chance."""
    return DIGITS_RECIPE.task.batches(SPLITS.train.subset(range(96)), batch_size=16, seed=3, rank=shard, world_size=3)


def trainer(config: TrainingConfig, rank: int = 0, world_size: int = 1, *, dealt: bool = False) -> SupernetTrainer[Any]:
    settings = SETTINGS if not dealt else {**SETTINGS, "num_classes": 10, "drop_path_rate": config.drop_path}
    supernet = build_supernet(FAMILY, settings, weight_init="xavier", pos_embed_std=0.02, seed=3)

    def parallel(network: torch.nn.Module) -> torch.nn.Module:
        return DistributedDataParallel(network, find_unused_parameters=True)

    return SupernetTrainer(
        supernet,
        SPACE,
        Shards.dealt(digits, of=3, rank=rank, world_size=world_size) if dealt else Noise(rank, world_size),
        config,
        task=ImageClassification(),
        outputs=settings["num_classes"],
        undecayed=FAMILY.undecayed,
        seed=3,
        device=torch.device("cpu"),
        rank=rank,
        parallel=parallel if world_size > 1 else None,
        cost=supernet.cost,
    )


def train_here(rank: int, folder: Path) -> None:
    """What each of two processes does: what it has in the end is in the folder."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    first, second = trainer(DIVIDED, rank, 2), trainer(DIVIDED, rank, 2)
    held = sum(p.to_local().numel() for p in first.supernet.parameters())  # pyright: ignore
    first.train_epoch(0)
    state = first.state()
    if rank == 0:
        checkpoint.write(folder / "half", checkpoint.pack(state, {}))
    torch.distributed.barrier()
    second.load_state(checkpoint.read(folder / "half")[0])  # as a resumed training does
    losses = [one.train_epoch(1).loss for one in (first, second)]
    states = [first.state(), second.state()]
    apart = trainer(APART, rank, 2)
    apart.train_epoch(0)
    train_shared(rank, folder)
    torch.save({"held": held, "losses": losses, "states": states, "apart": apart.supernet.state_dict()}, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def ended(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    torch.multiprocessing.spawn(train_here, args=(folder,), nprocs=2)
    first, second = (torch.load(folder / f"{rank}.pt") for rank in (0, 1))
    return first, second


def test_processes_that_divide_the_weights_train_as_one_and_resume_from_whole_ones(ended: Any) -> None:
    alone = trainer(replace(DIVIDED, fsdp=False))
    loss = [alone.train_epoch(epoch).loss for epoch in (0, 1)][-1]
    whole, others = ended[0]["states"], ended[1]["states"]
    assert others == [{}, {}]  # the first process has it all
    parameters = sum(p.numel() for p in alone.supernet.parameters())
    assert 0.4 * parameters < ended[1]["held"] <= ended[0]["held"] < 0.65 * parameters
    assert ended[0]["losses"] == pytest.approx([loss] * 2, rel=1e-4)
    assert ended[0]["losses"][0] == ended[0]["losses"][1]
    expected = alone.state()
    assert whole[0].keys() == expected.keys()
    assert all(torch.equal(whole[0][name], whole[1][name]) for name in expected)
    for name, value in expected.items():
        assert whole[0][name].shape == value.shape
        if name.endswith("exp_avg"):
            torch.testing.assert_close(whole[0][name], value, rtol=1e-2, atol=1e-5, msg=name)
        if name.startswith(("model/", "ema/")):  # Adam moves what is rounding and nothing else by up to a step
            torch.testing.assert_close(whole[0][name], value, rtol=0, atol=5e-3, msg=name)
    trainer(replace(DIVIDED, fsdp=False)).load_state(whole[0])  # and one process can go on with it


def test_architectures_of_each_rank_leave_equal_weights(ended: Any) -> None:
    """Of blocks too that one process alone used."""
    first, second = (each["apart"] for each in ended)
    assert all(torch.equal(first[name], second[name]) for name in first)
    alike = trainer(replace(APART, arch_per_rank=False))
    alike.train_epoch(0)
    assert any(float((value - first[name]).abs().max()) > 1e-4 for name, value in alike.supernet.state_dict().items())


def train_shared(rank: int, folder: Path) -> None:
    """Two epochs, of which the second goes on in its middle by what was kept there."""
    first, second = trainer(SHARED, rank, 2, dealt=True), trainer(SHARED, rank, 2, dealt=True)
    kept: list[Within] = []

    def keep(within: Within) -> None:
        kept.append(within)
        if rank == 0:
            checkpoint.write(folder / "kept", checkpoint.pack(first.state(), {"within": asdict(within)}))

    records = [first.train_epoch(0), first.train_epoch(1, wanted=lambda step: step == 1, keep=keep)]
    torch.distributed.barrier()
    second.load_state(checkpoint.read(folder / "kept")[0])
    again = second.train_epoch(1, begun=kept[0]).loss
    if rank == 0:
        metadata = {"losses": [record.loss for record in records], "again": again}
        checkpoint.write(folder / "end", checkpoint.pack(first.state(), metadata))
        checkpoint.write(folder / "end again", checkpoint.pack(second.state(), {}))


def test_any_number_of_processes_trains_alike_and_goes_on_with_what_others_kept(ended: Any, folder: Path) -> None:
    """To rounding, which Adam enlarges: the first has two of three shards; shifts, depth and Mixup draw for each of them."""
    alone = trainer(SHARED, dealt=True)
    losses = [alone.train_epoch(epoch).loss for epoch in (0, 1)]
    state, metadata = checkpoint.read(folder / "end")
    assert metadata["losses"] == pytest.approx(losses, abs=5e-5)
    assert metadata["again"] == metadata["losses"][1]
    again, _ = checkpoint.read(folder / "end again")
    assert all(torch.equal(value, again[name]) for name, value in state.items())
    close_to(state, alone.state())

    tensors, metadata = checkpoint.read(folder / "kept")
    other = trainer(SHARED, dealt=True)
    other.load_state(tensors)
    assert other.train_epoch(1, begun=Within.read(metadata["within"])).loss == pytest.approx(losses[1], abs=5e-5)
    close_to(other.state(), alone.state())


def close_to(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Adam moves what is rounding and nothing else by up to a step."""
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        if name.endswith("exp_avg"):
            torch.testing.assert_close(state[name], value, rtol=1e-2, atol=1e-5, msg=name)
        if name.startswith("model/"):
            torch.testing.assert_close(state[name], value, rtol=0, atol=5e-3, msg=name)


@pytest.mark.parametrize(("name", "value"), [("arch_per_rank", True), ("precision", "float16")])
def test_what_would_have_processes_wait_for_each_other_for_ever_is_refused(name: str, value: Any) -> None:
    with pytest.raises(SettingError, match="does not go with fsdp"):
        replace(TrainingConfig(fsdp=True), **{name: value})
