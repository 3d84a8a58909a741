"""The network of a subnet, which can also compute what a smaller one would, with leading parts of its weights.

Weights are in the canonical form of ELASTIC.md: no bias of keys, which softmax does not see; the bias of values is a part of
the projection's, so that a subnet keeps the mean of what its removed heads gave; queries, keys and values as (3, heads,
head_dim, embed), so that leading heads and channels are a slice. timm is not imported here: it takes seconds, in every process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from raysearch.nn.attention import attend, attention_form
from raysearch.nn.drop_path import drop_path
from raysearch.nn.entangled import EntangledLayerNorm, EntangledLinear
from raysearch.spaces.elastic_vit.sizes import Activation, ElasticSizes
from raysearch.spaces.elastic_vit.space import ElasticArchitecture
from raysearch.spaces.supernet import Subnet, WeightInit

LAYERS: Mapping[str, Any] = {
    "stem": r"^(?:cls_token|reg_token|pos_embed|patch_embed|norm_pre)",
    "blocks": [(r"^blocks\.(\d+)", None), (r"^(?:norm|fc_norm)", (99999,))],
}
"""Patterns of parameters' names by layer, in timm's form; what none matches is the head."""


def activate(x: Tensor, kind: Activation) -> Tensor:
    """One of the three GELUs that vision transformers are trained with."""
    if kind == "quick_gelu":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="tanh" if kind == "gelu_tanh" else "none")


class ElasticNet(Subnet):
    """One architecture as a network. Its parameters are named as timm's, and shaped as the module says.

    Args:
        sizes: of the whole network, also where this is a smaller one.
        arch: of this one. Raises UserError when it does not fit.
        drop_path_rate: stochastic depth of the whole network's last block, in training mode.

    """

    def __init__(self, sizes: ElasticSizes, arch: ElasticArchitecture, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        sizes.check(arch)
        self.sizes, self.arch = sizes, arch
        embed = arch.embed_dim

        def token(count: int) -> nn.Parameter | None:
            return nn.Parameter(torch.empty(1, count, embed)) if count else None

        def norm(wanted: bool) -> EntangledLayerNorm | None:
            return EntangledLayerNorm(embed, sizes.eps) if wanted else None

        self.patch_embed = _PatchEmbed(sizes, embed)
        self.cls_token = token(int(sizes.class_token))
        self.reg_token = token(sizes.registers)
        self.pos_embed = token(sizes.positioned)
        self.norm_pre = norm(sizes.first_norm)
        rates = sizes.drop_path_rates(drop_path_rate)
        self.blocks = nn.ModuleDict(
            {str(block): _Block(sizes, embed, heads, hidden, rates[block]) for block, heads, hidden in sizes.blocks(arch)}
        )
        self.norm = norm(sizes.final_norm == "before-pool")
        self.fc_norm = norm(sizes.final_norm == "after-pool")
        self.head = EntangledLinear(embed, sizes.num_classes)
        self.reset_parameters()

    def forward(
        self, images: Float[Tensor, "batch chans height width"], arch: ElasticArchitecture | None = None
    ) -> Float[Tensor, "batch classes"]:
        """Class logits of ``arch``, its own where none is given. Raises UserError when it or the images do not fit."""
        return self.head(self.pooled(images, arch), self.sizes.num_classes)

    def pooled(
        self, images: Float[Tensor, "batch chans height width"], arch: ElasticArchitecture | None = None
    ) -> Float[Tensor, "batch embed"]:
        """What the head sees."""
        arch, sizes = arch or self.arch, self.sizes
        sizes.check(arch)
        sizes.check_images(images)
        x = self._positioned(self.patch_embed(images, arch.embed_dim))
        if self.norm_pre is not None:
            x = self.norm_pre(x)
        for block, heads, hidden in sizes.blocks(arch):
            x = self.blocks[str(block)](x, heads, hidden)
        if self.norm is not None:
            x = self.norm(x)
        x = self._pool(x)
        return x if self.fc_norm is None else self.fc_norm(x)

    def _positioned(self, x: Float[Tensor, "batch patches embed"]) -> Float[Tensor, "batch tokens embed"]:
        """All tokens, class token first, then registers, with the position embedding where it covers them."""
        embed = x.shape[-1]
        position = None if self.pos_embed is None else self.pos_embed[..., :embed]
        if position is not None and self.sizes.positions == "patches":
            x = x + position
        prefix = [t[..., :embed].expand(x.shape[0], -1, -1) for t in (self.cls_token, self.reg_token) if t is not None]
        x = torch.cat([*prefix, x], dim=1)
        return x + position if position is not None and self.sizes.positions == "all" else x

    def _pool(self, x: Float[Tensor, "batch tokens embed"]) -> Float[Tensor, "batch embed"]:
        kind = self.sizes.pool
        if kind == "token":
            return x[:, 0]
        x = x if self.sizes.pool_prefix else x[:, self.sizes.prefix :]
        if kind == "avg":
            return x.mean(dim=1)
        return x.amax(dim=1) if kind == "max" else 0.5 * (x.amax(dim=1) + x.mean(dim=1))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which layer each parameter belongs to, as timm asks for learning rates by layer."""
        return dict(LAYERS)

    def reset_parameters(
        self,
        *,
        weight_init: WeightInit = "trunc_normal",
        pos_embed_std: float = 0.02,
        generator: torch.Generator | None = None,
    ) -> None:
        """Draw all weights anew: as timm's (normal, 0.02), or Xavier's; biases 0, scales 1 (LayerScale 0.1). Not on meta."""
        if self.head.weight.is_meta:
            return
        for name, weight in self.named_parameters():
            last = name.rpartition(".")[2]
            if last == "pos_embed":
                nn.init.trunc_normal_(weight, std=pos_embed_std, generator=generator)
            elif last in ("cls_token", "reg_token"):
                nn.init.trunc_normal_(weight, std=0.02, generator=generator)
            elif last == "gamma":
                nn.init.constant_(weight, 0.1)
            elif last == "weight" and weight.ndim == 1:
                nn.init.ones_(weight)
            elif last in ("bias", "q_bias"):
                nn.init.zeros_(weight)
            elif weight_init == "xavier":
                nn.init.xavier_uniform_(_matrix(name, weight), generator=generator)
            else:
                nn.init.trunc_normal_(weight, std=0.02, generator=generator)


def _matrix(name: str, weight: Tensor) -> Tensor:
    """A weight as the linear map that it is, (out, in), sharing its memory."""
    return weight.flatten(0, 2) if name.endswith("attn.qkv") else weight.flatten(1)


class _PatchEmbed(nn.Module):
    def __init__(self, sizes: ElasticSizes, embed_dim: int) -> None:
        super().__init__()
        self.proj = _Projection(sizes, embed_dim)

    def forward(
        self, images: Float[Tensor, "batch chans height width"], embed_dim: int
    ) -> Float[Tensor, "batch patches embed"]:
        """One token per patch, in row-major order."""
        weight, bias = self.proj.weight[:embed_dim], self.proj.bias
        tokens = F.conv2d(images, weight, None if bias is None else bias[:embed_dim], stride=weight.shape[-2:])
        return tokens.flatten(2).transpose(1, 2)


class _Projection(nn.Module):
    def __init__(self, sizes: ElasticSizes, embed_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(embed_dim, sizes.in_chans, *sizes.patch_size))
        self.bias = nn.Parameter(torch.empty(embed_dim)) if sizes.patch_bias else None


class _Block(nn.Module):
    def __init__(self, sizes: ElasticSizes, embed_dim: int, heads: int, hidden: int, drop_path_rate: float) -> None:
        super().__init__()
        self.activation, self.drop_path_rate = sizes.activation, drop_path_rate
        self.norm1 = EntangledLayerNorm(embed_dim, sizes.eps)
        self.attn = _Attention(sizes, embed_dim, heads)
        self.ls1 = _LayerScale(embed_dim) if sizes.layer_scale else None
        self.norm2 = EntangledLayerNorm(embed_dim, sizes.eps)
        self.mlp = _Mlp(embed_dim, hidden)
        self.ls2 = _LayerScale(embed_dim) if sizes.layer_scale else None

    def forward(self, x: Float[Tensor, "batch tokens embed"], heads: int, hidden: int) -> Float[Tensor, "batch tokens embed"]:
        attended = self.attn(self.norm1(x), heads)
        if self.ls1 is not None:
            attended = self.ls1(attended)
        x = x + drop_path(attended, self.drop_path_rate, self.training)
        features = self.mlp(self.norm2(x), hidden, self.activation)
        if self.ls2 is not None:
            features = self.ls2(features)
        return x + drop_path(features, self.drop_path_rate, self.training)


class _Attention(nn.Module):
    def __init__(self, sizes: ElasticSizes, embed_dim: int, heads: int) -> None:
        super().__init__()
        self.head_dim = sizes.head_dim
        self.qkv = nn.Parameter(torch.empty(3, heads, sizes.head_dim, embed_dim))
        self.q_bias = nn.Parameter(torch.empty(heads, sizes.head_dim)) if sizes.query_bias else None
        self.proj = _HeadProjection(embed_dim, heads, sizes.head_dim)

    def forward(self, x: Float[Tensor, "batch tokens embed"], heads: int) -> Float[Tensor, "batch tokens embed"]:
        weight = self.qkv[:, :heads, :, : x.shape[-1]]
        q, k, v = F.linear(x, weight.flatten(0, 2)).unflatten(-1, (3, heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        if self.q_bias is not None:
            q = q + self.q_bias[:heads, None].to(q.dtype)
        attended = attend(q, k, v, scale=self.head_dim**-0.5, form=attention_form(q.device.type, q.dtype))
        return self.proj(attended.transpose(1, 2), x.shape[-1])


class _HeadProjection(nn.Module):
    """From the outputs of the heads to the residual stream."""

    def __init__(self, embed_dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(embed_dim, heads, head_dim))
        self.bias = nn.Parameter(torch.empty(embed_dim))

    def forward(self, x: Float[Tensor, "batch tokens heads dim"], embed_dim: int) -> Float[Tensor, "batch tokens embed"]:
        weight = self.weight[:embed_dim, : x.shape[2]]
        return F.linear(x.flatten(2), weight.flatten(1), self.bias[:embed_dim])


class _Mlp(nn.Module):
    def __init__(self, embed_dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = EntangledLinear(embed_dim, hidden)
        self.fc2 = EntangledLinear(hidden, embed_dim)

    def forward(
        self, x: Float[Tensor, "batch tokens embed"], hidden: int, activation: Activation
    ) -> Float[Tensor, "batch tokens embed"]:
        return self.fc2(activate(self.fc1(x, hidden), activation), x.shape[-1])


class _LayerScale(nn.Module):
    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(embed_dim))

    def forward(self, x: Float[Tensor, "batch tokens embed"]) -> Float[Tensor, "batch tokens embed"]:
        return x * self.gamma[: x.shape[-1]]
