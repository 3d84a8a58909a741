"""A subnet as files that timm and PyTorch alone open: a stock network of timm's, or a small ``model.py`` where it is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from raysearch.spaces.elastic_vit.network import ElasticNet
from raysearch.spaces.elastic_vit.sizes import ElasticSizes
from raysearch.spaces.elastic_vit.space import ElasticArchitecture

ARCHITECTURE = "vit_tiny_patch16_224"
"""A plain vision transformer's name in timm; all of its sizes are replaced."""
EPS = 1e-6
"""Of timm's norms; a configuration cannot say another."""


def timm_files(net: ElasticNet, card: Mapping[str, Any]) -> dict[str, bytes]:
    """Files of a folder, by name, from a subnet and its model card's values.

    ``config.json`` and ``model.safetensors`` of ``timm.create_model("local-dir:FOLDER", pretrained=True)`` where all blocks are
    alike and heads fill the channels; else ``model.py`` that imports timm and torch only, its sizes and its weights. What they
    compute was compared with the subnet.
    """
    import timm

    sizes, arch = net.sizes, net.arch
    weights = timm_weights(net)
    arguments = model_arguments(sizes, arch)
    prepared = card.get("preprocessing") or {}
    seen = {
        "num_classes": sizes.num_classes,
        "input_size": [sizes.in_chans, *sizes.img_size],
        "fixed_input_size": True,
        "interpolation": prepared.get("interpolation", "bicubic"),
        "crop_pct": prepared.get("crop_pct", 1.0),
        "crop_mode": "center",
        "mean": list(prepared.get("mean", [0.5] * sizes.in_chans)),
        "std": list(prepared.get("std", [0.5] * sizes.in_chans)),
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    files = {"model.safetensors": safetensors.torch.save(weights, {"format": "pt"})}
    if is_stock(sizes, arch):
        stock: dict[str, Any] = {**arguments, "act_layer": _ACTIVATIONS[sizes.activation]}
        config = {
            "architecture": ARCHITECTURE,
            "num_classes": sizes.num_classes,
            "num_features": arch.embed_dim,
            "label_names": card.get("classes"),
            "model_args": stock,
            "pretrained_cfg": seen,
        }
        files["config.json"] = json.dumps(config, indent=2).encode()
        made: Any = timm.create_model(ARCHITECTURE, pretrained=False, num_classes=sizes.num_classes, **stock)
        made.load_state_dict(weights)
    else:
        blocks = [[heads, hidden] for _, heads, hidden in sizes.blocks(arch)]
        own = {"arguments": {**arguments, "num_classes": sizes.num_classes}, "blocks": blocks, "head_dim": sizes.head_dim}
        own |= {
            "eps": sizes.eps,
            "activation": _ACTIVATIONS[sizes.activation],
            "classes": card.get("classes"),
            "pretrained_cfg": seen,
        }
        files["model.json"] = json.dumps(own, indent=2).encode()
        files["model.py"] = _MODEL.encode()
        program: dict[str, Any] = {"__name__": "model"}
        exec(compile(_MODEL, "model.py", "exec"), program)
        made = program["build"](own)
        made.load_state_dict(weights)
    _compare(net, made, sizes)
    return files


def is_stock(sizes: ElasticSizes, arch: ElasticArchitecture) -> bool:
    """Whether a configuration of timm's says such networks: blocks alike, heads that fill the channels, timm's eps of norms."""
    alike = len({*arch.num_heads}) == len({*arch.hidden_features}) == 1
    return alike and sizes.eps == EPS and arch.num_heads[0] * sizes.head_dim == arch.embed_dim


def model_arguments(sizes: ElasticSizes, arch: ElasticArchitecture) -> dict[str, Any]:
    """Of timm's ``VisionTransformer``, as JSON values, but for classes and activation."""
    return {
        "img_size": list(sizes.img_size),
        "patch_size": list(sizes.patch_size),
        "in_chans": sizes.in_chans,
        "global_pool": sizes.pool,
        "embed_dim": arch.embed_dim,
        "depth": arch.depth,
        # Where blocks differ these are placeholders: heads that divide the channels, blocks that are replaced.
        "num_heads": arch.num_heads[0] if is_stock(sizes, arch) else 1,
        "mlp_ratio": (max(arch.hidden_features) + 0.5) / arch.embed_dim,  # timm rounds down
        "qkv_bias": sizes.query_bias,
        "init_values": None,
        "class_token": sizes.class_token,
        "pos_embed": "none" if sizes.positions == "none" else "learn",
        "no_embed_class": sizes.positions == "patches",
        "reg_tokens": sizes.registers,
        "pre_norm": sizes.first_norm,
        "final_norm": sizes.final_norm != "none",
        "fc_norm": sizes.final_norm == "after-pool",
        "pool_include_prefix": sizes.pool_prefix,
    }


@torch.no_grad()
def timm_weights(net: ElasticNet) -> dict[str, Tensor]:
    """The weights by timm's names and shapes; LayerScale is a part of the linear layers before it."""
    weights: dict[str, Tensor] = {name: weight.detach().cpu() for name, weight in net.state_dict().items()}
    made: dict[str, Tensor] = {}
    for place, (block, heads, _) in enumerate(net.sizes.blocks(net.arch)):
        old, new = f"blocks.{block}", f"blocks.{place}"
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias"):
            made[f"{new}.{name}"] = weights[f"{old}.{name}"]
        made[f"{new}.attn.qkv.weight"] = weights[f"{old}.attn.qkv"].flatten(0, 2)
        if (bias := weights.get(f"{old}.attn.q_bias")) is not None:
            made[f"{new}.attn.qkv.bias"] = torch.cat([bias.flatten(), torch.zeros(2 * heads * net.sizes.head_dim)])
        for layer, scale in (("attn.proj", "ls1"), ("mlp.fc2", "ls2")):
            gamma = weights.get(f"{old}.{scale}.gamma", torch.ones(net.arch.embed_dim))
            made[f"{new}.{layer}.weight"] = weights[f"{old}.{layer}.weight"].flatten(1) * gamma[:, None]
            made[f"{new}.{layer}.bias"] = weights[f"{old}.{layer}.bias"] * gamma
    made |= {name: weight for name, weight in weights.items() if not name.startswith("blocks.")}
    return {name: weight.clone(memory_format=torch.contiguous_format) for name, weight in made.items()}


def _compare(net: ElasticNet, made: Any, sizes: ElasticSizes) -> None:
    images = torch.randn(2, sizes.in_chans, *sizes.img_size, generator=torch.Generator().manual_seed(0))
    was_training = net.training
    with torch.no_grad():
        expected, given = net.eval()(images), made.eval()(images)
    net.train(was_training)
    far = float((expected - given).abs().max()) / max(1.0, float(expected.abs().max()))
    assert far <= 1e-4, f"timm's network differs by {far:.1g}"


_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}
"""Names in timm."""

_MODEL = '''"""A vision transformer whose blocks have heads and hidden neurons of their own: ``network = load()``."""

import json
from functools import partial
from pathlib import Path

from safetensors.torch import load_file
from timm.layers import Attention, LayerNorm, Mlp, get_act_layer
from timm.models.vision_transformer import VisionTransformer


def build(sizes):
    """The network with fresh weights; sizes as model.json has them."""
    arguments = sizes["arguments"]
    norm = partial(LayerNorm, eps=sizes["eps"])
    network = VisionTransformer(**arguments, act_layer=sizes["activation"], norm_layer=norm)
    width = arguments["embed_dim"]
    for block, (heads, hidden) in zip(network.blocks, sizes["blocks"]):
        block.attn = Attention(width, num_heads=heads, attn_head_dim=sizes["head_dim"], qkv_bias=arguments["qkv_bias"])
        block.mlp = Mlp(width, hidden, act_layer=get_act_layer(sizes["activation"]))
    network.pretrained_cfg = sizes["pretrained_cfg"]
    return network


def load(folder=None):
    """The network with its weights, in evaluation mode: normalised images (batch, chans, height, width) -> logits."""
    folder = Path(__file__).parent if folder is None else Path(folder)
    network = build(json.loads((folder / "model.json").read_text()))
    network.load_state_dict(load_file(folder / "model.safetensors"))
    return network.eval()
'''
