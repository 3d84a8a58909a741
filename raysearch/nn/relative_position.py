"""2-D relative position on keys and values, exact and without a (tokens, tokens, dim) tensor.

AutoFormer (after iRPE, Wu et al. 2021) adds to each pair of query i and key j the vectors ``Tv[row offset] + Th[column
offset]`` of two tables. Each token is a row and a column of the patch grid, and the class token is one more row and one more
column of its own. With the constant membership matrix E (tokens x 2 (grid + 1): a one for the token's row, a one for its
column) the vector of the pair is ``E[j] @ R[i]``, where R[i] lists the vectors from query i to each row and to each column.
So

    q_i . vector(i, j)                  = (q_i R[i]^T) E[j]            the K side, part of the logits
    sum_j attention_ij vector(i, j)     = (sum_j attention_ij E[j]) R[i]        the V side, part of the output

and R has grid + 1 times 2 entries per query instead of one per pair. Each entry is a row of one of the tables, so the K side
needs no R: the products of a query with all rows are computed once and the ones that R would have asked for are picked out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


class RelativePosition(NamedTuple):
    """What one attention layer needs; see the module's docstring."""

    membership: Float[Tensor, "tokens slots"]
    """E: the row and the column of each token."""
    entries: Int[Tensor, "tokens slots"]
    """Which entry of the K side's tables leads from each token to each row and column."""
    key: Float[Tensor, "entries dim"]
    """Both tables of the K side, the rows' before the columns'."""
    value: Float[Tensor, "tokens slots dim"]
    """R of the V side: the vectors from each token to each row and column."""


class RelativePositionTables(nn.Module):
    """The two tables of one side (K or V) of a block, shared by its heads and by all its subnets.

    Row 0 of both serves every pair with the class token, row ``max_distance + 1 + d`` the signed distance d along the axis, key
    minus query, clipped to ``max_distance`` (REFERENCE rule 4).
    """

    def __init__(self, max_distance: int, head_dim: int) -> None:
        super().__init__()
        self.embeddings_table_v = nn.Parameter(torch.empty(2 * max_distance + 2, head_dim))
        self.embeddings_table_h = nn.Parameter(torch.empty(2 * max_distance + 2, head_dim))

    def joined(self) -> Float[Tensor, "entries dim"]:
        """Both tables below each other: vertical, horizontal."""
        return torch.cat([self.embeddings_table_v, self.embeddings_table_h])


class RelativePositionGrid(nn.Module):
    """Constants of a square grid of patches behind a class token. No parameters, nothing in the state dict."""

    membership: Tensor
    index: Tensor

    def __init__(self, grid_size: int, max_distance: int) -> None:
        super().__init__()
        place = torch.arange(grid_size)
        class_token = torch.tensor([grid_size])
        rows = torch.cat([class_token, place.repeat_interleave(grid_size)])
        columns = torch.cat([class_token, place.repeat(grid_size)])
        membership = torch.cat([F.one_hot(rows, grid_size + 1), F.one_hot(columns, grid_size + 1)], dim=1)
        self.register_buffer("membership", membership.to(torch.get_default_dtype()), persistent=False)
        distance = (place[None, :] - place[:, None]).clamp(-max_distance, max_distance)
        # The last row and column are the class token's: table row 0.
        entry = F.pad(distance + max_distance + 1, (0, 1, 0, 1))
        index = torch.cat([entry[rows], entry[columns] + 2 * max_distance + 2], dim=1)
        self.register_buffer("index", index, persistent=False)

    def forward(self, key: RelativePositionTables, value: RelativePositionTables) -> RelativePosition:
        """The position terms of a block with these tables."""
        return RelativePosition(self.membership, self.index, key.joined(), F.embedding(self.index, value.joined()))
