"""Stochastic depth. Own code, because the libraries that have it take seconds to import, in every evaluator anew."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from jaxtyping import Float
from torch import Tensor

_part: tuple[int, int] | None = None
"""First item and number of items of the batch that the present inputs are a part of; None: they are whole."""


@contextmanager
def part_of_batch(start: int, whole: int) -> Generator[None]:
    """Inputs in here are items of a batch of ``whole``, from ``start`` on: each is given what the whole batch would give it.

    So a step in several passes drops what it would drop in one, if each pass begins with the generator in the same state.
    """
    global _part
    _part = start, whole
    try:
        yield
    finally:
        _part = None


def drop_path(x: Float[Tensor, "batch ..."], rate: float, training: bool) -> Float[Tensor, "batch ..."]:
    """A residual branch, left out for each image with probability ``rate`` while training (Huang et al., ECCV 2016).

    Branches that stay are scaled by ``1 / (1 - rate)``, so that the mean over draws is the branch itself.
    """
    if rate == 0 or not training:
        return x
    start, whole = _part or (0, x.shape[0])
    kept = x.new_empty((whole,) + (1,) * (x.ndim - 1)).bernoulli_(1 - rate)[start : start + x.shape[0]]
    return x * kept / (1 - rate)
