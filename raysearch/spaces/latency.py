"""What the latency of a plain vision transformer is made of, by the widths of its parts: features of a fitted table."""

from __future__ import annotations

from collections.abc import Iterable

_BLOCK = ("block", "block embed", "width", "width embed", "hidden", "hidden embed")


def of_ends(embed_dim: int) -> dict[str, float]:
    """Patch projection, position embedding, final norm and head; a dictionary of all features."""
    return {"net": 1.0, "embed": float(embed_dim)} | dict.fromkeys(_BLOCK, 0.0)


def of_block(embed_dim: int, width: int, hidden: int) -> dict[str, float]:
    """A block's fixed part, what grows with its widths (norms, softmax, GELU) and with their products (linear layers).

    ``width``: of all heads together.
    """
    values = (1, embed_dim, width, width * embed_dim, hidden, hidden * embed_dim)
    return {name: float(value) for name, value in zip(_BLOCK, values, strict=True)}


def of_network(embed_dim: int, blocks: Iterable[tuple[int, int]]) -> dict[str, float]:
    """The ends and all blocks; of each its width and its hidden features."""
    total = of_ends(embed_dim)
    for width, hidden in blocks:
        for name, value in of_block(embed_dim, width, hidden).items():
            total[name] += value
    return total
