"""A task whose outcomes are numbers: how much brighter the left half of a digit is than its right half."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from raysearch.errors import UserError
from raysearch.tasks import Batches, Ends, Splits, Task
from raysearch.tasks.images import ArrayImages, AugmentConfig, DataConfig, Normalisation, TrainLoader, write_cache
from raysearch.tasks.task import Mix


@dataclass(frozen=True)
class Balance(Task):
    """Judged by the negative of the absolute error."""

    name: ClassVar[str] = "balance"
    score_name: ClassVar[str] = "negative error"

    items: int = 600
    split_seed: int = 0

    @property
    def data_name(self) -> str:
        return "halves of digits"

    @property
    def data_source(self) -> str:
        return "digits"

    def reading(self, root: Path) -> Self:
        raise UserError("the digits are embedded; leave out --data")

    def splits(self, *, expected_digest: str | None = None) -> Splits:
        pixels = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)[:, None]  # pyright: ignore
        halves = pixels[:, 0, :, :4].mean((1, 2)) - pixels[:, 0, :, 4:].mean((1, 2))
        every = ArrayImages(pixels, (halves / 50).astype(np.float32))
        order = np.random.default_rng(self.split_seed).permutation(len(every))[: self.items]
        parts = np.split(order, [self.items // 2, 3 * self.items // 4, 7 * self.items // 8])
        splits = Splits(*(every.subset(part) for part in parts))
        assert expected_digest in (None, splits.digest)
        return splits

    def ends(self, splits: Splits) -> Ends:
        return Ends((1, 8, 8), 1)

    def batches(
        self, items: Any, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1, workers: int | None = 0
    ) -> Batches:
        sizes = {"batch_size": batch_size, "seed": seed, "rank": rank, "world_size": world_size}
        return TrainLoader(items, DataConfig(), AugmentConfig(), **sizes)

    def write_cache(self, items: Any, path: Path) -> None:
        write_cache(items, path, DataConfig())

    @property
    def normalise(self) -> Normalisation:
        return Normalisation((0.3,), (0.4,))

    def preprocessing(self) -> dict[str, Any]:
        return {"img_size": 8, "in_chans": 1, "mean": (0.3,), "std": (0.4,), "interpolation": "bicubic", "crop_pct": 1.0}

    def loss(self, outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        return torch.nn.functional.mse_loss(outputs.float().squeeze(1), targets.float())

    def mix(self, *, mixup: float, cutmix: float, label_smoothing: float, outputs: int) -> Mix | None:
        return None

    def judge(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        error = outputs.float().squeeze(1) - targets.float()
        return -error.abs(), error.square()

    def score_text(self, score: float) -> str:
        return f"{-score:.3f} off"
