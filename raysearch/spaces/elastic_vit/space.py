"""Architectures of a pretrained vision transformer's subnets, and what may be chosen of one."""

from __future__ import annotations

from dataclasses import dataclass

from raysearch.errors import UserError
from raysearch.space import Architecture


@dataclass(frozen=True, slots=True)
class ElasticArchitecture(Architecture):
    """One subnet. Values of blocks stand in the order of their importance, the most important first.

    A subnet of ``k`` blocks keeps the ``k`` most important ones, at their places in the network: entry ``i`` is of the same
    block in every subnet that has it.
    """

    embed_dim: int
    """Channels of the residual stream, the most important of the network's; one choice for the whole net."""
    num_heads: tuple[int, ...]
    """Attention heads of each block."""
    hidden_features: tuple[int, ...]
    """Hidden neurons of each block's feed-forward part."""

    def __post_init__(self) -> None:
        """Raises UserError when the values of blocks disagree about the depth or a number is not positive."""
        Architecture.__post_init__(self)  # super() would not survive slots=True, which makes a new class
        if len(self.num_heads) != len(self.hidden_features):
            raise UserError(
                f"{len(self.num_heads)} num_heads but {len(self.hidden_features)} hidden_features; give one of each per block"
            )
        if not self.num_heads:
            raise UserError("num_heads and hidden_features are empty; a network has at least one block")
        if self.embed_dim < 1:
            raise UserError(f"embed_dim is {self.embed_dim}, not a positive number")
        for name in ("num_heads", "hidden_features"):
            for block, value in enumerate(getattr(self, name)):
                if value < 1:
                    raise UserError(f"{name}[{block}] is {value}, not a positive number")

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.num_heads)
