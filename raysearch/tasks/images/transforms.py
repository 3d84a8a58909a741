"""From a decoded image to what the network sees: for evaluation, for training, and the normalisation of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from raysearch.bounds import Bounds, Count, CountOrNone, NotNegative, Share, check_numbers
from raysearch.errors import SettingError, UserError
from raysearch.tasks.images.config import DataConfig
from raysearch.tasks.images.reading import Source, read_image, to_array


@dataclass(frozen=True, slots=True)
class Normalisation:
    """uint8 images to network input: ``(pixel / 255 - mean) / std``, one value per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: UInt8[Tensor, "batch chans height width"]) -> Float[Tensor, "batch chans height width"]:
        """Float32 images on the device of ``images``."""
        scale = torch.tensor([1 / (255 * s) for s in self.std], device=images.device).view(1, -1, 1, 1)
        shift = torch.tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)], device=images.device).view(1, -1, 1, 1)
        return torch.addcmul(shift, images.float(), scale)


PartOfImage = Annotated[float, Bounds(above=0, most=1)]


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """How training images are varied. The defaults leave them as they are for evaluation."""

    shift: CountOrNone = 0
    """Greatest random shift along each axis, in pixels; what moves in is black."""
    crop_scale: tuple[PartOfImage, PartOfImage] | None = None
    """Instead of a shift: smallest and largest share of the image that a random resized crop covers."""
    hflip: Share = 0.0
    """Probability of a horizontal flip."""
    rand_augment: str | None = None
    """timm's RandAugment string, as rand-m9-mstd0.5-inc1."""
    color_jitter: NotNegative = 0.0
    """Strength of brightness, contrast and saturation changes. As in timm, without effect beside RandAugment."""
    random_erasing: Share = 0.0
    """Probability that rectangles are replaced (timm's RandomErasing)."""
    erasing_mode: Literal["pixel", "rand", "const"] = "pixel"
    """By noise of each pixel, one random colour, or black after normalisation."""
    erasing_count: Count = 1
    """Greatest number of rectangles, whose area together is at most a third of the image."""
    interpolation: Literal["bicubic", "bilinear", "random"] = "bicubic"
    """Of the random resized crop and of RandAugment."""
    repeated_augmentation: Count = 1
    """Copies of an image within one epoch, each varied anew; the epoch has as many images as before, of fewer files."""

    def __post_init__(self) -> None:
        """Raises UserError for values out of range and for a shift together with a random resized crop."""
        check_numbers(self)
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            low, high = self.crop_scale
            raise SettingError("crop_scale", f"is {low:g} {high:g}, must rise within 0 to 1")
        if self.shift and self.crop_scale is not None:
            raise UserError("augment has both a shift and a crop-scale: give one of them")
        if self.rand_augment is not None and not self.rand_augment.startswith("rand"):
            raise SettingError("rand_augment", f"is {self.rand_augment!r}, must be like rand-m9-mstd0.5-inc1")

    def __str__(self) -> str:
        """As ``crops of 50-100 % of the area, flips``."""
        parts = [f"shifts of {self.shift} px"] if self.shift else []
        if self.crop_scale is not None:
            parts.append(f"crops of {self.crop_scale[0]:.0%} to {self.crop_scale[1]:.0%} of the area")
        named = (
            (self.hflip, "flips"),
            (self.rand_augment, self.rand_augment),
            (self.color_jitter and not self.rand_augment, f"colour jitter {self.color_jitter:g}"),
            (self.random_erasing, "erasing"),
            (self.repeated_augmentation > 1, f"{self.repeated_augmentation} copies"),
        )
        return ", ".join([*parts, *(str(text) for is_used, text in named if is_used)]) or "no augmentation"

    @property
    def moves_only(self) -> bool:
        """True when shifts and flips are all there is, which whole batches undergo at once."""
        return self.crop_scale is None and not (self.rand_augment or self.color_jitter or self.random_erasing)

    @classmethod
    def published(cls) -> AugmentConfig:
        """The recipe of Chen et al. (ICCV 2021) for ImageNet (REFERENCE, training recipe)."""
        return cls(
            crop_scale=(0.08, 1.0),
            hflip=0.5,
            rand_augment="rand-m9-mstd0.5-inc1",
            color_jitter=0.4,
            random_erasing=0.25,
            repeated_augmentation=3,
        )


def evaluation_crop(config: DataConfig) -> Callable[[Image.Image], Image.Image]:
    """Resize the shorter side to ``img_size / crop_pct`` and cut out the centre, as timm and torchvision evaluate."""
    from torchvision import transforms  # here and below: seconds to import, and an evaluator needs neither

    mode = transforms.InterpolationMode(config.interpolation)
    return transforms.Compose(
        [
            transforms.Resize(int(config.img_size / config.crop_pct), interpolation=mode),
            transforms.CenterCrop(config.img_size),
        ]
    )


def evaluation_array(source: Source, config: DataConfig) -> UInt8[np.ndarray, "chans height width"]:
    """One picture as the network is given it for evaluation, before its normalisation: read, resized, the centre cut out.

    Raises UserError when it cannot be read.
    """
    return to_array(evaluation_crop(config)(read_image(source, config.mode, white=config.white)))


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """The image with its shorter side brought down to ``side`` pixels; as it is where it is smaller, or ``side`` is 0."""
    shorter = min(image.size)
    if side == 0 or shorter <= side:
        return image
    width, height = (max(side, round(length * side / shorter)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """At least one bit is kept: timm asks for none where a drawn magnitude reaches 10, which Pillow refuses."""
    return image if bits >= 8 else ImageOps.posterize(image, max(1, bits))


def training_transform(config: DataConfig, augment: AugmentConfig) -> Callable[[Image.Image], Tensor]:
    """A decoded image to a varied, normalised float32 tensor (chans, img_size, img_size).

    timm's operations draw from the global generators of random, numpy and torch: the caller seeds them.
    """
    from timm.data.transforms_factory import transforms_imagenet_train
    from torchvision import transforms

    crop, colours, tensor = cast(
        tuple[Any, Any, Any],
        transforms_imagenet_train(
            img_size=config.img_size,
            scale=augment.crop_scale,
            hflip=augment.hflip,
            color_jitter=augment.color_jitter,
            auto_augment=augment.rand_augment,
            interpolation=augment.interpolation,
            mean=config.mean,
            std=config.std,
            re_prob=augment.random_erasing,
            re_mode=augment.erasing_mode,
            re_count=augment.erasing_count,
            separate=True,
        ),
    )
    for step in colours.transforms:
        for operation in getattr(step, "ops", ()):  # of RandAugment
            if operation.name.startswith("Posterize"):
                operation.aug_fn = _posterize
    if augment.crop_scale is None:
        steps: list[Callable[[Any], Any]] = [evaluation_crop(config)]
        if augment.shift:
            steps.append(transforms.RandomCrop(config.img_size, padding=augment.shift))
        if augment.hflip:
            steps.append(transforms.RandomHorizontalFlip(augment.hflip))
        crop = transforms.Compose(steps)
    return transforms.Compose([crop, colours, tensor])
