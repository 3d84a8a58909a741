"""What a search reads: which images, how they are split, and the size in which the network sees them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from raysearch.errors import UserError

Dataset = Literal["digits", "fashion-mnist", "images", "imagenet"]
Interpolation = Literal["bicubic", "bilinear"]


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Pixels of ImageNet per channel, as every published model is normalised."""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Images and their splits. The defaults are scikit-learn's embedded digits."""

    dataset: Dataset = "digits"
    """digits and fashion-mnist are known sets, images is a folder of your own, imagenet has train/ and val/."""
    root: Path | None = None
    """Folder of the images. Not needed for digits, nor for fashion-mnist as Debian's package installs it."""
    img_size: int = 8
    """Side of the square image that the network sees, in pixels."""
    in_chans: int = 1
    """1 for grey, 3 for colour."""
    search_images: int | float = 397
    """Images that candidates are scored on, held out of training: a number, or a fraction of the images they come from."""
    finalist_images: int | float = 200
    """Images that choose the champion among the best of the search, held out as the search images are; none of the search's
    scores is of them. 0 for none."""
    test_images: int | float = 400
    """Images for the final test where the data set has no test images of its own: a number, or a fraction of all."""
    split_seed: int = 0
    """Decides which image comes into which part; the search's own --seed does not."""
    mean: tuple[float, ...] = (0.305,)
    """Mean of the pixels per channel, on a scale from 0 to 1."""
    std: tuple[float, ...] = (0.376,)
    """Standard deviation of the pixels per channel, on the same scale."""
    interpolation: Interpolation = "bicubic"
    """How images are resized for evaluation."""
    crop_pct: float = 1.0
    """Share of the shorter side that the centre crop of an evaluation image keeps. Folders only."""

    def __post_init__(self) -> None:
        """Raises UserError for sizes, channels and fractions that cannot be."""
        if self.img_size < 1:
            raise UserError(f"dataset.img-size is {self.img_size}, must be at least 1")
        if self.in_chans not in (1, 3):
            raise UserError(f"dataset.in-chans is {self.in_chans}, must be 1 (grey) or 3 (colour)")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.in_chans:
                raise UserError(f"dataset.{name} is {values}, must have one value per channel ({self.in_chans})")
        if min(self.std) <= 0:
            raise UserError(f"dataset.std is {self.std}, must be above 0")
        if not 0 < self.crop_pct <= 1:
            raise UserError(f"dataset.crop-pct is {self.crop_pct}, must lie above 0 and not above 1")
        held_out = {
            "search-images": self.search_images,
            "finalist-images": self.finalist_images,
            "test-images": self.test_images,
        }
        for name, amount in held_out.items():
            if name == "finalist-images" and amount == 0:
                continue
            if not amount > 0 or (isinstance(amount, float) and not amount < 1):
                raise UserError(f"dataset.{name} is {amount}, must be a number of images or a fraction between 0 and 1")


DIGITS = DataConfig()
"""1,797 handwritten digits of 8 x 8 pixels that scikit-learn brings: 800 train, 397 search, 200 finalists, 400 test."""

FASHION_MNIST = DataConfig(
    dataset="fashion-mnist", img_size=28, search_images=5_000, finalist_images=5_000, mean=(0.286,), std=(0.353,)
)
"""60,000 pictures of clothes, of which 5,000 are held out for the search and 5,000 for the finalists; the 10,000 published
test images."""

IMAGES = DataConfig(
    dataset="images",
    img_size=224,
    in_chans=3,
    search_images=0.1,
    finalist_images=0.1,
    test_images=0.15,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    crop_pct=0.875,
)
"""A folder of your own; set ``root``."""

IMAGENET = DataConfig(
    dataset="imagenet",
    img_size=224,
    in_chans=3,
    search_images=10_000,
    finalist_images=10_000,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    crop_pct=0.875,
)
"""ImageNet-1k; set ``root``. 10,000 training images are held out for the search (the paper's number), and 10,000 for the
finalists."""
