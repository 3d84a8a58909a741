"""Vision transformers of timm's, of every layout, become supernets whose largest subnet is the very network."""

from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from timm_layouts import LAYOUTS, SMALL, images, vit

from raysearch.errors import UserError
from raysearch.spaces.elastic_vit import from_timm


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
