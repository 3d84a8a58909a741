"""Settings that follow from data, budget and machine where the user gave none: they end in minutes or hours, not in days."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from raysearch.recipes.recipe import Recipe
from raysearch.space import Constraint
from raysearch.tasks.task import Splits
from raysearch.training.config import TrainingConfig

SMALL = 3e6
"""Parameters below which networks are trained as small ones: other initial weights, no stochastic depth."""
MOST_EPOCHS = 300
"""Epochs that a fitted recipe trains at most."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a search may use: of one machine, or of a cluster."""

    cores: int
    gpus: int
    memory_bytes: int
    """Free memory of the node that the search starts on."""

    def __str__(self) -> str:
        """As people say it: ``2 cores`` or ``8 GPUs``."""
        count, name = (self.gpus, "GPU") if self.gpus else (self.cores, "core")
        return f"{count} {name}{'' if count == 1 else 's'}"


def fitted_recipe(recipe: Recipe[Any, Any], splits: Splits, machine: Machine, given: Collection[str]) -> Recipe[Any, Any]:
    """``recipe`` with everything that is not ``given`` fitted to data, budget and machine; epochs as if time did not count.

    Args:
        recipe: with the budget asked for.
        splits: of its task.
        machine: that it will run on.
        given: names of the settings that the user gave, as ``train.epochs``; these stay.

    """
    task = recipe.task.fitted(splits, accelerated=machine.gpus > 0, given=given)
    images = len(splits.train)
    budget = _budget(recipe, images, machine, given)
    ends = task.ends(splits)
    config = recipe.config
    if recipe.family.fitted is not None:
        config = recipe.family.fitted(config, ends, _sizing(budget, images, machine), given)
    geometry = recipe.family.build(config, ends)
    asked = any(name.startswith("constraint.") for name in given)
    if not asked and budget.exceeded_by(geometry.cost(geometry.space.smallest())):
        budget = Constraint()  # the space was given, as by a supernet's file, and nobody asked for less than it has
    small = geometry.cost(geometry.space.largest()).params < SMALL
    train = fitted_training(recipe.train, images, machine, given, small=small)
    return replace(recipe, task=task, config=config, constraint=budget, train=train)


def _budget(recipe: Recipe[Any, Any], images: int, machine: Machine, given: Collection[str]) -> Constraint:
    """The limits given; where there are none, those of networks whose sizes follow from the machine."""
    names = {name.partition(".")[2] for name in given if name.startswith("constraint.")}
    if names:
        return Constraint(**{name: getattr(recipe.constraint, name) for name in names})
    return Constraint() if recipe.family.fitted is None else _affordable(images, machine)


def _sizing(budget: Constraint, images: int, machine: Machine) -> Constraint:
    """What the space is made around: the budget, unless it says nothing of sizes, as a limit on latency alone."""
    sizes = (budget.min_params, budget.max_params, budget.min_macs, budget.max_macs)
    return budget if any(sizes) else _affordable(images, machine)


def _affordable(images: int, machine: Machine) -> Constraint:
    """As many parameters as so many images can teach and the machine can train."""
    if not machine.gpus:
        return Constraint(max_params=1e6 if images < 20_000 else 2e6)
    return Constraint(max_params=3e6 if images < 10_000 else 6e6)


def fitted_training(
    asked: TrainingConfig, images: int, machine: Machine, given: Collection[str], *, small: bool
) -> TrainingConfig:
    """The training with everything that is not ``given`` fitted to so many images and the machine.

    ``small``: the networks are, which begin with other weights and need no stochastic depth.
    """
    _, most = asked.worker_range or (1, machine.gpus or min(2, machine.cores))
    batch = asked.batch_size
    if "train.batch_size" not in given:
        # About thirty steps an epoch, so that a small set is still seen in steps that are worth one.
        batch = min(1024 if machine.gpus else 256, max(64, 2 ** round(math.log2(max(1, images / 30)))))
        shards = asked.shards or (most if machine.gpus else max(2, most))
        batch = max(1, round(batch / (2 * shards))) * 2 * shards  # every part of a step gets an even number
    mixes = 0.0 if images < 100_000 else None
    chosen = {
        "batch_size": batch,
        "epochs": min(MOST_EPOCHS, asked.epochs),
        "lr": 1e-3 * math.sqrt(max(1.0, batch / 128)),
        "warmup_lr": 1e-5,
        "weight_init": "xavier" if small else "trunc_normal",
        "pos_embed_std": 0.2 if small else 0.02,
        "drop_path": 0.0 if small else 0.1,
        "mixup": 0.8 if mixes is None else mixes,
        "cutmix": 1.0 if mixes is None else mixes,
    }
    fresh = {name: value for name, value in chosen.items() if f"train.{name}" not in given}
    return with_epochs(replace(asked, warmup_epochs=0, **fresh), int(fresh.get("epochs", asked.epochs)), given, asked=asked)


def with_epochs(train: TrainingConfig, epochs: int, given: Collection[str], *, asked: TrainingConfig) -> TrainingConfig:
    """The training over so many epochs, a tenth of them for warm-up unless that was given (in ``asked``)."""
    warmup = asked.warmup_epochs if "train.warmup_epochs" in given else max(1.0, round(epochs / 10, 1)) if epochs > 1 else 0.0
    return replace(train, epochs=epochs, warmup_epochs=warmup)
