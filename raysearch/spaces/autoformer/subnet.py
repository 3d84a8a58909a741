"""A subnet on its own: a plain vision transformer with parameters of exactly its size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from raysearch.nn.attention import attention
from raysearch.nn.drop_path import drop_path
from raysearch.nn.entangled import LAYER_NORM_EPS
from raysearch.nn.relative_position import RelativePosition, RelativePositionGrid, RelativePositionTables
from raysearch.spaces.autoformer.geometry import AutoFormerGeometry
from raysearch.spaces.autoformer.space import AutoFormerArchitecture
from raysearch.spaces.autoformer.weights import draw_weights
from raysearch.spaces.supernet import Subnet, WeightInit

LAYERS: Mapping[str, Any] = {
    "stem": r"^(?:cls_token|pos_embed|patch_embed)",
    "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
}
"""Patterns of parameters' names by layer, in timm's form; what none matches is the head."""


def position_grid(geometry: AutoFormerGeometry) -> RelativePositionGrid | None:
    """The constants of relative position; None without it.

    They are made for good even where weights are only declared, on the meta device: no state dict brings them, and computing
    there makes torch import its compiler, which takes seconds and 100 MB in every evaluator.
    """
    if not geometry.relative_position:
        return None
    device = torch.get_default_device()
    with torch.device("cpu" if device.type == "meta" else device):
        return RelativePositionGrid(geometry.grid_size, geometry.max_relative_position)


class AutoFormerSubnet(Subnet):
    """The network that an architecture describes, independent of any supernet.

    Its parameters have the names of timm's ``VisionTransformer`` where timm has them; qkv rows hold Q, then K, then V. A saved
    ``state_dict`` loads into a new ``AutoFormerSubnet(geometry, arch)``.

    Args:
        geometry: sizes of the supernet that it comes from: images, patches, classes, relative position, and the depth over
            which ``drop_path_rate`` rises.
        arch: width, heads and ratios. Raises UserError when they do not fit into ``geometry``.
        drop_path_rate: stochastic depth of the supernet's last block, in training mode.

    """

    def __init__(self, geometry: AutoFormerGeometry, arch: AutoFormerArchitecture, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        geometry.check(arch)
        self.geometry = geometry
        self.arch = arch
        embed_dim = arch.embed_dim
        self.patch_embed = _PatchEmbed(geometry, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, geometry.tokens, embed_dim)) if geometry.abs_pos else None
        self.position_grid = position_grid(geometry)
        rates = geometry.drop_path_rates(drop_path_rate)
        self.blocks = nn.ModuleList(_Block(geometry, arch, block, rates[block]) for block in range(arch.depth))
        self.norm = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.head = nn.Linear(embed_dim, geometry.num_classes)

    def forward(self, images: Float[Tensor, "batch chans height width"]) -> Float[Tensor, "batch classes"]:
        """Class logits."""
        geometry = self.geometry
        geometry.check_images(images)
        x = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        for block in self.blocks:
            x = block(x, self.position_grid)
        x = self.norm(x)
        return self.head(x[:, 1:].mean(dim=1) if geometry.global_pool == "avg" else x[:, 0])

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
        """Draw all weights anew by the rules of :func:`draw_weights`, each tensor from this subnet's own sizes."""
        draw_weights(self, weight_init=weight_init, pos_embed_std=pos_embed_std, generator=generator)


class _PatchEmbed(nn.Module):
    def __init__(self, geometry: AutoFormerGeometry, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(geometry.in_chans, embed_dim, geometry.patch_size, stride=geometry.patch_size)

    def forward(self, images: Float[Tensor, "batch chans height width"]) -> Float[Tensor, "batch patches embed"]:
        return self.proj(images).flatten(2).transpose(1, 2)


class _Attention(nn.Module):
    def __init__(self, geometry: AutoFormerGeometry, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        width = num_heads * geometry.head_dim
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * width, bias=geometry.qkv_bias)
        self.proj = nn.Linear(width, embed_dim)
        if geometry.relative_position:
            self.rel_pos_embed_k = RelativePositionTables(geometry.max_relative_position, geometry.head_dim)
            self.rel_pos_embed_v = RelativePositionTables(geometry.max_relative_position, geometry.head_dim)

    def forward(
        self, x: Float[Tensor, "batch tokens embed"], grid: RelativePositionGrid | None
    ) -> Float[Tensor, "batch tokens embed"]:
        position: RelativePosition | None = None
        if grid is not None:
            position = grid(self.rel_pos_embed_k, self.rel_pos_embed_v)
        return attention(
            x,
            num_heads=self.num_heads,
            qkv_weight=self.qkv.weight,
            qkv_bias=self.qkv.bias,
            proj_weight=self.proj.weight,
            proj_bias=self.proj.bias,
            position=position,
        )


class _MLP(nn.Module):
    def __init__(self, embed_dim: int, hidden_features: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_features)
        self.fc2 = nn.Linear(hidden_features, embed_dim)

    def forward(self, x: Float[Tensor, "batch tokens embed"]) -> Float[Tensor, "batch tokens embed"]:
        return self.fc2(F.gelu(self.fc1(x)))


class _Block(nn.Module):
    def __init__(self, geometry: AutoFormerGeometry, arch: AutoFormerArchitecture, block: int, drop_path_rate: float) -> None:
        super().__init__()
        self.drop_path_rate = drop_path_rate
        self.norm1 = nn.LayerNorm(arch.embed_dim, eps=LAYER_NORM_EPS)
        self.attn = _Attention(geometry, arch.embed_dim, arch.num_heads[block])
        self.norm2 = nn.LayerNorm(arch.embed_dim, eps=LAYER_NORM_EPS)
        self.mlp = _MLP(arch.embed_dim, arch.hidden_features(block))

    def forward(
        self, x: Float[Tensor, "batch tokens embed"], grid: RelativePositionGrid | None
    ) -> Float[Tensor, "batch tokens embed"]:
        x = x + drop_path(self.attn(self.norm1(x), grid), self.drop_path_rate, self.training)
        return x + drop_path(self.mlp(self.norm2(x)), self.drop_path_rate, self.training)
