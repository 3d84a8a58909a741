"""How a supernet is trained: the recipe's numbers, and the learning rate that follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from raysearch.errors import UserError
from raysearch.nn.precision import Precision


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Training of a supernet. The defaults are those of Chen et al., ICCV 2021 (REFERENCE, training recipe)."""

    epochs: int = 500
    """Passes over the training split."""
    batch_size: int = 1024
    """Images per step over all workers together, so that results do not depend on their number."""
    lr: float = 1e-3
    """Highest learning rate of AdamW, for this batch size."""
    min_lr: float = 1e-5
    """Learning rate at the end of the cosine."""
    warmup_lr: float = 1e-6
    """Learning rate of the first step."""
    warmup_epochs: float = 20
    """Epochs of linear warm-up, counted per step: no epoch is spent at the floor."""
    weight_decay: float = 0.05
    """Of AdamW; biases, norms, class token and position embedding are not decayed, relative position tables are."""
    label_smoothing: float = 0.1
    mixup: float = 0.0
    """Mixup alpha; 0 is off."""
    cutmix: float = 0.0
    """CutMix alpha; 0 is off. With both, either is used for half of the batches."""
    drop_path: float = 0.1
    """Greatest stochastic depth rate; it rises linearly over the depth of the supernet."""
    clip_grad: float | None = None
    """Greatest gradient norm."""
    archs_per_step: int = 1
    """Architectures drawn for each step; their gradients are averaged. 1 is the published rule."""
    precision: Precision = "auto"
    weight_init: Literal["trunc_normal", "xavier"] = "trunc_normal"
    """Initial weights: timm's for ViT, or Xavier's, which starts small networks much faster."""
    pos_embed_std: float = 0.02
    """Standard deviation of the initial position embedding."""
    workers: int | None = None
    """Training processes; as many as the cluster's GPUs, or 2 where there are none, when not given."""
    loader_workers: int = 2
    """Processes that decode images for each training process (folders only)."""
    max_failures: int = 3
    """How often training restarts from its last epoch after a lost worker."""

    def __post_init__(self) -> None:
        """Raises UserError for counts and rates that cannot be."""
        for name in ("epochs", "batch_size", "archs_per_step"):
            if getattr(self, name) < 1:
                raise UserError(f"train.{name.replace('_', '-')} is {getattr(self, name)}, must be at least 1")
        for name in ("label_smoothing", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"train.{name.replace('_', '-')} is {getattr(self, name)}, must lie between 0 and 1")
        for name in ("mixup", "cutmix", "weight_decay", "min_lr", "warmup_lr", "loader_workers", "max_failures"):
            if getattr(self, name) < 0:
                raise UserError(f"train.{name.replace('_', '-')} is {getattr(self, name)}, must be at least 0")
        if not self.lr > 0:
            raise UserError(f"train.lr is {self.lr}, must be above 0")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise UserError(f"train.warmup-epochs is {self.warmup_epochs}, must lie between 0 and epochs ({self.epochs})")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"train.workers is {self.workers}, must be at least 1")

    def learning_rate(self, step: int, *, steps_per_epoch: int) -> float:
        """Learning rate of a step (0-based): linear warm-up, then a cosine down to ``min_lr`` at the last step."""
        warmup = round(self.warmup_epochs * steps_per_epoch)
        if step < warmup:
            return self.warmup_lr + (self.lr - self.warmup_lr) * step / warmup
        progress = (step - warmup) / max(1, self.epochs * steps_per_epoch - warmup - 1)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
