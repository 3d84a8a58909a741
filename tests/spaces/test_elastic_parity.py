"""Vision transformers of timm's, of every layout, become supernets whose largest subnet is the very network."""

from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from raysearch.errors import UserError
from raysearch.spaces.elastic_vit import from_timm

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


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_largest_subnet_is_the_network(layout: str):
    model = vit(**LAYOUTS[layout])
    supernet, space = from_timm(model)
    inputs = images(model)
    with torch.no_grad():
        expected = model(inputs)
        torch.testing.assert_close(supernet(inputs, space.largest()), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(supernet.extract(space.largest())(inputs), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(supernet(inputs, space.smallest()), expected, atol=1e-2)


@pytest.mark.parametrize("name", ["test_vit", "test_vit2"])
def test_networks_by_name(name: str):
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval()
    supernet, space = from_timm(model)
    with torch.no_grad():
        torch.testing.assert_close(supernet(images(model), space.largest()), model(images(model)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("layout", "feature"),
    [
        ({"qk_norm": True}, "qk_norm"),
        ({"scale_attn_norm": True}, "scale_attn_norm"),
        ({"scale_mlp_norm": True}, "scale_mlp_norm"),
        ({"class_token": False, "global_pool": "map"}, "AttentionPoolLatent"),
        ({"act_layer": "relu"}, "activation ReLU"),
        ({"norm_layer": "rmsnorm"}, "RmsNorm"),
        ({"block_fn": timm.models.vision_transformer.ResPostBlock}, "ResPostBlock"),
        ({"mlp_layer": timm.layers.SwiGLU}, "SwiGLU"),
        ({"attn_layer": "diff"}, "DiffAttention"),
        ({"num_classes": 0}, "no head"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(layout: dict[str, Any], feature: str):
    with pytest.raises(UserError, match=feature):
        from_timm(VisionTransformer(**{**SMALL, **layout}))


def test_other_networks_are_refused_by_name():
    with pytest.raises(UserError, match="ResNet is no VisionTransformer"):
        from_timm(timm.create_model("test_resnet", pretrained=False))
    with pytest.raises(UserError, match="VisionTransformerDistilled is no VisionTransformer"):
        from_timm(timm.create_model("deit_tiny_distilled_patch16_224", pretrained=False, depth=1))
