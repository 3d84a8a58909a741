"""How a supernet is trained: the recipe's numbers, and the learning rate that follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from raysearch.bounds import Bounds, Count, CountOrNone, NotNegative, Positive, Share, check_numbers
from raysearch.errors import SettingError
from raysearch.nn.precision import Precision
from raysearch.nodes import NodesConfig

ShareBelowOne = Annotated[float, Bounds(least=0, below=1)]
ShareAboveNone = Annotated[float, Bounds(above=0, most=1)]
Decay = Annotated[float, Bounds(above=0, below=1)]


@dataclass(frozen=True, slots=True)
class DistillConfig:
    """What networks learn from another one's outputs, beside the labels (docs/training.md)."""

    source: Literal["none", "largest", "teacher"] = "none"
    """Who teaches: nobody, the supernet's largest subnet while it learns itself, or the frozen network of --teacher.name."""
    loss: Literal["kl", "alpha", "hard"] = "kl"
    """Divergence from the teacher's probabilities: Kullback-Leibler's, or the adaptive alpha-divergence of AlphaNet, which
    punishes too much certainty and too little alike; hard: cross entropy with the teacher's best class, as DeiT."""
    temperature: Positive = 1.0
    """Divides the logits of both for kl and alpha; the loss is multiplied by its square."""
    weight: Share | None = None
    """Share of this loss in the whole; the rest is that of the labels. Default: 1 where the largest teaches (as BigNAS and
    AlphaNet), 0.5 with another teacher (as DeiT)."""

    @property
    def share(self) -> float:
        """Share of the distillation loss in the total."""
        return self.weight if self.weight is not None else 1.0 if self.source == "largest" else 0.5


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
    layer_decay: ShareAboveNone = 1.0
    """Learning rate of a layer as a share of that of the layer above it, for networks that begin with trained weights and say
    what their layers are; 1: the same for all."""
    label_smoothing: ShareBelowOne = 0.1
    mixup: NotNegative = 0.0
    """Mixup alpha; 0 is off."""
    cutmix: NotNegative = 0.0
    """CutMix alpha; 0 is off. With both, either is used for half of the batches."""
    drop_path: ShareBelowOne = 0.1
    """Greatest stochastic depth rate; it rises linearly over the depth of the supernet."""
    clip_grad: Positive | None = None
    """Greatest gradient norm."""
    strategy: Literal["single-path", "sandwich", "multi"] = "single-path"
    """What a step trains: architectures drawn at random (published); the largest, the smallest and random ones; or as many as
    archs-per-step, from small to large, each on its part of the images."""
    archs_per_step: Count = 1
    """Architectures drawn for each step, whose gradients are averaged (1 is the published rule); of a sandwich the random ones
    beside largest and smallest; of multi all of them."""
    largest_first: ShareBelowOne = 0.0
    """Share of the training, at its beginning, in which the largest subnet alone is trained."""
    widen: ShareBelowOne = 0.0
    """Share of the training, after that, over which the choices widen from the largest ones to all; the budget does not count
    yet."""
    draw_from: Literal["space", "band"] = "space"
    """Where random architectures come from: the whole space (published), or its part that keeps the budget."""
    arch_per_rank: bool = False
    """Draw other architectures in each training process: more per step, and results depend on the number of processes."""
    distill: DistillConfig = field(default_factory=DistillConfig)
    """Learning from another network."""
    ema: Decay | None = None
    """Decay of an exponential moving average of the weights, as 0.9998, which then are the supernet's; less in the first steps
    (timm's warm-up). None: the weights themselves."""
    micro_batch: Count | None = None
    """Images per forward pass of one training process; gradients of a step are summed over its passes, so results are the same
    to rounding, in less memory and more time. Default: all at once, where memory allows."""
    precision: Precision = "auto"
    compile: bool = False
    """Compile the blocks of a network that is trained alone, as a champion (torch.compile): seconds before its first step, for
    long trainings on GPUs. Supernets are not compiled: each architecture has shapes of its own."""
    fsdp: bool = False
    """Divide weights, gradients and moments among the training processes (PyTorch's FSDP2), for supernets that fill a GPU."""
    weight_init: Literal["trunc_normal", "xavier"] = "trunc_normal"
    """Initial weights: timm's for ViT, or Xavier's, which starts small networks much faster."""
    pos_embed_std: NotNegative = 0.02
    """Standard deviation of the initial position embedding."""
    workers: Count | tuple[Count, Count] | None = None
    """Training processes; as many as the cluster's GPUs, or 2 where there are none, when not given. Two numbers: at least and
    at most so many, as nodes come and go; results are the same to rounding."""
    nodes: NodesConfig = field(default_factory=NodesConfig)
    """Machines that a cluster starts for them."""
    shards: Count | None = None
    """Equal parts of a step's images, each with chance of its own, which the processes share: whatever their number, up to
    this, results are the same to rounding. Default: the greatest number of processes; without GPUs at least 2."""
    save_epochs: Count = 1
    """Epochs between two checkpoints."""
    save_minutes: Positive = 10.0
    """Minutes after which an unfinished epoch is saved too."""
    loader_workers: CountOrNone | None = None
    """Processes that prepare images for each training process (folders only). Default: none where images are decoded in memory
    and small, or where there is no GPU; else what the cores allow."""
    max_failures: CountOrNone = 3
    """How often training restarts from its last epoch after a lost worker."""
    max_skipped_steps: CountOrNone = 20
    """How many steps in a row are skipped, as their loss or gradient is not finite, before training ends."""

    def __post_init__(self) -> None:
        """Raises UserError for counts and rates that cannot be, alone or together."""
        check_numbers(self)
        if self.strategy == "multi" and self.archs_per_step < 2:
            raise SettingError(
                "archs_per_step", "is 1, must be at least 2 with strategy multi: that many share a step's images"
            )
        for name, clashes in (("arch_per_rank", self.arch_per_rank), ("precision", self.precision == "float16")):
            if self.fsdp and clashes:
                value = getattr(self, name)
                raise SettingError(name, f"is {value}, which does not go with fsdp: processes that share weights compute alike")
        least, most = self.worker_range or (1, 1)
        if least > most:
            raise SettingError("workers", f"is {least} {most}, must be the smaller number first")
        if self.shards is not None and most > self.shards:
            raise SettingError("shards", f"is {self.shards}, must be at least the {most} of train.workers")
        name, parts = ("workers", most) if self.shards is None else ("shards", self.shards)
        if self.batch_size % parts:
            raise SettingError(name, f"is {parts}, must divide train.batch-size {self.batch_size}")
        if self.largest_first + self.widen > 1:
            raise SettingError("widen", f"is {self.widen:g}, must be at most {1 - self.largest_first:g} beside largest-first")

    @property
    def worker_range(self) -> tuple[int, int] | None:
        """Least and greatest number of training processes; None where the cluster decides."""
        return (self.workers, self.workers) if isinstance(self.workers, int) else self.workers

    def dealt_into(self, processes: int, *, gpus: bool) -> int:
        """Shards of a step that at most so many processes share.

        Twice as many shards are twice as many forward passes: little more time on a processor, where two make one process train
        as two do, and much on a GPU with small networks. Mixup asks for an even number of images in each.
        """
        if self.shards is not None or gpus or processes > 1:
            return self.shards or processes
        return 1 if self.batch_size % (4 if self.mixup or self.cutmix else 2) else 2

    def learning_rate(self, step: int, *, steps_per_epoch: int) -> float:
        """Learning rate of a step (0-based): linear warm-up, then a cosine down to ``min_lr`` at the last step."""
        warmup = round(self.warmup_epochs * steps_per_epoch)
        if step < warmup:
            return self.warmup_lr + (self.lr - self.warmup_lr) * step / warmup
        progress = (step - warmup) / max(1, self.epochs * steps_per_epoch - warmup - 1)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
