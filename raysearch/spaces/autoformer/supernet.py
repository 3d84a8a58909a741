"""The AutoFormer supernet: one set of weights, every subnet a prefix of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from raysearch.errors import UserError
from raysearch.nn.attention import attention
from raysearch.nn.drop_path import drop_path
from raysearch.nn.entangled import EntangledLayerNorm, EntangledLinear, EntangledPatchEmbed, EntangledQKV
from raysearch.nn.relative_position import RelativePosition, RelativePositionGrid, RelativePositionTables
from raysearch.space.cost import Cost
from raysearch.spaces.autoformer.geometry import AutoFormerGeometry
from raysearch.spaces.autoformer.space import AutoFormerArchitecture
from raysearch.spaces.autoformer.subnet import LAYERS, AutoFormerSubnet, position_grid
from raysearch.spaces.autoformer.weights import draw_weights
from raysearch.spaces.supernet import Calibration, Supernet, WeightInit, check_layout


class AutoFormerSupernet(Supernet[AutoFormerArchitecture]):
    """Weight-entangled vision transformer (Chen et al., ICCV 2021).

    The state dict has the keys and shapes of the published checkpoints (REFERENCE rule 8). Sizes are those of
    :class:`AutoFormerGeometry`; the defaults are the published AutoFormer-T. ``drop_path_rate`` is the stochastic depth of the
    last block in training mode.
    """

    def __init__(self, *, drop_path_rate: float = 0.1, **sizes: Any) -> None:
        super().__init__()
        if not 0 <= drop_path_rate < 1:
            raise UserError(f"drop_path_rate is {drop_path_rate}, not in 0..1")
        self.geometry = geometry = AutoFormerGeometry(**sizes)
        self.drop_path_rate = drop_path_rate
        self.patch_embed_super = EntangledPatchEmbed(geometry.in_chans, geometry.embed_dim, geometry.patch_size)
        self.cls_token = nn.Parameter(torch.empty(1, 1, geometry.embed_dim))
        self.pos_embed = nn.Parameter(torch.empty(1, geometry.tokens, geometry.embed_dim)) if geometry.abs_pos else None
        self.position_grid = position_grid(geometry)
        self.blocks = nn.ModuleList(_Block(geometry, rate) for rate in geometry.drop_path_rates(drop_path_rate))
        self.norm = EntangledLayerNorm(geometry.embed_dim)
        self.head = EntangledLinear(geometry.embed_dim, geometry.num_classes)
        self.reset_parameters()

    def reset_parameters(
        self,
        *,
        weight_init: WeightInit = "trunc_normal",
        pos_embed_std: float = 0.02,
        generator: torch.Generator | None = None,
    ) -> None:
        """Draw all weights anew by the rules of :func:`draw_weights`. On the meta device nothing is drawn."""
        if self.cls_token.is_meta:
            return  # as for position_grid: drawing there takes seconds and 100 MB
        draw_weights(self, weight_init=weight_init, pos_embed_std=pos_embed_std, generator=generator)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which layer each parameter belongs to, as timm asks for learning rates by layer."""
        return dict(LAYERS)

    def forward(
        self, images: Float[Tensor, "batch chans height width"], arch: AutoFormerArchitecture
    ) -> Float[Tensor, "batch classes"]:
        """Class logits of the subnet ``arch``. Raises UserError when it does not fit, or the images do not."""
        geometry, embed_dim = self.geometry, arch.embed_dim
        geometry.check(arch)
        geometry.check_images(images)
        x = self.patch_embed_super(images, embed_dim)
        x = torch.cat([self.cls_token[..., :embed_dim].expand(x.shape[0], -1, -1), x], dim=1)
        if self.pos_embed is not None:
            x = x + self.pos_embed[..., :embed_dim]
        for position, block in enumerate(self._blocks(arch)):
            x = block(
                x,
                num_heads=arch.num_heads[position],
                hidden_features=arch.hidden_features(position),
                grid=self.position_grid,
            )
        x = self.norm(x)
        return self.head(x[:, 1:].mean(dim=1) if geometry.global_pool == "avg" else x[:, 0], geometry.num_classes)

    def _blocks(self, arch: AutoFormerArchitecture) -> Iterator[_Block]:
        return (cast(_Block, block) for block in self.blocks[: arch.depth])

    def extract(self, arch: AutoFormerArchitecture, calibration: Calibration | None = None) -> AutoFormerSubnet:
        """The subnet ``arch`` with contiguous weights of its own, in the mode, on the device and of the type of this supernet.

        It has no running statistics, so ``calibration`` changes nothing. Raises UserError when ``arch`` does not fit.
        """
        with torch.device("meta"):  # no weights are drawn only to be replaced
            subnet = AutoFormerSubnet(self.geometry, arch, self.drop_path_rate)
        weights = {
            name: weight.detach().clone(memory_format=torch.contiguous_format) for name, weight in self._subnet_weights(arch)
        }
        subnet.load_state_dict(weights, assign=True)
        subnet.to(device=self.cls_token.device, dtype=self.cls_token.dtype)
        return subnet.train(self.training)

    def _subnet_weights(self, arch: AutoFormerArchitecture) -> Iterator[tuple[str, Tensor]]:
        """Names of :class:`AutoFormerSubnet` and the parts of this supernet's weights that belong there."""
        embed_dim = arch.embed_dim
        yield from _named("patch_embed.proj", self.patch_embed_super.proj.prefix(embed_dim))
        yield "cls_token", self.cls_token[..., :embed_dim]
        if self.pos_embed is not None:
            yield "pos_embed", self.pos_embed[..., :embed_dim]
        for position, block in enumerate(self._blocks(arch)):
            width, hidden = arch.num_heads[position] * self.geometry.head_dim, arch.hidden_features(position)
            here = f"blocks.{position}"
            yield from _named(f"{here}.norm1", block.attn_layer_norm.prefix(embed_dim))
            yield from _named(f"{here}.attn.qkv", block.attn.qkv.prefix(embed_dim=embed_dim, width=width))
            yield from _named(f"{here}.attn.proj", block.attn.proj.prefix(in_features=width, out_features=embed_dim))
            if self.geometry.relative_position:
                for side in ("rel_pos_embed_k", "rel_pos_embed_v"):
                    for name, table in cast(nn.Module, getattr(block.attn, side)).named_parameters():
                        yield f"{here}.attn.{side}.{name}", table
            yield from _named(f"{here}.norm2", block.ffn_layer_norm.prefix(embed_dim))
            yield from _named(f"{here}.mlp.fc1", block.fc1.prefix(in_features=embed_dim, out_features=hidden))
            yield from _named(f"{here}.mlp.fc2", block.fc2.prefix(in_features=hidden, out_features=embed_dim))
        yield from _named("norm", self.norm.prefix(embed_dim))
        yield from _named("head", self.head.prefix(in_features=embed_dim, out_features=self.geometry.num_classes))

    def cost(self, arch: AutoFormerArchitecture) -> Cost:
        """Closed-form cost; the convention stands at :meth:`AutoFormerGeometry.cost`."""
        return self.geometry.cost(arch)

    def settings(self) -> dict[str, Any]:
        """Constructor arguments as JSON values: ``AutoFormerSupernet(**settings)`` is an equal supernet."""
        return {**self.geometry.settings(), "drop_path_rate": self.drop_path_rate}

    def load_published(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load weights in the published key layout, as :func:`read_published` returns them.

        Raises UserError, before anything is changed, that names keys which are missing, unexpected or of another shape.
        """
        check_layout(state_dict, expected=self.state_dict())
        self.load_state_dict(dict(state_dict))


def _named(prefix: str, tensors: tuple[Tensor, Tensor | None]) -> Iterator[tuple[str, Tensor]]:
    weight, bias = tensors
    yield f"{prefix}.weight", weight
    if bias is not None:
        yield f"{prefix}.bias", bias


class _Attention(nn.Module):
    def __init__(self, geometry: AutoFormerGeometry) -> None:
        super().__init__()
        width = geometry.num_heads * geometry.head_dim
        self.head_dim = geometry.head_dim
        self.qkv = EntangledQKV(geometry.embed_dim, width, bias=geometry.qkv_bias)
        self.proj = EntangledLinear(width, geometry.embed_dim)
        if geometry.relative_position:
            self.rel_pos_embed_k = RelativePositionTables(geometry.max_relative_position, geometry.head_dim)
            self.rel_pos_embed_v = RelativePositionTables(geometry.max_relative_position, geometry.head_dim)

    def forward(
        self, x: Float[Tensor, "batch tokens embed"], *, num_heads: int, grid: RelativePositionGrid | None
    ) -> Float[Tensor, "batch tokens embed"]:
        embed_dim, width = x.shape[-1], num_heads * self.head_dim
        qkv_weight, qkv_bias = self.qkv.prefix(embed_dim=embed_dim, width=width)
        proj_weight, proj_bias = self.proj.prefix(in_features=width, out_features=embed_dim)
        position: RelativePosition | None = None
        if grid is not None:
            position = grid(self.rel_pos_embed_k, self.rel_pos_embed_v)
        return attention(
            x,
            num_heads=num_heads,
            qkv_weight=qkv_weight,
            qkv_bias=qkv_bias,
            proj_weight=proj_weight,
            proj_bias=proj_bias,
            position=position,
        )


class _Block(nn.Module):
    def __init__(self, geometry: AutoFormerGeometry, drop_path_rate: float) -> None:
        super().__init__()
        self.drop_path_rate = drop_path_rate
        self.attn = _Attention(geometry)
        self.attn_layer_norm = EntangledLayerNorm(geometry.embed_dim)
        self.ffn_layer_norm = EntangledLayerNorm(geometry.embed_dim)
        self.fc1 = EntangledLinear(geometry.embed_dim, geometry.hidden_features)
        self.fc2 = EntangledLinear(geometry.hidden_features, geometry.embed_dim)

    def forward(
        self,
        x: Float[Tensor, "batch tokens embed"],
        *,
        num_heads: int,
        hidden_features: int,
        grid: RelativePositionGrid | None,
    ) -> Float[Tensor, "batch tokens embed"]:
        attended = self.attn(self.attn_layer_norm(x), num_heads=num_heads, grid=grid)
        x = x + drop_path(attended, self.drop_path_rate, self.training)
        hidden = F.gelu(self.fc1(self.ffn_layer_norm(x), hidden_features))
        return x + drop_path(self.fc2(hidden, x.shape[-1]), self.drop_path_rate, self.training)
