"""Training batches: dealt to processes without overlap, repeatable, varied as configured."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from raysearch.tasks.images import DIGITS, IMAGES, ArrayImages, AugmentConfig, EncodedImages, TrainLoader, load_splits

PLAIN = AugmentConfig()
EVERYTHING = AugmentConfig(
    crop_scale=(0.2, 1.0), hflip=0.5, rand_augment="rand-m9-mstd0.5-inc1", random_erasing=0.5, interpolation="random"
)


def numbered(count: int) -> ArrayImages:
    """Images whose label is their index, so that a batch tells which images it holds."""
    return ArrayImages(np.zeros((count, 1, 8, 8), np.uint8), np.arange(count, dtype=np.int64))


def seen(loader: TrainLoader, epoch: int) -> list[list[int]]:
    return [labels.tolist() for _, labels in loader.epoch(epoch)]


def loaders(count: int, world_size: int, *, batch_size: int, augment: AugmentConfig = PLAIN) -> list[TrainLoader]:
    return [
        TrainLoader(numbered(count), DIGITS, augment, batch_size=batch_size, seed=0, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]


@pytest.mark.parametrize(("count", "world_size", "batch_size"), [(96, 3, 8), (100, 4, 25), (101, 2, 16), (1000, 3, 64)])
def test_processes_share_the_images(count: int, world_size: int, batch_size: int) -> None:
    ranks = [seen(loader, 3) for loader in loaders(count, world_size, batch_size=batch_size)]
    assert {len(steps) for steps in ranks} == {count // world_size // batch_size}
    together = [index for steps in ranks for step in steps for index in step]
    assert len(together) == len(set(together))
    assert count - len(together) < world_size * (batch_size + 1)


def test_an_epoch_depends_on_seed_and_number_alone() -> None:
    loader, again = loaders(200, 1, batch_size=20) + loaders(200, 1, batch_size=20)
    assert seen(loader, 5) == seen(again, 5) == seen(loader, 5)
    assert seen(loader, 5) != seen(loader, 6)
    other = TrainLoader(numbered(200), DIGITS, PLAIN, batch_size=20, seed=1)
    assert seen(loader, 5) != seen(other, 5)


@pytest.mark.parametrize("augment", [AugmentConfig(shift=1, hflip=0.5), EVERYTHING])
def test_an_epoch_is_the_same_from_any_step_on(augment: AugmentConfig) -> None:
    """Of images in memory, and of those that are varied one by one."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    images = ArrayImages(pixels, np.arange(60, dtype=np.int64))
    loader = TrainLoader(images, DIGITS, augment, batch_size=10, seed=0, rank=1, world_size=2)
    whole = list(loader.epoch(2))
    for start in (0, 1, 2, 3):
        rest = list(loader.epoch(2, start))
        assert len(rest) == 3 - start
        for (images_now, labels_now), (images_then, labels_then) in zip(rest, whole[start:], strict=True):
            assert torch.equal(images_now, images_then)
            assert torch.equal(labels_now, labels_then)


@pytest.mark.parametrize("count", [10, 100, 1000])
def test_repeated_augmentation_gives_copies_to_small_sets_too(count: int) -> None:
    augment = AugmentConfig(repeated_augmentation=3)
    ranks = [seen(loader, 0) for loader in loaders(count, 2, batch_size=5, augment=augment)]
    assert [len(steps) for steps in ranks] == [count // 10] * 2
    copies = np.bincount([index for steps in ranks for step in steps for index in step], minlength=count)
    assert copies.sum() == count
    assert copies.max() == 3
    assert np.count_nonzero(copies) == -(-count // 3)


def test_a_set_below_the_batch_size_makes_one_even_step() -> None:
    first, second = loaders(23, 2, batch_size=64)
    assert first.batch_size == second.batch_size == 10
    assert first.steps_per_epoch == len(seen(first, 0)) == 1
    with pytest.raises(ValueError, match="3 training images for 4 parts of a step"):
        loaders(3, 4, batch_size=1)


def test_shifts_and_flips_move_whole_images() -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (64, 1, 8, 8), dtype=np.uint8)
    images = ArrayImages(pixels, np.arange(64, dtype=np.int64))
    config = replace(DIGITS, mean=(0.0,), std=(1 / 255,))  # leaves the pixels' values
    loader = TrainLoader(images, config, AugmentConfig(shift=2, hflip=0.5), batch_size=64, seed=0)
    padded = np.pad(pixels[:, 0], ((0, 0), (2, 2), (2, 2)))
    found: set[tuple[int, int, bool]] = set()
    for epoch in range(4):
        (batch, labels), *_ = loader.epoch(epoch)
        for image, label in zip(batch[:, 0].numpy().round(), labels.tolist(), strict=True):
            ways = [
                (down, right, flip)
                for down in range(5)
                for right in range(5)
                for flip in (False, True)
                if (image == padded[label, down : down + 8, right : right + 8][:, :: -1 if flip else 1]).all()
            ]
            assert len(ways) == 1
            found.update(ways)
    assert {w[0] for w in found} == {w[1] for w in found} == set(range(5))
    assert len(found) > 40  # of 50


def test_digits_are_normalised() -> None:
    loader = TrainLoader(load_splits(DIGITS).train, DIGITS, PLAIN, batch_size=800, seed=0)
    images = torch.cat([images for images, _ in loader.epoch(0)])
    assert images.shape == (800, 1, 8, 8)
    assert images.dtype == torch.float32
    assert abs(images.mean().item()) < 0.02
    assert abs(images.std().item() - 1) < 0.02


# --- images that are decoded and varied one by one ---


@pytest.fixture
def folder(tmp_path: Path, write_classes) -> EncodedImages:
    write_classes(tmp_path, {"a": 20, "b": 20}, suffix=".jpg", size=(40, 30))
    train = load_splits(replace(IMAGES, root=tmp_path)).train
    assert isinstance(train, EncodedImages)
    return train


def decoded(
    images: EncodedImages | ArrayImages, augment: AugmentConfig, *, workers: int, epochs: list[int]
) -> list[list[Tensor]]:
    chans = 3 if isinstance(images, EncodedImages) else 1
    config = replace(IMAGES, img_size=16, in_chans=chans, mean=IMAGES.mean[:chans], std=IMAGES.std[:chans])
    loader = TrainLoader(images, config, augment, batch_size=7, seed=0, workers=workers)
    return [[images for images, _ in loader.epoch(epoch)] for epoch in epochs]


def test_augmented_epochs_repeat_with_any_number_of_workers(folder: EncodedImages) -> None:
    first, second, first_again = decoded(folder, EVERYTHING, workers=2, epochs=[0, 1, 0])
    ((alone,),) = [decoded(folder, EVERYTHING, workers=0, epochs=[0])]
    assert len(first) == 3
    assert first[0].shape == (7, 3, 16, 16)
    assert torch.equal(torch.stack(first), torch.stack(first_again))
    assert torch.equal(torch.stack(first), torch.stack(alone))
    assert not torch.equal(torch.stack(first), torch.stack(second))


def test_an_abandoned_epoch_does_not_leak_into_the_next(folder: EncodedImages) -> None:
    (expected,) = decoded(folder, PLAIN, workers=0, epochs=[1])
    config = replace(IMAGES, img_size=16)
    loader = TrainLoader(folder, config, PLAIN, batch_size=7, seed=0, workers=2)
    next(loader.epoch(0))
    assert torch.equal(torch.stack([images for images, _ in loader.epoch(1)]), torch.stack(expected))


def test_augmentation_leaves_global_generators_alone(folder: EncodedImages) -> None:
    def draws() -> list[float]:
        return [random.random(), float(np.random.random()), torch.rand(()).item()]  # noqa: NPY002

    for workers in (0, 1):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        decoded(folder, EVERYTHING, workers=workers, epochs=[0, 1])
        after = draws()
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        assert draws() == after


def test_copies_of_an_image_are_varied_anew(folder: EncodedImages) -> None:
    ((batch, *_),) = decoded(folder, replace(EVERYTHING, repeated_augmentation=3), workers=0, epochs=[0])
    assert not torch.equal(batch[0], batch[1])


@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
def test_erased_rectangles_are_as_asked_for(mode: Literal["pixel", "rand", "const"]) -> None:
    """Of a white image, everything that is not white was erased: by noise, by one colour for each rectangle, or by zeros."""
    images = ArrayImages(np.full((1, 3, 32, 32), 255, np.uint8), np.zeros(1, np.int64))
    config = replace(IMAGES, img_size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    colours = {1: set[int](), 4: set[int]()}
    for count, found in colours.items():
        augment = AugmentConfig(random_erasing=1.0, erasing_mode=mode, erasing_count=count)
        loader = TrainLoader(images, config, augment, batch_size=1, seed=0)
        for epoch in range(12):
            ((image,), _) = next(iter(loader.epoch(epoch)))
            erased = (image != 1).any(dim=0)
            assert 0 < erased.float().mean() < 0.5
            found.add(len(torch.unique(image[:, erased].T, dim=0)))
            if mode == "const":
                assert (image[:, erased] == 0).all()
    if mode == "rand":
        assert colours[1] == {1}
        assert max(colours[4]) > 1
    elif mode == "pixel":
        assert min(colours[1]) > 10


def test_grey_images_take_every_augmentation() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (140, 1, 16, 16), dtype=np.uint8)
    images = ArrayImages(pixels, np.zeros(140, np.int64))
    (epoch,) = decoded(images, EVERYTHING, workers=0, epochs=[0])
    assert torch.stack(epoch).shape == (20, 7, 1, 16, 16)
    shifted = replace(EVERYTHING, crop_scale=None, shift=2, rand_augment=None, color_jitter=0.4)
    (epoch,) = decoded(images, shifted, workers=0, epochs=[0])
    assert torch.stack(epoch).isfinite().all()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_became_unreadable_is_named(folder: EncodedImages, workers: int) -> None:
    victim = folder.path(3)
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(ValueError, match=f"{victim} is not a readable image"):
        decoded(folder, PLAIN, workers=workers, epochs=[0])
