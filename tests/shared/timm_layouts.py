"""Small seeded vision transformers of timm's, of every layout that is made elastic."""

import json
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

SMALL: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 4, "num_classes": 7}
LAYOUTS: dict[str, dict[str, Any]] = {
    "deit": {},
    "augreg": {"norm_layer": "layernorm", "fc_norm": False},
    "deit3": {"init_values": 1e-2, "no_embed_class": True},
    "dinov2-reg": {"init_values": 1e-2, "reg_tokens": 4, "no_embed_class": True, "mlp_ratio": 3.0},
    "clip": {"pre_norm": True, "norm_layer": torch.nn.LayerNorm, "act_layer": "quick_gelu"},
    "siglip-gap": {"class_token": False, "global_pool": "avg", "fc_norm": False, "act_layer": "gelu_tanh"},
    "gap": {"class_token": False, "global_pool": "avg", "fc_norm": True, "qkv_bias": False},
    "registers in the table": {"reg_tokens": 2, "global_pool": "avg"},
    "not square": {"img_size": (32, 48), "patch_size": (8, 16), "in_chans": 1},
    "any hidden width": {"mlp_ratio": 1.7, "proj_bias": False},
    "no positions": {"pos_embed": "none", "global_pool": "avgmax", "pool_include_prefix": True},
    "dynamic size": {"dynamic_img_size": True, "global_pool": "max"},
}


def vit(**layout: Any) -> VisionTransformer:
    """Seeded, with no weight at its initial 0 or 1."""
    torch.manual_seed(0)
    model = VisionTransformer(**{**SMALL, **layout})
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    return model.eval()


def images(model: Any) -> torch.Tensor:
    return torch.randn(2, model.in_chans, *model.patch_embed.img_size, generator=torch.Generator().manual_seed(1))


SIZES: dict[str, Any] = {"img_size": 8, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3, "in_chans": 1}
"""For digits."""


def model_of(name: str = "vit_tiny_patch16_224", **sizes: Any) -> Any:
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, **sizes)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn(weight.shape))
    return model.eval()


def pretrained_folder(folder: Path, **sizes: Any) -> Path:
    """A small vision transformer of five classes as timm saves one for its hub."""
    sizes = {**SIZES, **sizes}
    save_file(dict(model_of(**sizes, num_classes=5).state_dict()), folder / "model.safetensors")
    seen = {"mean": [0.25], "std": [0.5], "interpolation": "bilinear", "crop_pct": 0.9, "input_size": [1, 8, 8]}
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 5, "model_args": sizes, "pretrained_cfg": seen}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
