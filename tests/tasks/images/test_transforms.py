"""What the network sees of an image file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms_factory import transforms_imagenet_eval

from raysearch.tasks.images import IMAGES, AugmentConfig, DataConfig, Normalisation
from raysearch.tasks.images.reading import read_image, to_array
from raysearch.tasks.images.transforms import evaluation_crop, training_transform


@pytest.mark.parametrize("size", [(50, 37), (33, 90), (32, 32)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_evaluation_agrees_with_timm(size: tuple[int, int], interpolation) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    config = replace(IMAGES, img_size=24, interpolation=interpolation)
    theirs = transforms_imagenet_eval(img_size=24, crop_pct=0.875, interpolation=interpolation)(image)
    ours = torch.from_numpy(to_array(evaluation_crop(config)(image)))[None]
    torch.testing.assert_close(Normalisation(config.mean, config.std)(ours)[0], theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_files_of_every_kind_become_grey_or_colour(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.png"
    if mode == "I;16":
        Image.fromarray(np.full((4, 4), 0x8000, np.uint16)).save(path)
    elif mode == "P":
        Image.new("RGB", (4, 4), (128, 128, 128)).convert("P").save(path, transparency=b"\x00\x80")
    else:
        Image.new("L", (4, 4), 128).convert(mode).save(path)
    for wanted, shape in (("L", (1, 4, 4)), ("RGB", (3, 4, 4))):
        pixels = to_array(read_image(path, wanted))
        assert pixels.shape == shape
        assert pixels.dtype == np.uint8
        assert mode == "1" or abs(int(pixels.mean()) - 128) <= 2


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"in_chans": 2}, r"^in-chans is 2"),
        ({"mean": (0.5, 0.5)}, r"^mean is 0\.5 0\.5"),
        ({"search_images": 1.5}, r"search-images is 1\.5"),
        ({"crop_pct": 0.0}, r"^crop-pct is 0,"),
    ],
)
def test_wrong_data_settings_are_named(wrong: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DataConfig(**wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"hflip": 2.0}, r"^hflip is 2,"),
        ({"shift": 2, "crop_scale": (0.1, 1.0)}, "both a shift and a crop-scale"),
        ({"rand_augment": "m9"}, r"^rand-augment is 'm9'"),
    ],
)
def test_wrong_augmentation_settings_are_named(wrong: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AugmentConfig(**wrong)


def test_the_published_augmentation_survives_its_rarest_draws() -> None:
    """RandAugment's magnitude is drawn around 9; at 10 timm asks Pillow to keep no bit of a pixel, which is an error there."""
    strongest = AugmentConfig(crop_scale=(0.5, 1.0), rand_augment="rand-m10-mstd0.5-inc1")
    transform = training_transform(replace(IMAGES, img_size=16), strongest)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    for _ in range(200):
        assert transform(image).shape == (3, 16, 16)
