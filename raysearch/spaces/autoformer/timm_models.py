"""Names for ``timm.create_model``, registered when this module is imported.

``raysearch_autoformer_tiny``, ``_small`` and ``_base`` are the published subnets; ``checkpoint_path`` takes a published
supernet (``.pth``), out of which the subnet is cut, or the weights of the subnet alone. ``raysearch_autoformer`` is a network
of any size: give ``config="champion.json"``, or its sizes. Exported folders open as ``local-dir:FOLDER``.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import build_model_with_cfg, checkpoint, register_model
from timm.models._features import feature_take_indices
from timm.models.vision_transformer import global_pool_nlc
from torch import Tensor, nn

from raysearch.errors import UserError
from raysearch.spaces.autoformer import (
    PUBLISHED_BASE,
    PUBLISHED_SMALL,
    PUBLISHED_TINY,
    AutoFormerArchitecture,
    AutoFormerGeometry,
    AutoFormerSubnet,
    AutoFormerSupernet,
    geometry_of,
)
from raysearch.spaces.autoformer.subnet import LAYERS
from raysearch.spaces.autoformer.timm_folder import model_args, pretrained_config
from raysearch.store.folder import read_json
from raysearch.tasks.images.config import IMAGENET

__all__ = ["AutoFormer", "checkpoint_filter_fn"]  # timm adds the names that are registered

POOLS = ("", "avg", "avgmax", "max", "token")
"""What may stand between the last norm and the head; with "" the head sees every token."""

torch.serialization.add_safe_globals([pathlib.PosixPath])  # published files hold a path; timm's reader allows the rest


class AutoFormer(nn.Module):
    """An AutoFormer subnet with the methods that timm's networks have.

    Its parts, and with them the names of its weights, are those of :class:`AutoFormerSubnet`.

    Args:
        embed_dim: width of the tokens.
        num_heads: heads of each block.
        mlp_ratio: feed-forward width of each block, relative to ``embed_dim``.
        img_size: side of the square images, or height and width, which must be equal.
        num_classes: 0 for a network that ends before the head.
        global_pool: one of :data:`POOLS`.
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth of the last block, in training mode.
        sizes: the other sizes of :class:`AutoFormerGeometry`.

    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: Sequence[int],
        mlp_ratio: Sequence[float],
        img_size: int | Sequence[int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        **sizes: Any,
    ) -> None:
        super().__init__()
        _check_pool(global_pool)
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if height != width:
            raise UserError(f"img_size is {height} x {width}; AutoFormer takes square images")
        self.arch = arch = AutoFormerArchitecture(embed_dim, tuple(num_heads), tuple(mlp_ratio))
        self.geometry = AutoFormerGeometry(
            img_size=height,
            in_chans=in_chans,
            num_classes=max(1, num_classes),
            embed_dim=arch.embed_dim,
            depth=arch.depth,
            num_heads=max(arch.num_heads),
            mlp_ratio=max(arch.mlp_ratio),
            **sizes,
        )
        subnet = AutoFormerSubnet(self.geometry, arch, drop_path_rate)
        subnet.reset_parameters()
        self.patch_embed, self.cls_token, self.pos_embed = subnet.patch_embed, subnet.cls_token, subnet.pos_embed
        self.position_grid, self.blocks, self.norm = subnet.position_grid, subnet.blocks, subnet.norm
        self.head_drop = nn.Dropout(drop_rate)
        self.head: nn.Module = subnet.head if num_classes > 0 else nn.Identity()
        self.in_chans, self.num_classes, self.global_pool = in_chans, num_classes, global_pool
        self.num_features = self.head_hidden_size = self.embed_dim = arch.embed_dim
        self.num_prefix_tokens = 1
        self.grad_checkpointing = False
        self.feature_info = [
            {"module": f"blocks.{block}", "num_chs": arch.embed_dim, "reduction": self.geometry.patch_size}
            for block in range(arch.depth)
        ]
        self.register_load_state_dict_pre_hook(_adapt_in_place)

    def forward(self, x: Float[Tensor, "batch chans height width"]) -> Tensor:
        """Class logits (batch, classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Float[Tensor, "batch chans height width"]) -> Float[Tensor, "batch tokens embed"]:
        """Normalised tokens after the last block, the class token first."""
        x = self._embed(x)
        for block in self.blocks:
            x = self._run(block, x)
        return self.norm(x)

    def forward_head(self, x: Float[Tensor, "batch tokens embed"], pre_logits: bool = False) -> Tensor:
        """Pooled tokens (batch, embed) with ``pre_logits``, else class logits."""
        x = self.head_drop(global_pool_nlc(x, self.global_pool, num_prefix_tokens=self.num_prefix_tokens))
        return x if pre_logits else self.head(x)

    def forward_intermediates(
        self,
        x: Float[Tensor, "batch chans height width"],
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Any] | tuple[Tensor, list[Any]]:
        """Tokens after single blocks, as timm's vision transformers give them.

        Args:
            x: images.
            indices: these blocks, the last so many, or all.
            return_prefix_tokens: a pair of patch tokens and class token for each.
            norm: after the final norm.
            stop_early: leave out the blocks after the last of ``indices``.
            output_fmt: ``NCHW`` for maps (batch, embed, rows, columns), ``NLC`` for patch tokens.
            intermediates_only: without the final tokens.

        """
        if output_fmt not in ("NCHW", "NLC"):
            raise UserError(f"output_fmt is {output_fmt!r}, not 'NCHW' or 'NLC'")
        taken, last = feature_take_indices(len(self.blocks), _listed(indices))
        x = self._embed(x)
        found: list[Any] = []
        for i, block in enumerate(self.blocks):
            if stop_early and i > last:
                break
            x = self._run(block, x)
            if i in taken:
                tokens = self.norm(x) if norm else x
                prefix, patches = tokens[:, : self.num_prefix_tokens], tokens[:, self.num_prefix_tokens :]
                if output_fmt == "NCHW":
                    side = self.geometry.grid_size
                    patches = patches.transpose(1, 2).unflatten(2, (side, side)).contiguous()
                found.append((patches, prefix) if return_prefix_tokens else patches)
        return found if intermediates_only else (self.norm(x), found)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what ``forward_intermediates`` with these ``indices`` does not need; returns them counted from 0."""
        taken, last = feature_take_indices(len(self.blocks), _listed(indices))
        self.blocks = self.blocks[: last + 1]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return taken

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new head with fresh weights, none for 0 classes; and another pooling where one of :data:`POOLS` is given."""
        if global_pool is not None:
            _check_pool(global_pool)
            self.global_pool = global_pool
        self.num_classes = num_classes
        self.head = nn.Identity()
        if num_classes > 0:
            self.head = nn.Linear(self.embed_dim, num_classes, device=self.cls_token.device, dtype=self.cls_token.dtype)
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute blocks anew in the backward pass instead of keeping what they computed."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Parameters that timm's optimisers leave without weight decay, beside biases and norms."""
        return {"pos_embed", "cls_token"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which layer each parameter belongs to, for rates of learning by layer."""
        return dict(LAYERS)

    def _embed(self, images: Tensor) -> Tensor:
        self.geometry.check_images(images)
        x = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        return x if self.pos_embed is None else x + self.pos_embed

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, self.position_grid)
        return block(x, self.position_grid)


def _check_pool(global_pool: str) -> None:
    if global_pool not in POOLS:
        raise UserError(f"global_pool is {global_pool!r}; known: {', '.join(map(repr, POOLS))}")


def _listed(indices: int | Sequence[int] | None) -> int | list[int] | None:
    return indices if indices is None or isinstance(indices, int) else list(indices)


# --- weights ----------------------------------------------------------------------------------------------------------


def checkpoint_filter_fn(state_dict: Mapping[str, Tensor], model: AutoFormer) -> dict[str, Tensor]:
    """Weights by the names and shapes of ``model``, from those of a subnet or of a supernet that holds it.

    Position embeddings for images of another size are resampled. Raises UserError for a supernet that is too small.
    """
    weights = dict(state_dict)
    if "patch_embed_super.proj.weight" in weights:
        geometry = geometry_of(weights, img_size=model.geometry.img_size)
        with torch.device("meta"):
            supernet = AutoFormerSupernet(**asdict(geometry), drop_path_rate=0.0)
        supernet.load_state_dict(weights, assign=True)
        weights = dict(supernet.extract(model.arch).state_dict())
    given, own = weights.get("pos_embed"), model.pos_embed
    if given is not None and own is not None and given.shape[1] != own.shape[1]:
        side = model.geometry.grid_size
        weights["pos_embed"] = resample_abs_pos_embed(given, new_size=[side, side], num_prefix_tokens=model.num_prefix_tokens)
    return weights


def _adapt_in_place(model: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """``checkpoint_path`` hands the file's weights to ``load_state_dict`` as they are."""
    assert isinstance(model, AutoFormer)
    mine = {name.removeprefix(prefix): state_dict.pop(name) for name in list(state_dict) if name.startswith(prefix)}
    state_dict.update({prefix + name: weight for name, weight in checkpoint_filter_fn(mine, model).items()})


# --- names ------------------------------------------------------------------------------------------------------------


_PUBLISHED = pretrained_config(num_classes=1000, in_chans=3, img_size=224, preprocessing=asdict(IMAGENET))

default_cfgs: dict[str, dict[str, Any]] = {
    "raysearch_autoformer": _PUBLISHED,
    "raysearch_autoformer_tiny": _PUBLISHED,
    "raysearch_autoformer_small": _PUBLISHED,
    "raysearch_autoformer_base": _PUBLISHED,
}
"""What timm knows of each name: ImageNet's preprocessing, and no place to download from."""


def _create(name: str, pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    feature_cfg = {"out_indices": arguments.pop("out_indices", 3), "feature_cls": "getter"}
    return build_model_with_cfg(
        AutoFormer, name, pretrained, pretrained_filter_fn=checkpoint_filter_fn, feature_cfg=feature_cfg, **arguments
    )


def _published(name: str, arch: AutoFormerArchitecture, pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    return _create(name, pretrained, {**arch.to_dict(), **arguments})


@register_model
def raysearch_autoformer_tiny(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """AutoFormer-T as published: 5.9 M parameters, 74.7 % top-1 on ImageNet."""
    return _published("raysearch_autoformer_tiny", PUBLISHED_TINY, pretrained, arguments)


@register_model
def raysearch_autoformer_small(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """AutoFormer-S as published: 22.9 M parameters, 81.7 % top-1 on ImageNet."""
    return _published("raysearch_autoformer_small", PUBLISHED_SMALL, pretrained, arguments)


@register_model
def raysearch_autoformer_base(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """AutoFormer-B as published: 53.7 M parameters, 82.4 % top-1 on ImageNet."""
    return _published("raysearch_autoformer_base", PUBLISHED_BASE, pretrained, arguments)


@register_model
def raysearch_autoformer(pretrained: bool = False, config: str | Path | None = None, **arguments: Any) -> nn.Module:
    """A network of any size.

    Args:
        pretrained: with the weights beside ``config``; their head is left out where ``num_classes`` is another.
        config: JSON that stands beside the weights of an exported subnet, as ``champion.json``.
        arguments: of :class:`AutoFormer` and of timm; without ``config``, ``embed_dim``, ``num_heads`` and ``mlp_ratio`` at
            least. They take precedence over ``config``.

    """
    if config is not None:
        path = Path(config)
        values = read_json(path)
        if values.get("family") != "autoformer":
            raise UserError(f"{path} describes no AutoFormer subnet; give a file such as champion.json")
        settings = values["settings"]
        shape = {name: settings[name] for name in ("num_classes", "in_chans", "img_size")}
        known = pretrained_config(**shape, preprocessing=values["preprocessing"])
        known |= {"file": str(path.parent / values["weights"]), "label_names": values["classes"]}
        if arguments.get("pretrained_cfg") is None:
            arguments["pretrained_cfg"] = known
        arguments = {**model_args(values), **arguments}
    if absent := [name for name in ("embed_dim", "num_heads", "mlp_ratio") if name not in arguments]:
        raise UserError(f"raysearch_autoformer lacks {', '.join(absent)}; give config=FILE, as champion.json, or all sizes")
    return _create("raysearch_autoformer", pretrained, arguments)
