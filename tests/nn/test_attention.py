"""The fast form of relative position against its definition, pair by pair."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from raysearch.nn.attention import attend, attention
from raysearch.nn.relative_position import RelativePositionGrid, RelativePositionTables


def pair_vectors(tables: RelativePositionTables, grid: int, limit: int) -> Tensor:
    """(tokens, tokens, dim): what REFERENCE rule 4 adds for each pair of query and key."""
    tokens = grid * grid + 1
    vectors = torch.empty(tokens, tokens, tables.embeddings_table_v.shape[1])
    for query in range(tokens):
        for key in range(tokens):
            row = column = 0
            if query and key:
                (r0, c0), (r1, c1) = divmod(query - 1, grid), divmod(key - 1, grid)
                row = max(-limit, min(limit, r1 - r0)) + limit + 1
                column = max(-limit, min(limit, c1 - c0)) + limit + 1
            vectors[query, key] = tables.embeddings_table_v[row] + tables.embeddings_table_h[column]
    return vectors


@given(
    grid=st.integers(1, 5),
    limit=st.integers(0, 6),
    heads=st.integers(1, 3),
    embed_dim=st.integers(1, 9),
    bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=30, deadline=None)
def test_equals_the_pairwise_definition(grid: int, limit: int, heads: int, embed_dim: int, bias: bool, seed: int) -> None:
    torch.manual_seed(seed)
    head_dim, tokens = 4, grid * grid + 1
    key_tables, value_tables = RelativePositionTables(limit, head_dim), RelativePositionTables(limit, head_dim)
    for table in [*key_tables.parameters(), *value_tables.parameters()]:
        nn.init.normal_(table)
    x = torch.randn(2, tokens, embed_dim)
    qkv_weight = torch.randn(3 * heads * head_dim, embed_dim)
    qkv_bias = torch.randn(3 * heads * head_dim) if bias else None
    proj_weight, proj_bias = torch.randn(embed_dim, heads * head_dim), torch.randn(embed_dim)

    with torch.no_grad():
        out = attention(
            x,
            num_heads=heads,
            qkv_weight=qkv_weight,
            qkv_bias=qkv_bias,
            proj_weight=proj_weight,
            proj_bias=proj_bias,
            position=RelativePositionGrid(grid, limit)(key_tables, value_tables),
        )
        rows = (x @ qkv_weight.T + (0 if qkv_bias is None else qkv_bias)).reshape(2, tokens, 3, heads, head_dim)
        q, k, v = rows.permute(2, 0, 3, 1, 4).double()
        on_keys, on_values = pair_vectors(key_tables, grid, limit).double(), pair_vectors(value_tables, grid, limit).double()
        logits = torch.einsum("bhid,bhjd->bhij", q, k) + torch.einsum("bhid,ijd->bhij", q, on_keys)
        weights = (logits * head_dim**-0.5).softmax(dim=-1)
        heads_out = weights @ v + torch.einsum("bhij,ijd->bhid", weights, on_values)
        expected = heads_out.transpose(1, 2).flatten(2) @ proj_weight.T.double() + proj_bias
    torch.testing.assert_close(out.double(), expected, atol=1e-4, rtol=1e-4)


def test_both_forms_are_the_same_function_and_have_the_same_gradients() -> None:
    torch.manual_seed(0)
    outs, grads = [], []
    q, k, v = (torch.randn(2, 3, 17, width) for width in (12, 12, 12))
    weight = torch.randn(2, 3, 17, 12)
    for form in ("fused", "matmul"):
        inputs = [t.clone().requires_grad_() for t in (q, k, v)]
        out = attend(*inputs, scale=0.3, form=form)
        (out * weight).sum().backward()
        outs.append(out)
        grads.append([t.grad for t in inputs])
    torch.testing.assert_close(outs[0], outs[1], atol=1e-6, rtol=1e-5)
    for fused, plain in zip(*grads, strict=True):
        torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-4)
