"""Settings that follow from images, budget and machine where none were given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raysearch.recipes import RECIPES
from raysearch.recipes.fitted import Machine, fitted_recipe
from raysearch.space import Constraint
from raysearch.tasks import Splits
from raysearch.tasks.images.images import ArrayImages

RECIPE = RECIPES["images"][1]
LAPTOP = Machine(cores=2, gpus=0, memory_bytes=8 << 30)
GPUS = Machine(cores=64, gpus=8, memory_bytes=256 << 30)


def splits(images: int, *, side: int, classes: int = 9) -> Splits:
    def part(count: int) -> ArrayImages:
        return ArrayImages(np.zeros((count, 3, side, side), np.uint8), np.arange(count) % classes)

    held_out = part(max(classes, images // 10))
    return Splits(part(images), held_out, held_out, held_out, classes=tuple(map(str, range(classes))))


@pytest.mark.parametrize("side", [20, 64, 300])
@pytest.mark.parametrize("images", [100, 1_800, 5_000])
@pytest.mark.parametrize("machine", [LAPTOP, GPUS])
def test_a_network_and_its_training_fit_the_images(images: int, side: int, machine: Machine) -> None:
    found = fitted_recipe(RECIPE, splits(images, side=side), machine, ())
    size = found.task.dataset.img_size
    assert size <= max(32, side)
    assert machine.gpus or size <= 48
    assert found.train.batch_size % (2 * (machine.gpus or 2)) == 0
    assert found.train.warmup_epochs < found.train.epochs
    assert found.task.augment.rand_augment is None
    geometry = found.family.build(found.config, found.task.ends(splits(images, side=side)))
    assert found.constraint.max_params is not None
    assert not found.constraint.exceeded_by(geometry.cost(geometry.space.smallest()))


def test_a_budget_decides_the_space() -> None:
    asked = replace(RECIPE, constraint=Constraint(min_params=5e6, max_params=2e5))  # the recipe's minimum, the user's maximum
    found = fitted_recipe(asked, splits(1000, side=64), LAPTOP, ("constraint.max_params",))
    assert found.constraint == Constraint(max_params=2e5)
    geometry = found.family.build(found.config, found.task.ends(splits(1000, side=64)))
    assert geometry.cost(geometry.space.largest()).params < 4e5


@pytest.mark.parametrize(
    ("limits", "given"),
    [(Constraint(max_latency_ms=20), "constraint.max_latency_ms"), (Constraint(min_params=0), "constraint.min_params")],
)
def test_a_budget_that_says_nothing_of_sizes_leaves_them_to_the_machine(limits: Constraint, given: str) -> None:
    found = fitted_recipe(replace(RECIPE, constraint=limits), splits(1000, side=64), LAPTOP, (given,))
    assert found.constraint == limits
    usual = fitted_recipe(RECIPE, splits(1000, side=64), LAPTOP, ())
    assert found.config == usual.config


def test_nobody_elses_family_gets_a_budget_that_was_not_asked_for() -> None:
    own = replace(RECIPE, family=replace(RECIPE.family, fitted=None))
    assert fitted_recipe(own, splits(1000, side=64), LAPTOP, ()).constraint == Constraint()


def test_a_space_that_was_given_is_not_shut_out_by_a_budget_that_was_not() -> None:
    published = ("space.embed_dim", "space.depth", "space.num_heads", "space.mlp_ratio")
    found = fitted_recipe(RECIPE, splits(1000, side=64), LAPTOP, published)
    assert found.config.space == RECIPE.config.space
    assert found.constraint == Constraint()


def test_what_was_given_stays() -> None:
    asked = replace(
        RECIPE,
        task=replace(RECIPE.task, dataset=replace(RECIPE.task.dataset, img_size=96)),
        train=replace(RECIPE.train, epochs=7, lr=3e-4, warmup_epochs=2),
    )
    given = ("dataset.img_size", "train.epochs", "train.lr", "train.warmup_epochs", "augment.hflip")
    found = fitted_recipe(asked, splits(1000, side=64), LAPTOP, given)
    assert found.task.dataset.img_size == 96
    assert found.task.augment == RECIPE.task.augment
    assert (found.train.epochs, found.train.lr, found.train.warmup_epochs) == (7, 3e-4, 2)
    assert found.config.net.patch_size == 16  # follows the size


def test_a_million_images_on_gpus_are_trained_as_published() -> None:
    found = fitted_recipe(RECIPE, splits(100_000, side=8), GPUS, ())
    assert found.task.augment.rand_augment is not None
    assert (found.train.mixup, found.train.cutmix) == (0.8, 1.0)
