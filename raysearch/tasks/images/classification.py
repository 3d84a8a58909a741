"""Images to classes."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from raysearch.errors import UserError
from raysearch.tasks.images.cache import evaluation_blocks, write_cache
from raysearch.tasks.images.config import DataConfig
from raysearch.tasks.images.datasets import load_splits
from raysearch.tasks.images.fitted import fitted_augment, fitted_data, median_side
from raysearch.tasks.images.images import EncodedImages, ImageSet
from raysearch.tasks.images.loader import ImageStream, TrainLoader
from raysearch.tasks.images.transforms import AugmentConfig, Normalisation
from raysearch.tasks.task import Ends, Mix, Splits, Task

PICTURE_SIDE = 128
"""Most pixels of a side of a picture in a report."""


@dataclass(frozen=True, slots=True)
class ImageClassification(Task):
    """Images to classes, judged by top-1 accuracy."""

    name: ClassVar[str] = "image-classification"
    score_name: ClassVar[str] = "accuracy"

    dataset: DataConfig = field(default_factory=DataConfig)
    """Images and splits."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Variation of the training images."""

    @property
    def data_name(self) -> str:
        """Name of the data set, as ``digits``."""
        return self.dataset.dataset

    @property
    def data_source(self) -> str:
        """Path or address of the images; the data set's name where it needs none."""
        return self.dataset.source or self.dataset.dataset

    def reading(self, data: Path | str) -> Self:
        """The same task on the images at a path or an address."""
        return replace(self, dataset=self.dataset.reading(data))

    @property
    def split_seed(self) -> int:
        """Decides the division of the images."""
        return self.dataset.split_seed

    def splits(self, *, expected_digest: str | None = None) -> Splits:
        """See :func:`~raysearch.tasks.images.datasets.load_splits`."""
        return load_splits(self.dataset, expected_digest=expected_digest)

    def fitted(self, splits: Splits, *, accelerated: bool, given: Collection[str]) -> Self:
        """Image size by the images and the machine, augmentation by their number (:mod:`raysearch.tasks.images.fitted`)."""
        side = median_side(splits.train)
        return replace(
            self,
            dataset=fitted_data(self.dataset, side=side, accelerated=accelerated, given=given),
            augment=fitted_augment(self.augment, images=len(splits.train), given=given),
        )

    def sized(self, side: int) -> Self:
        """The same images, given to the network in another size."""
        return replace(self, dataset=replace(self.dataset, img_size=side))

    def seen_as(self, preprocessing: Mapping[str, Any], *, given: Collection[str]) -> tuple[Self, frozenset[str]]:
        """With size, channels, mean, standard deviation, interpolation and crop of ``preprocessing``."""
        known = {f.name for f in fields(self.dataset)}
        new = {name: value for name, value in preprocessing.items() if name in known and f"dataset.{name}" not in given}
        if new.get("in_chans", self.dataset.in_chans) != preprocessing.get("in_chans"):  # given, with a mean of their own
            new = {name: value for name, value in new.items() if name not in ("mean", "std")}
        return replace(self, dataset=replace(self.dataset, **new)), frozenset(f"dataset.{name}" for name in new)

    @property
    def described(self) -> str:
        """Size and augmentation."""
        return f"{self.dataset.img_size} px, {self.augment}"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.dataset.in_chans, self.dataset.img_size, self.dataset.img_size

    def ends(self, splits: Splits) -> Ends:
        """Square images in, one logit per class out."""
        return Ends(self.input_shape, len(splits.classes))

    def batches(
        self, items: ImageSet, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1, workers: int | None = 0
    ) -> TrainLoader:
        """Images varied as ``augment`` says, and labels."""
        return TrainLoader(
            items,
            self.dataset,
            self.augment,
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            workers=workers,
        )

    @property
    def streams(self) -> bool:
        """As ``dataset.stream`` says."""
        return self.dataset.stream

    def stream(self, items: ImageSet, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> ImageStream | None:
        """The images of :meth:`batches`; None for those that are in memory."""
        if not (self.streams and isinstance(items, EncodedImages)):
            return None
        sizes = {"batch_size": batch_size, "seed": seed, "rank": rank, "world_size": world_size}
        return ImageStream(items, self.dataset, self.augment, **sizes)

    def write_cache(self, items: ImageSet, path: Path) -> None:
        """Images under the evaluation transform: uint8 (n, chans, height, width), and their labels."""
        write_cache(items, path, self.dataset)

    def evaluation_inputs(self, items: ImageSet) -> Iterator[Float[Tensor, "batch chans height width"]]:
        """Images under the evaluation transform, normalised, a few at a time."""
        return (self.normalise(torch.from_numpy(block)) for block in evaluation_blocks(items, self.dataset))

    @property
    def normalise(self) -> Normalisation:
        """By the data set's mean and standard deviation."""
        return Normalisation(self.dataset.mean, self.dataset.std)

    def preprocessing(self) -> dict[str, Any]:
        """Size, channels, mean, standard deviation, interpolation and crop."""
        names = ("img_size", "in_chans", "mean", "std", "interpolation", "crop_pct")
        how = {name: getattr(self.dataset, name) for name in names}
        if self.dataset.uncropped:
            how["crop_pct"] = 1.0
        return how if self.dataset.white is None else {**how, "white": self.dataset.white}

    def loss(
        self, outputs: Float[Tensor, "batch classes"], targets: Tensor, *, label_smoothing: float = 0.0
    ) -> Float[Tensor, ""]:
        """Cross entropy. Probabilities (Mixup) carry their smoothing already; labels are smoothed here."""
        smoothing = 0.0 if targets.is_floating_point() else label_smoothing
        return F.cross_entropy(outputs.float(), targets, label_smoothing=smoothing)

    def mix(self, *, mixup: float, cutmix: float, label_smoothing: float, outputs: int) -> Mix | None:
        """Timm's Mixup and CutMix; None where both are 0. Their inputs must be an even number of images."""
        if not (mixup or cutmix):
            return None
        from timm.data.mixup import Mixup  # seconds to import, for the recipes that use it

        mixed: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = Mixup(
            mixup, cutmix, label_smoothing=label_smoothing, num_classes=outputs
        )

        def in_pairs(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            if len(images) % 2:
                raise UserError(
                    f"Mixup and CutMix pair the images of a step, and a training process has {len(images)} of them; choose a "
                    "train.batch-size that gives each process an even number, or set train.mixup and train.cutmix to 0"
                )
            return mixed(images, labels)

        return in_pairs

    def judge(self, outputs: Float[Tensor, "batch classes"], targets: Int[Tensor, " batch"]) -> tuple[Tensor, Tensor]:
        """Top-1 correctness and cross entropy of each image."""
        outputs = outputs.float()
        return outputs.argmax(dim=1) == targets, F.cross_entropy(outputs, targets, reduction="none")

    def score_text(self, score: float) -> str:
        """In per cent."""
        return f"{score:.2%}"

    def classify(self, outputs: Float[Tensor, "batch classes"]) -> tuple[Tensor, Tensor]:
        """The class of the highest logit, and its softmax."""
        probability, predicted = outputs.float().softmax(dim=1).max(dim=1)
        return predicted, probability

    def picture(self, cached: UInt8[np.ndarray, "chans height width"]) -> bytes:
        """A PNG of at most 128 pixels a side."""
        pixels = cached[0] if len(cached) == 1 else np.ascontiguousarray(cached.transpose(1, 2, 0))
        image, written = Image.fromarray(pixels), io.BytesIO()
        image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
        image.save(written, "PNG", optimize=True)
        return written.getvalue()

    def item_names(self, items: ImageSet) -> list[str] | None:
        """Paths of the files below the data set's folder; None for images that are embedded in a package."""
        return [os.fsdecode(bytes(name)) for name in items.names] if isinstance(items, EncodedImages) else None
