"""The command line's settings of an AutoFormer supernet and its space."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from raysearch.spaces.autoformer.geometry import AutoFormerGeometry
from raysearch.spaces.autoformer.space import AutoFormerSpace
from raysearch.tasks.images.config import DataConfig


@dataclass(frozen=True, slots=True)
class SpaceConfig:
    """The choices of an AutoFormer space."""

    embed_dim: tuple[int, ...] = (192, 216, 240)
    """Widths of the tokens, one for the whole net."""
    num_heads: tuple[int, ...] = (3, 4)
    """Attention heads, chosen for each block."""
    mlp_ratio: tuple[float, ...] = (3.5, 4.0)
    """Feed-forward widths relative to embed_dim, chosen for each block."""
    depth: tuple[int, ...] = (12, 13, 14)
    """Numbers of blocks."""

    def build(self) -> AutoFormerSpace:
        """The declared space."""
        return AutoFormerSpace(embed_dim=self.embed_dim, num_heads=self.num_heads, mlp_ratio=self.mlp_ratio, depth=self.depth)


@dataclass(frozen=True, slots=True)
class SupernetConfig:
    """The tensors that all subnets share; each at least as large as the largest choice."""

    patch_size: int = 16
    """Side of a square patch, in pixels."""
    embed_dim: int = 256
    depth: int = 14
    num_heads: int = 4
    mlp_ratio: float = 4.0
    head_dim: int = 64
    """Width of a head, the same in every subnet."""
    global_pool: Literal["avg", "token"] = "avg"
    """What the head sees: the mean of the patch tokens, or the class token."""
    relative_position: bool = True
    """2-D relative position on keys and values."""
    abs_pos: bool = True
    """Learned absolute position embedding."""
    max_relative_position: int = 14
    """Distance in patches beyond which relative positions are the same."""

    def geometry(self, dataset: DataConfig, *, num_classes: int) -> AutoFormerGeometry:
        """With image size and channels of a data set, and its number of classes. Raises ValueError when they do not fit."""
        return AutoFormerGeometry(img_size=dataset.img_size, in_chans=dataset.in_chans, num_classes=num_classes, **asdict(self))
