"""Training images decoded once and kept: the same pixels as from their files, and no file is opened again."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from raysearch.errors import UserError
from raysearch.tasks.images import IMAGES, AugmentConfig, DataConfig, TrainLoader, decoded, load_splits
from raysearch.tasks.images.decoded import DecodedImages, ShrunkImages, loader_processes, training_images
from raysearch.tasks.images.fitted import median_side

VARIED = AugmentConfig(crop_scale=(0.3, 1.0), hflip=0.5)


@pytest.fixture
def photos(tmp_path: Path, write_classes, monkeypatch: pytest.MonkeyPatch) -> DataConfig:
    monkeypatch.setenv("RAYSEARCH_CACHE", str(tmp_path / "cache"))
    write_classes(tmp_path / "photos", {"a": 20, "b": 20}, suffix=".jpg", size=(60, 40))
    return replace(IMAGES, root=tmp_path / "photos", img_size=16, shrink=1.3)


def batches(config: DataConfig, train, epochs: int = 2) -> list[torch.Tensor]:
    loader = TrainLoader(train, config, VARIED, batch_size=8, seed=0)
    return [images for epoch in range(epochs) for images, _ in loader.epoch(epoch)]


@pytest.mark.parametrize("colour", [True, False])
def test_kept_and_read_images_are_the_same(photos: DataConfig, monkeypatch: pytest.MonkeyPatch, colour: bool) -> None:
    config = photos if colour else replace(photos, in_chans=1, mean=(0.5,), std=(0.5,))
    train = load_splits(config).train
    kept = training_images(train, config)
    assert isinstance(kept, DecodedImages)
    copy = pickle.loads(pickle.dumps(kept))  # as a loader process gets it
    assert all(np.array_equal(np.asarray(copy.decode(i)), np.asarray(kept.decode(i))) for i in range(len(kept)))
    from_memory = batches(config, train)
    monkeypatch.setattr(decoded, "MEMORY_SHARE", 0.0)
    for file in kept.path.parent.iterdir():
        file.unlink()
    assert isinstance(training_images(train, config), ShrunkImages)
    for ours, theirs in zip(from_memory, batches(config, train), strict=True):
        assert torch.equal(ours, theirs)
    assert min(kept.decode(0).size) == 21  # 1.3 times 16


def test_kept_images_need_their_files_no_more(photos: DataConfig) -> None:
    train = load_splits(photos).train
    first = batches(photos, train)
    for i in range(len(train)):
        train.path(i).unlink()
    assert all(torch.equal(*pair) for pair in zip(first, batches(photos, train), strict=True))


def test_an_image_that_breaks_while_images_are_kept_is_named(photos: DataConfig) -> None:
    train = load_splits(photos).train
    train.path(3).write_bytes(b"broken")
    with pytest.raises(UserError, match=f"{train.path(3)} is not a readable image"):
        training_images(train, photos)


def test_what_is_chosen_by_sizes_opens_no_file(photos: DataConfig) -> None:
    train = load_splits(photos).train
    kept = training_images(train, photos)
    pixels = sum(np.asarray(kept.decode(i)).size for i in range(len(kept)))
    for i in range(len(train)):
        train.path(i).unlink()
    assert median_side(train) == 40
    assert decoded.decoded_bytes(train, photos) == pytest.approx(pixels, rel=0.05)
    assert decoded.fits_in_memory(pixels)


def test_loader_processes_follow_the_machine(photos: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    train = load_splits(photos).train
    kept, read = training_images(train, photos), ShrunkImages(train, 0)
    large = replace(photos, img_size=224)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert [loader_processes(None, images, large, world_size=2) for images in (kept, read)] == [0, 4]
    assert loader_processes(3, kept, large, world_size=2) == 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [loader_processes(None, kept, config, world_size=8) for config in (photos, large)] == [0, 3]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert loader_processes(None, read, large, world_size=8) == 0
