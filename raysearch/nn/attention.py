"""Multi-head self-attention with optional 2-D relative position, as a function of its weights.

Supernet and extracted subnet call the same :func:`attention`, one with slices and one with its own parameters, so that they
agree by construction.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from raysearch.nn.relative_position import RelativePosition

Form = Literal["fused", "matmul"]
"""One call of ``scaled_dot_product_attention``, or plain products around a softmax."""


@cache
def _has_bfloat16_units() -> bool:
    """Whether this CPU multiplies bfloat16 in units of its own (AVX512-BF16 or AMX)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def attention_form(device_type: str, dtype: torch.dtype) -> Form:
    """The faster form on a device, as ``benchmarks/speed.py`` measures it (docs/benchmarks.md).

    Fused kernels keep the tokens x tokens weights in the cache. Only CPUs with bfloat16 units are faster without, in bfloat16.
    """
    return "matmul" if device_type == "cpu" and dtype == torch.bfloat16 and _has_bfloat16_units() else "fused"


def attend(
    q: Float[Tensor, "batch heads tokens dim"],
    k: Float[Tensor, "batch heads tokens dim"],
    v: Float[Tensor, "batch heads tokens value"],
    *,
    scale: float,
    form: Form,
) -> Float[Tensor, "batch heads tokens value"]:
    """``softmax(scale q k^T) v`` in the given form."""
    if form == "matmul":
        return ((q * scale) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
    if q.device.type == "cpu":
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    # The fused kernels of GPUs take widths that are multiples of 8, else PyTorch falls back to plain products. Zeros change
    # no logit, and the outputs that they add are cut off again; the scale is given, as the kernel would take it from the width.
    q, k, wide = (F.pad(t, (0, -t.shape[-1] % 8)) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, wide, scale=scale)[..., : v.shape[-1]]


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
    form = attention_form(q.device.type, q.dtype)
    if position is None:
        out = attend(q, k, v, scale=head_dim**-0.5, form=form)
    else:
        # Shaw et al. 2018 add to each pair's logit a product of q with a vector of the pair's distance, and to each output a
        # vector per pair, weighted as the values are: read so, both need a tensor (tokens, tokens, dim), which is most of the
        # published code's time and memory. But a pair's vector is the sum of one for its row distance and one for its column
        # distance, and all keys of one row share the first. So, for one query, its products with a vector per row and per
        # column of the grid are all there is (`to_places`, gathered from the products with the tables, which know distances),
        # and a key picks its two by a 0/1 membership: logits = scale (q k + to_places places). That is one longer product,
        # so relative position only widens q, k and v, and any fused kernel computes it. On the value side the same membership
        # collects, for each query, how much weight went to each row and column, which the value tables then turn into vectors.
        places = position.membership.to(k.dtype).expand(*k.shape[:2], -1, -1)
        to_places = (q @ position.key.t()).gather(-1, position.entries.expand(*q.shape[:2], -1, -1))
        wide = attend(
            torch.cat([q, to_places], dim=-1),
            torch.cat([k, places], dim=-1),
            torch.cat([v, places], dim=-1),
            scale=head_dim**-0.5,
            form=form,
        )
        out, weights = wide.split([head_dim, places.shape[-1]], dim=-1)
        out = out + torch.einsum("bhns,nsd->bhnd", weights, position.value)
    return F.linear(out.transpose(1, 2).flatten(2), proj_weight, proj_bias)
