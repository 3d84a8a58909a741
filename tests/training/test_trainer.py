"""One process's training: repeatable, resumable, with the published rules of decay and of the drawn subnets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from raysearch.spaces.autoformer import FAMILY, AutoFormerArchitecture, AutoFormerSpace, AutoFormerSupernet
from raysearch.tasks.images.classification import ImageClassification
from raysearch.training import checkpoint
from raysearch.training.config import TrainingConfig
from raysearch.training.supernets import build_supernet
from raysearch.training.trainer import SupernetTrainer, TrainingDivergedError

SPACE = AutoFormerSpace(embed_dim=(16, 24), num_heads=(1, 2), mlp_ratio=(1.0, 2.0), depth=(1, 2, 3))
SETTINGS: dict[str, Any] = {
    "img_size": 8,
    "patch_size": 4,
    "in_chans": 1,
    "num_classes": 3,
    "embed_dim": 24,
    "depth": 3,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "head_dim": 8,
    "max_relative_position": 1,
    "drop_path_rate": 0.2,
}
CONFIG = TrainingConfig(epochs=4, batch_size=6, lr=1e-2, warmup_lr=1e-3, warmup_epochs=1)


class TwoSteps:
    """Two steps an epoch, of noise whose mean tells the class."""

    steps_per_epoch = 2

    def __init__(self, *, batch_size: int = 6, scale: float = 1.0) -> None:
        self.batch_size, self.scale = batch_size, scale

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(epoch)
        for _ in range(self.steps_per_epoch):
            labels = torch.arange(self.batch_size) % 3
            noise = torch.randn(self.batch_size, 1, 8, 8, generator=generator)
            yield self.scale * (noise + labels.view(-1, 1, 1, 1)), labels


def trainer(config: TrainingConfig = CONFIG, *, batches: TwoSteps | None = None) -> SupernetTrainer[AutoFormerArchitecture]:
    supernet = build_supernet(FAMILY, SETTINGS, weight_init="xavier", pos_embed_std=0.02, seed=3)
    task = ImageClassification()
    return SupernetTrainer(
        supernet,
        SPACE,
        batches or TwoSteps(),
        config,
        task=task,
        outputs=3,
        undecayed=FAMILY.undecayed,
        seed=3,
        device=torch.device("cpu"),
    )


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, mixup=0.8, cutmix=1.0, archs_per_step=2, clip_grad=1.0)])
def test_a_resumed_training_is_bit_identical(config: TrainingConfig) -> None:
    """Through the bytes of a checkpoint, in the middle, with stochastic depth and Mixup drawing from global generators."""
    whole, first, second = trainer(config), trainer(config), trainer(config)
    records = [whole.train_epoch(epoch) for epoch in range(4)]
    halves = [first.train_epoch(epoch) for epoch in range(2)]
    tensors, _ = checkpoint.unpack(checkpoint.pack(first.state(), {}))
    torch.manual_seed(99)
    second.load_state(tensors)
    halves += [second.train_epoch(epoch) for epoch in (2, 3)]
    assert [(r.epoch, r.loss, r.lr) for r in records] == [(r.epoch, r.loss, r.lr) for r in halves]
    assert equal(whole.state(), second.state())
    assert any(name.startswith("optimizer/") and name.endswith("/exp_avg_sq") for name in tensors)


def test_training_learns() -> None:
    learner = trainer(replace(CONFIG, epochs=30, drop_path=0.0))
    losses = [learner.train_epoch(epoch).loss for epoch in range(30)]
    assert losses[-1] < 0.75 * losses[0]


def test_weight_decay_spares_what_the_recipe_spares() -> None:
    """Biases, norms, class token and position embedding rest; weights and relative-position tables are decayed."""
    one = trainer()
    names = {parameter: name for name, parameter in one.supernet.named_parameters()}
    decayed = {names[parameter]: group["weight_decay"] for group in one.optimizer.param_groups for parameter in group["params"]}
    assert decayed.keys() == set(names.values())
    rests = {name for name, decay in decayed.items() if decay == 0}
    assert rests == {name for name in decayed if name.endswith("bias") or "norm" in name or name in ("cls_token", "pos_embed")}
    assert set(decayed.values()) == {0.0, 0.05}
    assert decayed["blocks.0.attn.rel_pos_embed_k.embeddings_table_v"] == 0.05


def test_several_architectures_share_a_step() -> None:
    """Their gradients are averaged: with a space of one member, two draws are one."""
    only = AutoFormerSpace(embed_dim=(24,), num_heads=(2,), mlp_ratio=(2.0,), depth=(3,))
    results: list[dict[str, Tensor]] = []
    for count in (1, 2):
        one = trainer(replace(CONFIG, archs_per_step=count))
        one.space = only
        one.supernet.load_state_dict(trainer().supernet.state_dict())
        for block in one.supernet.blocks:  # pyright: ignore[reportGeneralTypeIssues]
            block.drop_path_rate = 0.0  # drawn for each architecture
        one.train_epoch(0)
        results.append(one.supernet.state_dict())
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=1e-4, atol=1e-4)


def test_a_block_that_is_not_drawn_rests_and_a_part_that_is_not_drawn_moves_with_decay() -> None:
    one = trainer(replace(CONFIG, weight_decay=0.5))
    assert isinstance(one.supernet, AutoFormerSupernet)
    one.space = AutoFormerSpace(embed_dim=(16,), num_heads=(1,), mlp_ratio=(1.0,), depth=(2,))
    before = {name: value.clone() for name, value in one.supernet.state_dict().items()}
    one.train_epoch(0)
    after = one.supernet.state_dict()
    unused = [name for name in before if name.startswith("blocks.2.")]
    assert unused
    assert all(torch.equal(before[name], after[name]) for name in unused)
    weight = "blocks.0.fc1.weight"  # columns 16 on belong to no drawn subnet
    shrunk = after[weight][:, 16:] / before[weight][:, 16:]
    torch.testing.assert_close(shrunk, torch.full_like(shrunk, shrunk.mean().item()))
    assert shrunk.mean() < 1


class Spoiled(TwoSteps):
    """Steps of which some are not finite."""

    def __init__(self, *spoiled: int, steps: int = 2) -> None:
        super().__init__()
        self.spoiled, self.steps_per_epoch = spoiled, steps

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for i, (images, labels) in enumerate(super().epoch(epoch)):
            yield images * (float("nan") if epoch * self.steps_per_epoch + i in self.spoiled else 1.0), labels


@pytest.mark.parametrize("clip_grad", [None, 1.0])
def test_a_step_that_is_not_finite_is_left_out_and_counted(clip_grad: float | None) -> None:
    """As if it had not been: weights, moments and the optimiser's step counts."""
    config = replace(CONFIG, clip_grad=clip_grad)
    spoiled, spared = trainer(config, batches=Spoiled(1)), trainer(config, batches=TwoSteps())
    record = spoiled.train_epoch(0)
    spared.batches.steps_per_epoch = 1  # pyright: ignore[reportAttributeAccessIssue]
    alone = spared.train_epoch(0)
    assert record.skipped == 1
    assert record.loss == alone.loss
    assert equal(spoiled.state(), spared.state())
    assert not spoiled.steady  # what comes may fail too: no epoch to go back to
    assert spoiled.train_epoch(1).skipped == 0
    assert spoiled.steady


def test_too_many_steps_in_a_row_that_are_not_finite_end_training_with_the_remedy() -> None:
    config = replace(CONFIG, max_skipped_steps=2)
    calm = trainer(config, batches=Spoiled(0, 1, 3, 4, steps=6))
    assert calm.train_epoch(0).skipped == 4
    wild = trainer(config, batches=Spoiled(4, 5, 6, steps=6))
    assert wild.train_epoch(0).skipped == 2
    with pytest.raises(TrainingDivergedError, match=r"3 training steps in a row, to epoch 2, .* lower train\.lr"):
        wild.train_epoch(1)
    with pytest.raises(TrainingDivergedError, match=r"no step of epoch 1 had a finite loss and gradient; .* lower train\.lr"):
        trainer(batches=TwoSteps(scale=float("inf"))).train_epoch(0)


def test_every_step_is_reported() -> None:
    done: list[int] = []
    trainer(batches=Spoiled(steps=3)).train_epoch(0, on_step=done.append)
    assert done == [1, 2, 3]


def test_mixup_refuses_an_odd_number_of_images() -> None:
    odd = trainer(replace(CONFIG, mixup=0.8), batches=TwoSteps(batch_size=5))
    with pytest.raises(ValueError, match=r"has 5 of them; choose a train\.batch-size"):
        odd.train_epoch(0)


def test_bfloat16_computes_in_less_and_keeps_float32_weights() -> None:
    exact, rounded = trainer(replace(CONFIG, precision="float32")), trainer(replace(CONFIG, precision="bfloat16"))
    losses = [one.train_epoch(0).loss for one in (exact, rounded)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert {value.dtype for value in rounded.supernet.state_dict().values()} == {torch.float32}
    assert trainer().train_epoch(0).loss == losses[0]  # auto on a CPU
