"""Stochastic depth. Own code, because the libraries that have it take seconds to import, in every evaluator anew."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def drop_path(x: Float[Tensor, "batch ..."], rate: float, training: bool) -> Float[Tensor, "batch ..."]:
    """A residual branch, left out for each image with probability ``rate`` while training (Huang et al., ECCV 2016).

    Branches that stay are scaled by ``1 / (1 - rate)``, so that the mean over draws is the branch itself.
    """
    if rate == 0 or not training:
        return x
    kept = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(1 - rate)
    return x * kept / (1 - rate)
