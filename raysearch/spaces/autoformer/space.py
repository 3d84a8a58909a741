"""The AutoFormer architecture, its search spaces and the published subnets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from raysearch.errors import UserError
from raysearch.space import Architecture, Choice, SearchSpace


@dataclass(frozen=True, slots=True)
class AutoFormerArchitecture(Architecture):
    """One vision transformer. Hashable, so it is its own key in caches and populations."""

    embed_dim: int
    """Width of the tokens, one choice for the whole net."""
    num_heads: tuple[int, ...]
    """Attention heads of each block; the width of Q, K and V is heads x head dimension, independent of embed_dim."""
    mlp_ratio: tuple[float, ...]
    """Hidden features of each block's feed-forward part, as a multiple of embed_dim (rounded down)."""

    def __post_init__(self) -> None:
        """Raises UserError when the per-block values disagree about the depth or a number is not positive."""
        Architecture.__post_init__(self)  # super() would not survive slots=True, which makes a new class
        if len(self.num_heads) != len(self.mlp_ratio):
            raise UserError(f"{len(self.num_heads)} num_heads but {len(self.mlp_ratio)} mlp_ratio; give one of each per block")
        if not self.num_heads:
            raise UserError("num_heads and mlp_ratio are empty; a network has at least one block")
        if self.embed_dim < 1:
            raise UserError(f"embed_dim is {self.embed_dim}, not a positive number")
        for block, (heads, ratio) in enumerate(zip(self.num_heads, self.mlp_ratio, strict=True)):
            if heads < 1:
                raise UserError(f"num_heads[{block}] is {heads}, not a positive number")
            if int(self.embed_dim * ratio) < 1:
                raise UserError(f"mlp_ratio[{block}] is {ratio}: no hidden feature at embed_dim {self.embed_dim}")

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.num_heads)

    def hidden_features(self, block: int) -> int:
        """Hidden features of the feed-forward part of ``block``: ``int(embed_dim * mlp_ratio)`` (REFERENCE rule 1)."""
        return int(self.embed_dim * self.mlp_ratio[block])


class AutoFormerSpace(SearchSpace[AutoFormerArchitecture]):
    """Architectures from options for the width (once per net), heads and ratio (per block) and depth."""

    def __init__(
        self, *, embed_dim: Sequence[int], num_heads: Sequence[int], mlp_ratio: Sequence[float], depth: Sequence[int]
    ) -> None:
        super().__init__(
            AutoFormerArchitecture,
            [
                Choice("mlp_ratio", tuple(float(ratio) for ratio in mlp_ratio), per="block"),
                Choice("num_heads", tuple(num_heads), per="block"),
                Choice("embed_dim", tuple(embed_dim)),
            ],
            depth=tuple(depth),
        )

    @classmethod
    def tiny(
        cls,
        *,
        embed_dim: Sequence[int] = (192, 216, 240),
        num_heads: Sequence[int] = (3, 4),
        mlp_ratio: Sequence[float] = (3.5, 4.0),
        depth: Sequence[int] = (12, 13, 14),
    ) -> Self:
        """AutoFormer-T: 1,056,964,608 subnets. The published T subnet also uses ratio 3, which its space does not list."""
        return cls(embed_dim=embed_dim, num_heads=num_heads, mlp_ratio=mlp_ratio, depth=depth)

    @classmethod
    def small(
        cls,
        *,
        embed_dim: Sequence[int] = (320, 384, 448),
        num_heads: Sequence[int] = (5, 6, 7),
        mlp_ratio: Sequence[float] = (3.0, 3.5, 4.0),
        depth: Sequence[int] = (12, 13, 14),
    ) -> Self:
        """AutoFormer-S: 7.7e13 subnets."""
        return cls(embed_dim=embed_dim, num_heads=num_heads, mlp_ratio=mlp_ratio, depth=depth)

    @classmethod
    def base(
        cls,
        *,
        embed_dim: Sequence[int] = (528, 576, 624),
        num_heads: Sequence[int] = (8, 9, 10),
        mlp_ratio: Sequence[float] = (3.0, 3.5, 4.0),
        depth: Sequence[int] = (14, 15, 16),
    ) -> Self:
        """AutoFormer-B: 6.2e15 subnets, heads as in the paper (its configuration file lists 9 and 10 only)."""
        return cls(embed_dim=embed_dim, num_heads=num_heads, mlp_ratio=mlp_ratio, depth=depth)


PUBLISHED_TINY = AutoFormerArchitecture(
    embed_dim=192,
    num_heads=(3,) * 10 + (4, 3, 3),
    mlp_ratio=(3.5, 3.5, 3, 3.5, 3, 3, 4, 4, 3.5, 4, 3.5, 4, 3.5),
)
"""The subnet published as AutoFormer-T: 5,867,944 parameters, 74.7 % top-1 on ImageNet."""

PUBLISHED_SMALL = AutoFormerArchitecture(
    embed_dim=384,
    num_heads=(6, 6, 5, 7, 5, 5, 5, 6, 6, 7, 7, 6, 7),
    mlp_ratio=(3, 3.5, 3, 3.5, 4, 4, 4, 4, 4, 4, 4, 3.5, 4),
)
"""The subnet published as AutoFormer-S: 22,891,432 parameters, 81.7 % top-1 on ImageNet."""

PUBLISHED_BASE = AutoFormerArchitecture(
    embed_dim=576,
    num_heads=(9, 9, 9, 9, 9, 10, 9, 9, 10, 9, 10, 9, 9, 10),
    mlp_ratio=(3.5, 3.5, 4, 3.5, 4, 3.5, 3.5, 3, 4, 4, 3, 4, 3, 3.5),
)
"""The subnet published as AutoFormer-B: 53,691,688 parameters, 82.4 % top-1 on ImageNet."""
