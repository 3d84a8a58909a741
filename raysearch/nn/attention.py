"""Multi-head self-attention with optional 2-D relative position, as a function of its weights.

Supernet and extracted subnet call the same :func:`attention`, one with slices and one with its own parameters, so that they
agree by construction.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from raysearch.nn.relative_position import RelativePosition


def attend(
    q: Float[Tensor, "batch heads tokens dim"],
    k: Float[Tensor, "batch heads tokens dim"],
    v: Float[Tensor, "batch heads tokens value"],
    *,
    scale: float,
) -> Float[Tensor, "batch heads tokens value"]:
    """``softmax(scale q k^T) v``: the one place that decides how it is computed.

    Relative position only widens q, k and v, so one call of ``scaled_dot_product_attention`` would do all of it on devices
    with a fused kernel. Plain products are the faster form on CPUs (bfloat16).
    """
    logits = (q * scale) @ k.transpose(-2, -1)
    return logits.softmax(dim=-1) @ v


def attention(
    x: Float[Tensor, "batch tokens embed"],
    *,
    num_heads: int,
    qkv_weight: Float[Tensor, "qkv embed"],
    qkv_bias: Float[Tensor, " qkv"] | None,
    proj_weight: Float[Tensor, "embed width"],
    proj_bias: Float[Tensor, " embed"],
    position: RelativePosition | None,
) -> Float[Tensor, "batch tokens embed"]:
    """Self-attention of ``num_heads`` heads; rows of ``qkv_weight`` hold Q, then K, then V.

    The scale is head_dim^-0.5; it multiplies the K term of the relative position as well, the V term is not scaled (REFERENCE
    rules 3 and 4).
    """
    q, k, v = F.linear(x, qkv_weight, qkv_bias).unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
    head_dim = q.shape[-1]
    if position is None:
        out = attend(q, k, v, scale=head_dim**-0.5)
    else:
        slots = position.membership.to(k.dtype).expand(*k.shape[:2], -1, -1)
        q_slots = torch.einsum("bhnd,nsd->bhns", q, position.key)
        wide = attend(
            torch.cat([q, q_slots.to(q.dtype)], dim=-1),
            torch.cat([k, slots], dim=-1),
            torch.cat([v, slots], dim=-1),
            scale=head_dim**-0.5,
        )
        out = wide[..., :head_dim] + torch.einsum("bhns,nsd->bhnd", wide[..., head_dim:], position.value)
    return F.linear(out.transpose(1, 2).flatten(2), proj_weight, proj_bias)
