"""One subnet trained from scratch: the supernet's training step with a single architecture and weights that nobody shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from raysearch.nn.compiled import compile_blocks
from raysearch.space import Architecture
from raysearch.spaces import Family, Subnet, build_subnet
from raysearch.spaces.supernet import layers_below
from raysearch.store.summary import EpochRecord
from raysearch.tasks.task import Splits, Task
from raysearch.training.config import TrainingConfig
from raysearch.training.draws import Only
from raysearch.training.trainer import SupernetTrainer

A = TypeVar("A", bound=Architecture)


class Alone(nn.Module, Generic[A]):
    """A subnet called as the trainer calls a supernet.

    Args:
        subnet: the network.
        arch: what it was built from.

    """

    def __init__(self, subnet: Subnet, arch: A) -> None:
        super().__init__()
        self.subnet, self.arch = subnet, arch

        matcher: Any = getattr(subnet, "group_matcher", None)
        if matcher is not None:
            self.group_matcher = partial(layers_below, "subnet", matcher)

    def forward(self, images: Tensor, arch: A) -> Tensor:
        """The subnet's output."""
        assert arch == self.arch
        return self.subnet(images)


def network_to_train(
    family: Family[Any, Any],
    settings: Mapping[str, Any],
    arch: Architecture | None,
    *,
    train: TrainingConfig,
    seed: int,
    start: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """What a :class:`~raysearch.training.trainer.SupernetTrainer` trains, the same on every process.

    Args:
        family: of the network.
        settings: constructor arguments of the supernet.
        arch: the one subnet that is trained; None: the supernet.
        train: how fresh weights are drawn.
        seed: of fresh weights.
        start: weights to begin with, all of them, under the names of the supernet or of the subnet; None: fresh ones.

    """
    network: Any = family.supernet(**settings) if arch is None else build_subnet(family, settings, arch.to_dict())
    if start is None:
        generator = torch.Generator().manual_seed(seed)
        network.reset_parameters(weight_init=train.weight_init, pos_embed_std=train.pos_embed_std, generator=generator)
    else:
        network.load_state_dict(dict(start))
    if arch is None:
        return network
    if train.compile:
        compile_blocks(network)
    return Alone(network, arch)


def shortened(config: TrainingConfig, epochs: int) -> TrainingConfig:
    """The same schedule in other epochs: warm-up keeps its share of them."""
    return replace(config, epochs=epochs, warmup_epochs=config.warmup_epochs * epochs / config.epochs)


def phases(config: TrainingConfig) -> tuple[TrainingConfig | None, TrainingConfig]:
    """The schedule as two: of the largest subnet alone for ``largest_first`` of the epochs, then of all subnets.

    Each warms up and cools down by itself; choices widen over as many epochs as before. None: no whole epoch is the largest's.
    """
    first = round(config.largest_first * config.epochs)
    if not 0 < first < config.epochs:
        return None, config
    rest = shortened(config, config.epochs - first)
    widen = min(config.widen * config.epochs / rest.epochs, 1 - 1e-9)
    return for_one(shortened(config, first)), replace(rest, largest_first=0.0, widen=widen)


def for_one(config: TrainingConfig) -> TrainingConfig:
    """The same training of a single architecture: without what says which architectures a step trains, and who teaches them.

    What a teacher's labels count stays; it is given to the trainer.
    """
    return replace(
        config,
        strategy="single-path",
        archs_per_step=1,
        largest_first=0.0,
        widen=0.0,
        draw_from="space",
        arch_per_rank=False,
        distill=replace(config.distill, source="none", weight=config.distill.share),
    )


def train_alone(
    family: Family[Any, Any],
    settings: Mapping[str, Any],
    arch: Architecture,
    splits: Splits,
    *,
    train: TrainingConfig,
    task: Task,
    seed: int,
    device: torch.device,
    start: Mapping[str, Tensor] | None = None,
    on_epoch: Callable[[EpochRecord], None] = lambda _: None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Subnet:
    """Train ``arch``, from fresh weights of its own or from given ones; returns it in training mode on ``device``.

    What an update does, its images per step and the learning rate of each are those of supernet training; stochastic depth of
    a block is that of the supernet's block at its place.

    Args:
        family: of the network.
        settings: constructor arguments of the supernet.
        arch: the subnet.
        splits: of the data set; only ``train`` is read.
        train: the recipe's numbers.
        task: gives batches and the loss.
        seed: of initial weights, order of the images and augmentation.
        device: where to compute.
        start: weights to begin with, under the subnet's own names; None: fresh ones.
        on_epoch: called after every epoch.
        on_step: called after every step with the number of those done, and of all.

    Raises:
        TrainingDivergedError: the loss is no longer finite.

    """
    network = network_to_train(family, settings, arch, train=train, seed=seed, start=start).to(device)
    assert isinstance(network, Alone)
    batches = task.batches(splits.train, batch_size=train.batch_size, seed=seed, workers=train.loader_workers)
    trainer = SupernetTrainer(
        network,
        Only(arch),
        batches,
        for_one(train),
        task=task,
        outputs=task.ends(splits).outputs,
        seed=seed,
        device=device,
        undecayed=family.undecayed,
    )
    for epoch in range(train.epochs):
        before, total = epoch * batches.steps_per_epoch, train.epochs * batches.steps_per_epoch
        on_epoch(trainer.train_epoch(epoch, on_step=partial(_count, on_step, before, total)))
    return network.subnet


def _count(on_step: Callable[[int, int], None], before: int, total: int, step: int) -> None:
    on_step(before + step, total)
