"""What a network says of each image agrees with its score, and shows the worst of what it got wrong."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from regression import Balance
from torch import nn

from raysearch.scoring.predictions import PICTURES, predict
from raysearch.scoring.score import score
from raysearch.search import Result
from raysearch.space.cost import Cost
from raysearch.tasks.images import ArrayImages, DataConfig, open_cache, write_cache
from raysearch.tasks.images.classification import ImageClassification
from raysearch.tasks.images.device import DeviceImages

TASK = ImageClassification(DataConfig(dataset="digits", img_size=8, in_chans=1, mean=(0.5,), std=(0.25,)))


def images(folder: Path, *, side: int = 8) -> DeviceImages:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 1, side, side)).astype(np.uint8)
    config = DataConfig(dataset="digits", img_size=side, in_chans=1, mean=(0.5,), std=(0.25,))
    write_cache(ArrayImages(pixels, rng.integers(0, 5, 60)), folder / "images.arrow", config)
    return DeviceImages(open_cache(folder / "images.arrow"), torch.device("cpu"), room_bytes=0)


def test_as_many_are_right_as_the_score_says_and_the_worst_are_pictures(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, told = nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), images(tmp_path)
    said = predict(network, told, task=TASK, batch_size=16, precision="float32")
    scored = score(network, told, task=TASK, cost=Cost(1, 1), normalise=TASK.normalise, batch_size=16, precision="float32")
    assert said is not None
    assert isinstance(scored, Result)
    np.testing.assert_array_equal(said.predicted == said.labels, scored.by_item(60))
    pixels = TASK.normalise(torch.from_numpy(np.array(told.cached.images)))
    probability = network(pixels).softmax(1)
    np.testing.assert_allclose(said.confidence, probability.max(1).values.detach(), rtol=1e-5)
    assert list(said.pictures) == said.confident_mistakes(PICTURES)
    worst = next(iter(said.pictures))
    shown = np.asarray(Image.open(io.BytesIO(said.pictures[worst])))
    np.testing.assert_array_equal(shown, told.cached.images[worst, 0])


def test_large_pictures_are_made_small(tmp_path: Path) -> None:
    (cached,) = (np.random.default_rng(0).integers(0, 256, (3, 300, 200)).astype(np.uint8),)
    picture = TASK.picture(cached)
    assert Image.open(io.BytesIO(picture)).size == (85, 128)
    assert len(picture) < 3 * 85 * 128 * 1.1


def test_a_task_without_classes_has_nothing_to_say(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    assert predict(network, images(tmp_path), task=Balance(), batch_size=16, precision="float32") is None
