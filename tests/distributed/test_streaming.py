"""Training images that tasks prepare: those of the loader, in its order, from any step on."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from idle_cluster import wait_until_idle
from PIL import Image
from ray.cluster_utils import Cluster

from raysearch.distributed.room import Need
from raysearch.distributed.streaming import StreamedBatches, check_free_cpus, training_batches
from raysearch.errors import UserError
from raysearch.tasks.images import IMAGES, AugmentConfig, ImageClassification

TASK = ImageClassification(
    replace(IMAGES, img_size=16, stream=True), AugmentConfig(crop_scale=(0.35, 1.0), hflip=0.5, random_erasing=0.5)
)
HALF = {"batch_size": 8, "seed": 3, "rank": 1, "world_size": 2}


def write(folder: Path, *, seed: int) -> Path:
    rng = np.random.default_rng(seed)  # decoded images are kept by their content
    for name in ("heron", "stork"):
        (folder / name).mkdir(parents=True)
        for i in range(40):
            Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / name / f"{i:02}.png")
    return folder


def test_free_processors_prepare_the_images_of_the_loader(cluster: Cluster, tmp_path: Path) -> None:
    """Over the end of an epoch, again, and from the middle of one."""
    wait_until_idle()
    task = TASK.reading(write(tmp_path / "birds", seed=0))
    images = task.splits().train
    loader = task.batches(images, **HALF)
    streamed = training_batches(task, images, epochs=3, workers=None, **HALF)
    assert isinstance(streamed, StreamedBatches)
    assert streamed.steps_per_epoch == loader.steps_per_epoch == len(images) // 2 // 8 > 1
    for epoch, start in ((0, 0), (1, 0), (0, 0), (1, 1), (2, 0)):
        assert torch.equal(streamed.order(epoch), loader.order(epoch))
        steps = list(zip(loader.epoch(epoch, start), streamed.epoch(epoch, start), strict=True))
        assert len(steps) == loader.steps_per_epoch - start
        for of_loader, of_nodes in steps:
            for expected, found in zip(of_loader, of_nodes, strict=True):
                assert torch.equal(expected, found)
                assert expected.dtype == found.dtype


def test_an_image_that_a_node_cannot_read_is_named(cluster: Cluster, tmp_path: Path) -> None:
    wait_until_idle()
    task = TASK.reading(write(tmp_path / "other birds", seed=1))
    images = task.splits().train
    names = task.item_names(images)
    assert names
    (tmp_path / "other birds" / names[0]).write_bytes(b"\x89PNG\r\n\x1a\n no more")
    streamed = training_batches(task, images, epochs=1, workers=None, batch_size=8, seed=0, rank=0, world_size=1)
    with pytest.raises(UserError, match=re.escape(names[0])):
        list(streamed.epoch(0))


def test_streaming_needs_a_processor_of_its_own(cluster: Cluster) -> None:
    wait_until_idle()
    check_free_cpus(TASK, Need("training process", {"CPU": 1.0}, ""), 1)
    with pytest.raises(UserError, match=r"of which 2 hold 2 of 2: give fewer train\.workers"):
        check_free_cpus(TASK, Need("training process", {"CPU": 1.0}, ""), 2)
    check_free_cpus(replace(TASK, dataset=replace(TASK.dataset, stream=False)), Need("training process", {"CPU": 1.0}, ""), 2)
