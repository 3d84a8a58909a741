"""How a supernet is trained: the recipe's numbers, and the learning rate that follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from raysearch.bounds import Bounds, Count, CountOrNone, NotNegative, Positive, check_numbers
from raysearch.nn.precision import Precision

ShareBelowOne = Annotated[float, Bounds(least=0, below=1)]


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Training of a supernet. The defaults are those of Chen et al., ICCV 2021 (REFERENCE, training recipe)."""

    epochs: Count = 500
    """Passes over the training split."""
    batch_size: Count = 1024
    """Images per step over all workers together, so that results do not depend on their number."""
    lr: Positive = 1e-3
    """Highest learning rate of AdamW, for this batch size."""
    min_lr: NotNegative = 1e-5
    """Learning rate at the end of the cosine."""
    warmup_lr: NotNegative = 1e-6
    """Learning rate of the first step."""
    warmup_epochs: NotNegative = 20
    """Epochs of linear warm-up, counted per step: no epoch is spent at the floor."""
    weight_decay: NotNegative = 0.05
    """Of AdamW; biases, norms, class token and position embedding are not decayed, relative position tables are."""
    label_smoothing: ShareBelowOne = 0.1
    mixup: NotNegative = 0.0
    """Mixup alpha; 0 is off."""
    cutmix: NotNegative = 0.0
    """CutMix alpha; 0 is off. With both, either is used for half of the batches."""
    drop_path: ShareBelowOne = 0.1
    """Greatest stochastic depth rate; it rises linearly over the depth of the supernet."""
    clip_grad: Positive | None = None
    """Greatest gradient norm."""
    archs_per_step: Count = 1
    """Architectures drawn for each step; their gradients are averaged. 1 is the published rule."""
    precision: Precision = "auto"
    weight_init: Literal["trunc_normal", "xavier"] = "trunc_normal"
    """Initial weights: timm's for ViT, or Xavier's, which starts small networks much faster."""
    pos_embed_std: NotNegative = 0.02
    """Standard deviation of the initial position embedding."""
    workers: Count | None = None
    """Training processes; as many as the cluster's GPUs, or 2 where there are none, when not given."""
    loader_workers: CountOrNone | None = None
    """Processes that prepare images for each training process (folders only). Default: none where images are decoded in memory
    and small, or where there is no GPU; else what the cores allow."""
    max_failures: CountOrNone = 3
    """How often training restarts from its last epoch after a lost worker."""
    max_skipped_steps: CountOrNone = 20
    """How many steps in a row are skipped, as their loss or gradient is not finite, before training ends."""

    def __post_init__(self) -> None:
        """Raises UserError for counts and rates that cannot be."""
        check_numbers(self)

    def learning_rate(self, step: int, *, steps_per_epoch: int) -> float:
        """Learning rate of a step (0-based): linear warm-up, then a cosine down to ``min_lr`` at the last step."""
        warmup = round(self.warmup_epochs * steps_per_epoch)
        if step < warmup:
            return self.warmup_lr + (self.lr - self.warmup_lr) * step / warmup
        progress = (step - warmup) / max(1, self.epochs * steps_per_epoch - warmup - 1)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
