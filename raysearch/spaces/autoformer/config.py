"""The command line's settings of an AutoFormer supernet and its space."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self, cast

from raysearch.bounds import Count, Positive
from raysearch.errors import UserError
from raysearch.spaces.autoformer.geometry import AutoFormerGeometry, SupernetSizes
from raysearch.spaces.autoformer.space import AutoFormerSpace
from raysearch.tasks.task import Ends


@dataclass(frozen=True, slots=True)
class SpaceConfig:
    """The choices of an AutoFormer space."""

    embed_dim: tuple[Count, ...] = (192, 216, 240)
    """Widths of the tokens, one for the whole net."""
    num_heads: tuple[Count, ...] = (3, 4)
    """Attention heads, chosen for each block."""
    mlp_ratio: tuple[Positive, ...] = (3.5, 4.0)
    """Feed-forward widths relative to embed_dim, chosen for each block."""
    depth: tuple[Count, ...] = (12, 13, 14)
    """Numbers of blocks."""

    def build(self) -> AutoFormerSpace:
        """The declared space."""
        return AutoFormerSpace(embed_dim=self.embed_dim, num_heads=self.num_heads, mlp_ratio=self.mlp_ratio, depth=self.depth)


@dataclass(frozen=True, slots=True)
class AutoFormerConfig:
    """A space and the supernet that holds it."""

    space: SpaceConfig = field(default_factory=SpaceConfig)
    """What may be chosen."""
    net: SupernetSizes = field(default_factory=SupernetSizes)
    """The supernet."""

    def geometry(self, ends: Ends) -> AutoFormerGeometry:
        """The supernet's sizes for square images (chans, size, size). Raises UserError when they do not fit together."""
        if len(ends.input_shape) != 3 or ends.input_shape[1] != ends.input_shape[2]:
            raise UserError(f"AutoFormer takes square images (chans, size, size), not {ends.input_shape}")
        chans, size, _ = ends.input_shape
        return AutoFormerGeometry(**asdict(self.net), img_size=size, in_chans=chans, num_classes=ends.outputs)

    @classmethod
    def published(cls, space: AutoFormerSpace, net: AutoFormerGeometry) -> Self:
        """The configuration of a published space and its supernet."""
        options: dict[str, Any] = {choice.name: choice.options for choice in space.choices}
        return cls(
            SpaceConfig(depth=cast(tuple[int, ...], space.depth), **options),
            SupernetSizes(**{f.name: getattr(net, f.name) for f in fields(SupernetSizes)}),
        )
