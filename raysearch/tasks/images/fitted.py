"""Image size and augmentation that follow from the images and the machine."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from raysearch.tasks.images.config import DataConfig
from raysearch.tasks.images.images import EncodedImages, ImageSet
from raysearch.tasks.images.transforms import AugmentConfig

SIZES = (32, 48, 64, 96, 128, 160, 192, 224)
"""Sides in pixels that are chosen from; each divides well into patches."""
LARGEST_ON_CPU = 48
"""What processors can train in minutes. With 2,500 pictures of 64 pixels, four minutes of one processor taught more in 48
pixels than in 64: 58 % beside 56 % of search images, mean of eight subnets, with twice the epochs."""
MANY = 100_000
"""From so many training images on, the published augmentation has something to vary."""


def median_side(images: ImageSet) -> int:
    """Median of the shorter sides of the images, in pixels; no file is opened."""
    if not isinstance(images, EncodedImages):
        return min(images.decode(0).size)
    return round(np.median(np.minimum(images.records["height"], images.records["width"])))


def fitted_data(config: DataConfig, *, side: int, accelerated: bool, given: Collection[str]) -> DataConfig:
    """The size that images of ``side`` pixels are given to the network in, but for the settings in ``given``.

    They are never enlarged beyond the next size; without a GPU (``accelerated``) they stay small.
    """
    most = SIZES[-1] if accelerated else LARGEST_ON_CPU
    fitting = [size for size in SIZES if size <= min(side, most)]
    size = config.img_size if "dataset.img_size" in given else max(fitting, default=SIZES[0])
    # The margin that a centre crop leaves out of a photograph is a large part of a small picture.
    crop = config.crop_pct if "dataset.crop_pct" in given else (0.875 if size >= 160 else 1.0)
    return replace(config, img_size=size, crop_pct=crop)


def fitted_augment(config: AugmentConfig, *, images: int, given: Collection[str]) -> AugmentConfig:
    """Augmentation for so many training images; a group of which anything is in ``given`` stays as it is.

    The published one (crops from 8 % of the area, RandAugment, erasing) is made for a million images and hundreds of epochs.
    """
    if any(name.startswith("augment.") for name in given):
        return config
    if images >= MANY:
        return AugmentConfig.published()
    return AugmentConfig(crop_scale=(0.35, 1.0), hflip=0.5)
