"""Programs that take pixels see what the evaluation sees, and say names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import nn

from raysearch.export.pixels import Preparation
from raysearch.export.programs import METADATA, write_onnx_uint8, write_torch_export_uint8
from raysearch.store.model_card import ModelCard
from raysearch.tasks.images import DIGITS, IMAGES, DataConfig, ImageClassification, Normalisation
from raysearch.tasks.images.transforms import evaluation_crop, to_array


def config(size: int, interpolation: Any, crop_pct: float, chans: int = 3) -> DataConfig:
    return DataConfig(
        dataset="images",
        img_size=size,
        in_chans=chans,
        mean=(0.4, 0.5, 0.6)[:chans],
        std=(0.2, 0.3, 0.25)[:chans],
        interpolation=interpolation,
        crop_pct=crop_pct,
    )


def how(data: DataConfig) -> dict[str, Any]:
    names = ("img_size", "in_chans", "mean", "std", "interpolation", "crop_pct")
    return {name: getattr(data, name) for name in names}


def seen(pixels: np.ndarray, data: DataConfig) -> torch.Tensor:
    """What the evaluation makes of one picture."""
    picture = Image.fromarray(pixels[..., 0] if data.in_chans == 1 else pixels)
    return Normalisation(data.mean, data.std)(torch.tensor(to_array(evaluation_crop(data)(picture)))[None])


@given(
    size=st.integers(2, 48),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    crop_pct=st.sampled_from([1.0, 0.9, 0.875]),
    chans=st.sampled_from([1, 3]),
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    seed=st.integers(0, 9),
)
@settings(max_examples=60)
def test_pixels_are_pillows_bit_for_bit(
    size: int, interpolation: str, crop_pct: float, chans: int, height: int, width: int, seed: int
) -> None:
    height = min(height, 2 * width)  # beyond, Pillow 13 resizes in the other order
    data = config(size, interpolation, crop_pct, chans)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, chans), dtype=np.uint8)
    prepared = Preparation.of(how(data))(torch.from_numpy(pixels)[None])
    assert torch.equal(prepared, seen(pixels, data))


def test_a_tall_photograph_is_a_grey_level_off_almost_nowhere_by_more() -> None:
    data = config(32, "bicubic", 0.875)
    for photograph in load_sample_images().images:
        tall = np.ascontiguousarray(photograph[:, 200:350])  # 427 x 150
        levels = (Preparation.of(how(data))(torch.from_numpy(tall)[None]) - seen(tall, data)) * 255
        levels *= torch.tensor(data.std).view(1, 3, 1, 1)
        assert levels.abs().max() < 5
        assert (levels.abs() > 1.5).float().mean() < 0.01


def test_the_card_states_no_crop_where_images_are_seen_whole() -> None:
    assert ImageClassification(replace(DIGITS, crop_pct=0.5)).preprocessing()["crop_pct"] == 1.0
    assert ImageClassification(replace(IMAGES, crop_pct=0.5)).preprocessing()["crop_pct"] == 0.5


class Small(nn.Module):
    """Fast to export."""

    def __init__(self, chans: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(chans, 8, 4, stride=4), nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.head = nn.Linear(32, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(images))


@pytest.mark.parametrize("chans", [1, 3])
def test_programs_take_pixels_of_any_size_and_carry_the_labels(chans: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    data, network = config(16, "bicubic", 0.875, chans), Small(chans).eval()
    card = ModelCard(family="autoformer", settings={}, arch={}, classes=["Käse", "b\udcff", "c"], preprocessing=how(data))
    pt2, onnx = tmp_path / "model.pt2", tmp_path / "model.onnx"
    assert write_torch_export_uint8(pt2, network, card=card) <= 1e-5
    assert write_onnx_uint8(onnx, network, card=card) <= 1e-4
    extra = {"labels.json": ""}
    program = torch.export.load(pt2, extra_files=extra).module()
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(extra["labels.json"]) == json.loads(metadata["labels"]) == card.classes
    assert json.loads(metadata[METADATA])["classes"] == card.classes
    assert metadata["input"].startswith(f"uint8 (batch, height, width, {chans})")
    rng = np.random.default_rng(0)
    for batch, height, width in ((1, 16, 16), (3, 5, 9), (2, 61, 47)):
        pixels = rng.integers(0, 256, (batch, height, width, chans), dtype=np.uint8)
        with torch.inference_mode():
            expected = network(torch.cat([seen(one, data) for one in pixels])).softmax(dim=1)
            torch.testing.assert_close(program(torch.from_numpy(pixels)), expected, rtol=0, atol=1e-5)
        (probabilities,) = session.run(["probabilities"], {"images": pixels})
        np.testing.assert_allclose(probabilities, expected.numpy(), rtol=0, atol=1e-4)
    # What would be a wrong answer in silence is none: prepared floats, another number of channels, channels first.
    for wrong in (np.zeros((1, 16, 16, chans), np.float32), np.zeros((1, 16, 16, 4 - chans), np.uint8)):
        with pytest.raises(Exception, match=r"dtype|data type|size\(\)|dimensions"):
            program(torch.from_numpy(wrong))
        with pytest.raises(Exception, match=r"data type|dimensions"):
            session.run(["probabilities"], {"images": wrong})


def test_what_has_no_pictures_or_no_classes_is_refused(tmp_path: Path) -> None:
    card = ModelCard(family="autoformer", settings={}, arch={}, classes=["a"], preprocessing=how(config(16, "bicubic", 1.0)))
    for changed, words in (
        (replace(card, classes=[]), "no classes"),
        (replace(card, preprocessing={"window": 3}), "no images"),
    ):
        with pytest.raises(ValueError, match=f"{words}.*; write_torch_export takes it"):
            write_torch_export_uint8(tmp_path / "model.pt2", Small(3), card=changed)
    assert not list(tmp_path.iterdir())
