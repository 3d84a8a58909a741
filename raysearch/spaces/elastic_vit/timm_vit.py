"""timm's vision transformers, read by their structure: sizes, and weights in canonical form.

What a network computes is read from its modules, never from its name. A feature that elastic networks do not have is refused
by name, so that nothing is computed otherwise silently.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from raysearch.errors import UserError
from raysearch.spaces.elastic_vit.sizes import Activation, ElasticSizes, FinalNorm, NetConfig

PARITY = 1e-5
"""How far the largest subnet's outputs may be from timm's, on a scale of the largest output (of at least 1)."""

Pair = tuple[int, int]


def read_net(model: nn.Module) -> NetConfig:
    """What fixes the shape of a network of timm's, but for images and classes.

    Raises UserError that names the first feature which elastic networks do not have.
    """
    from timm.layers.attention import Attention
    from timm.layers.mlp import Mlp
    from timm.layers.patch_embed import PatchEmbed
    from timm.models.vision_transformer import Block, VisionTransformer

    if type(model) is not VisionTransformer:
        raise UserError(f"{_kind(model)} is no VisionTransformer of timm's, the one kind that is made elastic")
    vit: Any = model
    if vit.attn_pool is not None:
        _refuse(f"pooling by attention ({_kind(vit.attn_pool)})")
    if vit.global_pool not in ("token", "avg", "max", "avgmax"):
        _refuse(f"global_pool {vit.global_pool!r}")
    if type(vit.patch_embed) is not PatchEmbed:
        _refuse(f"patches by {_kind(vit.patch_embed)}")
    if not isinstance(vit.patch_embed.norm, nn.Identity):
        _refuse("a norm of the patch embedding")
    if not len(vit.blocks):
        _refuse("a network without blocks")
    for block in vit.blocks:
        if type(block) is not Block:
            _refuse(f"blocks of the kind {_kind(block)}")
        if type(block.attn) is not Attention:
            _refuse(f"attention of the kind {_kind(block.attn)}")
        if not (isinstance(block.attn.q_norm, nn.Identity) and isinstance(block.attn.k_norm, nn.Identity)):
            _refuse("norms of queries and keys (qk_norm)")
        if not isinstance(block.attn.norm, nn.Identity):
            _refuse("a norm of attention's output (scale_attn_norm)")
        if block.attn.gate is not None:
            _refuse("gated attention")
        if type(block.mlp) is not Mlp:
            _refuse(f"feed-forward parts of the kind {_kind(block.mlp)}")
        if not isinstance(block.mlp.norm, nn.Identity):
            _refuse("a norm inside feed-forward parts (scale_mlp_norm)")
    norms: dict[str, Any] = {name: norm for name, norm in _norms(vit) if not isinstance(norm, nn.Identity)}
    for name, norm in norms.items():
        if not isinstance(norm, nn.LayerNorm) or {name for name, _ in norm.named_parameters()} != {"weight", "bias"}:
            _refuse(f"{name} of the kind {_kind(norm)} or without scale and shift")
    if len(apart := sorted({float(norm.eps) for norm in norms.values()})) > 1:
        _refuse(f"norms of different eps ({', '.join(map(str, apart))})")
    first = vit.blocks[0]
    read = [_block_sizes(block) for block in vit.blocks]
    if any(sizes != read[0] for sizes in read):
        _refuse("blocks of different sizes")
    final: FinalNorm = "before-pool" if "norm" in norms else "after-pool" if "fc_norm" in norms else "none"
    if {"norm", "fc_norm"} <= norms.keys():
        _refuse("norms both before and after pooling")
    return NetConfig(
        patch_size=_pair(vit.patch_embed.patch_size),
        embed_dim=vit.embed_dim,
        depth=len(vit.blocks),
        **read[0],
        class_token=vit.cls_token is not None,
        registers=0 if vit.reg_token is None else vit.reg_token.shape[1],
        positions="none" if vit.pos_embed is None else "patches" if vit.no_embed_class else "all",
        patch_bias=vit.patch_embed.proj.bias is not None,
        first_norm="norm_pre" in norms,
        final_norm=final,
        pool=vit.global_pool,
        pool_prefix=bool(vit.pool_include_prefix),
        eps=first.norm1.eps,
    )


def read_sizes(model: nn.Module) -> ElasticSizes:
    """All sizes, for the images and classes that the network was made for. Raises UserError as :func:`read_net`."""
    net, vit = read_net(model), model
    if not isinstance(vit.head, nn.Linear):
        raise UserError("the network has no head; make it with num_classes")
    size = _pair(vit.patch_embed.img_size)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType]
    chans: Any = vit.in_chans
    return ElasticSizes(**asdict(net), img_size=size, in_chans=chans, num_classes=vit.head.out_features)


def canonical(state: Mapping[str, Tensor], net: NetConfig) -> dict[str, Tensor]:
    """Weights of :class:`ElasticNet` that compute what timm's ``state`` does, in its own order of heads and channels.

    Exact: the bias of keys adds the same to all logits of a query, and that of values the same to all outputs of a head.
    """
    made: dict[str, Tensor] = {}
    heads, dim = net.num_heads, net.head_dim
    for name, weight in state.items():
        weight = weight.detach()
        place, _, last = name.rpartition(".attn.")
        if last == "qkv.weight":
            made[f"{place}.attn.qkv"] = weight.unflatten(0, (3, heads, dim))
        elif last == "qkv.bias":
            made[f"{place}.attn.q_bias"] = weight.unflatten(0, (3, heads, dim))[0]
        elif last == "proj.weight":
            made[name] = weight.unflatten(1, (heads, dim))
            made[f"{place}.attn.proj.bias"] = _mean_of_values(state, place)
        elif last != "proj.bias":
            made[name] = weight
    for block in range(net.depth):  # a network of timm's may do without these
        for layer, rows in (("mlp.fc1", net.hidden_features), ("mlp.fc2", net.embed_dim)):
            made.setdefault(f"blocks.{block}.{layer}.bias", torch.zeros(rows))
    return {name: weight.clone(memory_format=torch.contiguous_format) for name, weight in made.items()}


def _mean_of_values(state: Mapping[str, Tensor], place: str) -> Tensor:
    """The bias of the projection, and what the bias of the values becomes behind it."""
    weight = state[f"{place}.attn.proj.weight"]
    bias = state.get(f"{place}.attn.proj.bias")
    total = torch.zeros(weight.shape[0], dtype=torch.float64) if bias is None else bias.detach().double()
    if (of_qkv := state.get(f"{place}.attn.qkv.bias")) is not None:
        total = total + weight.detach().double() @ of_qkv.detach().double().chunk(3)[2]
    return total.to(weight.dtype)


def check_parity(model: nn.Module, network: nn.Module, sizes: ElasticSizes) -> None:
    """Compare the largest subnet, on the CPU, with the network of timm's that it came from.

    Raises UserError that names the first layer whose outputs differ.
    """
    shape = (2, sizes.in_chans, *sizes.img_size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    theirs, ours = (_outputs(one.eval(), images) for one in (model, network))
    for name in theirs:
        far = float((theirs[name] - ours[name]).abs().max()) / max(1.0, float(theirs[name].abs().max()))
        if not far <= PARITY:
            raise UserError(f"the elastic network does not compute what timm's does: outputs of {name} differ by {far:.1g}")


@torch.no_grad()
def _outputs(model: Any, images: Tensor) -> dict[str, Tensor]:
    """What each block and the whole give, by name."""
    found: dict[str, Tensor] = {}
    hooks: list[Any] = []
    for name, block in model.blocks.named_children():
        hooks.append(block.register_forward_hook(lambda _block, _given, out, name=name: found.update({f"block {name}": out})))
    try:
        logits = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return {**found, "the head": logits}


def _norms(vit: Any) -> Iterator[tuple[str, nn.Module]]:
    yield from (("norm_pre", vit.norm_pre), ("norm", vit.norm), ("fc_norm", vit.fc_norm))
    for i, block in enumerate(vit.blocks):
        yield from ((f"blocks.{i}.norm1", block.norm1), (f"blocks.{i}.norm2", block.norm2))


def _block_sizes(block: Any) -> dict[str, Any]:
    return {
        "num_heads": block.attn.num_heads,
        "head_dim": block.attn.head_dim,
        "hidden_features": block.mlp.fc1.out_features,
        "query_bias": block.attn.qkv.bias is not None,
        "layer_scale": not isinstance(block.ls1, nn.Identity),
        "activation": _activation(block.mlp.act),
    }


def _activation(act: nn.Module) -> Activation:
    match _kind(act), getattr(act, "approximate", "none"):
        case "GELU", "none":
            return "gelu"
        case ("GELU", "tanh") | ("GELUTanh", _):
            return "gelu_tanh"
        case "QuickGELU", _:
            return "quick_gelu"
        case kind, _:
            _refuse(f"the activation {kind}")
            raise AssertionError


def _kind(module: object) -> str:
    return type(module).__name__


def _pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _refuse(feature: str) -> None:
    raise UserError(f"{feature}: elastic networks do not have this; take another vision transformer of timm's")
