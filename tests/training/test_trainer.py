"""One process's training: repeatable, resumable, with the published rules of decay and of the drawn subnets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raysearch.spaces.autoformer import FAMILY, AutoFormerArchitecture, AutoFormerSpace, AutoFormerSupernet
from raysearch.tasks.images.classification import ImageClassification
from raysearch.training import checkpoint
from raysearch.training.config import DistillConfig, TrainingConfig
from raysearch.training.supernets import build_supernet
from raysearch.training.trainer import SupernetTrainer, TrainingDivergedError, Within, trained

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

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(start, self.steps_per_epoch):
            labels = torch.arange(self.batch_size) % 3
            generator = torch.Generator().manual_seed(100 * epoch + step)
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
        cost=supernet.cost,
    )


def plainly(config: TrainingConfig, *, epochs: int) -> dict[str, Tensor]:
    """The published step in a plain loop: one architecture after the other on all images, drawn by seed and step."""
    one = trainer(config)  # for its weights and its groups of parameters
    network, optimizer, batches = one.supernet, one.optimizer, TwoSteps()
    for epoch in range(epochs):
        network.train()
        for i, (images, labels) in enumerate(batches.epoch(epoch)):
            step = 2 * epoch + i
            chance = Random(f"3/augment/{step}/0")
            torch.manual_seed(chance.getrandbits(63))
            np.random.seed(chance.getrandbits(32))  # noqa: NPY002
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate(step, steps_per_epoch=2)
            optimizer.zero_grad()
            inputs, targets = (images, labels) if one.mix is None else one.mix(images, labels)
            for k in range(config.archs_per_step):
                arch = SPACE.sample(Random(f"3/train/{step}/{k}"))
                loss = one.task.loss(network(inputs, arch), targets, label_smoothing=0.1) / config.archs_per_step
                loss.backward()
            if config.clip_grad is not None:
                torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_grad)
            optimizer.step()
    return one.state()


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, mixup=0.8, cutmix=1.0, archs_per_step=3, clip_grad=1.0)])
def test_single_path_is_the_published_step_bit_for_bit(config: TrainingConfig) -> None:
    one = trainer(config)
    for epoch in range(3):
        one.train_epoch(epoch)
    assert equal(one.state(), plainly(config, epochs=3))


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


LARGEST = DistillConfig("largest")


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        replace(CONFIG, mixup=0.8, cutmix=1.0, archs_per_step=2, clip_grad=1.0),
        replace(CONFIG, strategy="sandwich", distill=LARGEST, ema=0.99, largest_first=0.2, widen=0.5),
        replace(CONFIG, strategy="multi", archs_per_step=3, ema=0.9, micro_batch=1, arch_per_rank=True),
        replace(CONFIG, distill=replace(LARGEST, loss="alpha", weight=0.5), micro_batch=4),
        replace(CONFIG, precision="float16", clip_grad=1.0),
    ],
)
def test_a_resumed_training_is_bit_identical(config: TrainingConfig) -> None:
    """Through the bytes of a checkpoint, in the middle of an epoch, where stochastic depth and Mixup draw."""
    whole, first, second = trainer(config), trainer(config), trainer(config)
    records = [whole.train_epoch(epoch) for epoch in range(4)]
    kept: list[bytes] = []

    def keep(within: Within) -> None:
        kept.append(checkpoint.pack(first.state(), {"within": asdict(within)}))

    halves = [first.train_epoch(epoch) for epoch in range(2)]
    first.train_epoch(2, wanted=lambda step: step == 1, keep=keep)
    (content,) = kept
    tensors, metadata = checkpoint.unpack(content)
    begun = Within.read(metadata["within"])
    assert begun.step == 1
    torch.manual_seed(99)
    second.load_state(tensors)
    halves += [second.train_epoch(2, begun=begun), second.train_epoch(3)]
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
        one.strategy.draws = only
        one.supernet.load_state_dict(trainer().supernet.state_dict())
        for block in one.supernet.blocks:  # pyright: ignore[reportGeneralTypeIssues]
            block.drop_path_rate = 0.0  # drawn for each architecture
        one.train_epoch(0)
        results.append(one.supernet.state_dict())
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        replace(CONFIG, strategy="sandwich", distill=LARGEST),
        replace(CONFIG, strategy="multi", archs_per_step=2, mixup=0.8),
        replace(CONFIG, distill=replace(LARGEST, weight=0.5), clip_grad=1.0),
    ],
)
@pytest.mark.parametrize("size", [1, 4])
def test_images_per_forward_pass_change_nothing_but_rounding(config: TrainingConfig, size: int) -> None:
    """Stochastic depth included: a part of a batch drops what it would drop in the whole."""
    whole, parts = trainer(config), trainer(replace(config, micro_batch=size))
    images, labels = next(iter(TwoSteps().epoch(0)))
    losses: list[Tensor] = []
    for one in (whole, parts):
        one.supernet.train()
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002
        losses.append(one.step(images.clone(), labels, step=0, lr=1e-3)[0])  # Mixup writes into them
        losses.append(torch.rand(1))  # later steps draw the same
    torch.testing.assert_close(losses[2:], losses[:2])
    for (name, parameter), (_, other) in zip(whole.supernet.named_parameters(), parts.supernet.named_parameters(), strict=True):
        assert (parameter.grad is None) == (other.grad is None), name
        if parameter.grad is not None:
            torch.testing.assert_close(other.grad, parameter.grad, rtol=1e-4, atol=1e-6)


class Seen(torch.nn.Module):
    """A network that remembers which architectures it computed, with gradients or without."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network
        self.calls: list[tuple[AutoFormerArchitecture, bool, int]] = []

    def forward(self, images: Tensor, arch: AutoFormerArchitecture) -> Tensor:
        self.calls.append((arch, torch.is_grad_enabled(), len(images)))
        return self.network(images, arch)


def step_of(config: TrainingConfig, *, teacher: Any = None) -> tuple[Seen, Tensor]:
    """One step on the first batch: what the network computed, and the loss."""
    seen = Seen(build_supernet(FAMILY, SETTINGS, weight_init="xavier", pos_embed_std=0.02, seed=3))
    batches = TwoSteps()
    one = SupernetTrainer(
        seen,
        SPACE,
        batches,
        config,
        task=ImageClassification(),
        outputs=3,
        seed=3,
        device=torch.device("cpu"),
        cost=seen.network.cost,  # pyright: ignore[reportArgumentType, reportCallIssue]
        teacher=teacher,
    )
    seen.network.train()
    images, labels = next(iter(batches.epoch(0)))
    loss, bad = one.step(images, labels, step=0, lr=1e-3)
    assert not bad
    return seen, loss


def test_the_largest_teaches_in_a_sandwich_as_it_learns_and_elsewhere_beside_it() -> None:
    sandwich, _ = step_of(replace(CONFIG, strategy="sandwich", archs_per_step=2, distill=LARGEST))
    assert [with_gradients for _, with_gradients, _ in sandwich.calls] == [True] * 4
    single, _ = step_of(replace(CONFIG, distill=LARGEST))
    assert [(arch == SPACE.largest(), grads) for arch, grads, _ in single.calls] == [(True, False), (False, True)]
    first, _ = step_of(replace(CONFIG, distill=LARGEST, largest_first=0.5))
    assert [(arch == SPACE.largest(), grads) for arch, grads, _ in first.calls] == [(True, True)]  # nobody to teach


def test_a_sandwich_is_taught_by_the_outputs_of_the_largest() -> None:
    """By hand: labels for the largest, its outputs as soft labels, without gradients, for the others; the mean of all."""
    config = replace(CONFIG, strategy="sandwich", distill=replace(LARGEST, temperature=2.0))
    seen, loss = step_of(config)
    network = build_supernet(FAMILY, SETTINGS, weight_init="xavier", pos_embed_std=0.02, seed=3).train()
    for block in (*seen.network.blocks, *network.blocks):  # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]
        block.drop_path_rate = 0.0
    torch.manual_seed(0)
    images, labels = next(iter(TwoSteps().epoch(0)))
    largest, middle, smallest = (network(images, arch) for arch, _, _ in seen.calls)
    soft = (largest.detach() / 2).softmax(1)
    total = torch.nn.functional.cross_entropy(largest, labels, label_smoothing=0.1)
    for logits in (middle, smallest):
        total = total + 4 * (soft * (soft.log() - (logits / 2).log_softmax(1))).sum(1).mean()
    (total / 3).backward()
    assert abs(loss - total.detach() / 3) < 0.2  # stochastic depth was on
    gradients = {name: p.grad for name, p in network.named_parameters()}
    quiet = trainer(config)
    for block in quiet.supernet.blocks:  # pyright: ignore[reportGeneralTypeIssues]
        block.drop_path_rate = 0.0
    exact, _ = quiet.step(images, labels, step=0, lr=1e-3)
    torch.testing.assert_close(exact, total.detach() / 3)
    for name, parameter in quiet.supernet.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradients[name])


def test_another_teacher_sees_what_the_network_sees_and_counts_for_its_share() -> None:
    asked: list[Tensor] = []

    def teacher(images: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        asked.append(images)
        return 5 * torch.nn.functional.one_hot(torch.zeros(len(images), dtype=torch.int64), 3).float()

    step_of(replace(CONFIG, mixup=0.8), teacher=teacher)
    images, labels = next(iter(TwoSteps().epoch(0)))
    assert len(asked) == 1
    assert not torch.equal(asked[0], images)  # mixed ones
    losses: list[Tensor] = []
    for weight in (0.0, 1.0, 0.25):
        torch.manual_seed(0)  # of stochastic depth
        losses.append(step_of(replace(CONFIG, distill=DistillConfig(weight=weight)), teacher=teacher)[1])
    assert abs(losses[0] - losses[1]) > 0.01
    torch.testing.assert_close(losses[2], 0.75 * losses[0] + 0.25 * losses[1])
    assert len(labels) == len(asked[-1])


def test_a_moving_average_trails_the_weights_and_is_what_the_training_is_for() -> None:
    plain, averaged = trainer(), trainer(replace(CONFIG, ema=0.5))
    name = "blocks.0.fc1.weight"
    passed: list[Tensor] = []

    def remember(_: int) -> None:
        passed.append(averaged.supernet.state_dict()[name].clone())

    for epoch in range(2):
        plain.train_epoch(epoch)
        averaged.train_epoch(epoch, on_step=remember)
    state = averaged.state()
    assert equal({name: state[name] for name in plain.state()}, plain.state())  # the training itself is the same
    assert equal(trained(plain.state()), dict(plain.supernet.state_dict()))
    expected = passed[0]
    for step, weights in enumerate(passed[1:], start=1):
        decay = min(0.5, 1 - (1 + step) ** (-2 / 3))  # of timm's warm-up
        expected = decay * expected + (1 - decay) * weights
    torch.testing.assert_close(trained(state)[name], expected)
    assert not torch.equal(trained(state)[name], passed[-1])


def test_a_block_that_is_not_drawn_rests_and_a_part_that_is_not_drawn_moves_with_decay() -> None:
    one = trainer(replace(CONFIG, weight_decay=0.5))
    assert isinstance(one.supernet, AutoFormerSupernet)
    one.strategy.draws = AutoFormerSpace(embed_dim=(16,), num_heads=(1,), mlp_ratio=(1.0,), depth=(2,))
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

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for i, (images, labels) in enumerate(super().epoch(epoch, start), start):
            yield images * (float("nan") if epoch * self.steps_per_epoch + i in self.spoiled else 1.0), labels


@pytest.mark.parametrize("clip_grad", [None, 1.0])
def test_a_step_that_is_not_finite_is_left_out_and_counted(clip_grad: float | None) -> None:
    """As if it had not been: weights, moments and the optimiser's step counts."""
    config = replace(CONFIG, clip_grad=clip_grad)
    whole = TwoSteps()
    spoiled, spared = trainer(config, batches=Spoiled(1)), trainer(config, batches=whole)
    record = spoiled.train_epoch(0)
    whole.steps_per_epoch = 1
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


def test_float16_scales_its_loss_and_skips_what_the_scale_makes_too_large() -> None:
    """From the scale with which torch begins, lowered by each step that overflows, to steps like those of float32."""
    half = trainer(replace(CONFIG, precision="float16"), batches=Spoiled(steps=24))
    exact = trainer(CONFIG, batches=Spoiled(steps=24))
    scale = 2.0**26
    half.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    skipped = half.train_epoch(0).skipped
    assert 0 < skipped < 24
    assert half.scaler.get_scale() == scale / 2**skipped
    assert half.steady
    lost = trainer(replace(CONFIG, precision="float16"), batches=TwoSteps())
    images, labels = next(iter(TwoSteps().epoch(0)))
    for one in (lost, exact):
        one.supernet.train()
        torch.manual_seed(0)
        one.step(images, labels, step=0, lr=1e-3)
    for (name, parameter), (_, other) in zip(lost.supernet.named_parameters(), exact.supernet.named_parameters(), strict=True):
        if parameter.grad is not None:
            assert other.grad is not None
            torch.testing.assert_close(parameter.grad, other.grad, rtol=0.05, atol=2e-3, msg=name)
    assert {value.dtype for name, value in half.supernet.state_dict().items()} == {torch.float32}
