"""Networks as timm's users know them: by name, with published or exported weights, heads and features."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path, PosixPath
from typing import Any, cast

import numpy as np
import pytest
import timm
import timm.data
import timm.optim
import torch
from PIL import Image
from torch import nn

import raysearch.export.timm  # noqa: F401
from raysearch.export import save_subnet
from raysearch.spaces.autoformer import (
    FAMILY,
    PUBLISHED_BASE,
    PUBLISHED_SMALL,
    PUBLISHED_TINY,
    AutoFormerArchitecture,
    AutoFormerGeometry,
    AutoFormerSupernet,
)
from raysearch.spaces.autoformer.timm_folder import folder_config
from raysearch.spaces.autoformer.timm_models import AutoFormer
from raysearch.store.model_card import ModelCard
from raysearch.tasks.images import IMAGENET, Normalisation
from raysearch.tasks.images.transforms import evaluation_crop, to_array
from raysearch.training.supernets import SupernetFile

ARCH = AutoFormerArchitecture(embed_dim=16, num_heads=(1, 2, 1), mlp_ratio=(2.0, 3.5, 1.0))
SIZES: dict[str, Any] = {"img_size": 16, "patch_size": 4, "num_classes": 4, "head_dim": 8, "max_relative_position": 3}
PREPARED = {"img_size": 16, "in_chans": 3, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.2], "interpolation": "bilinear"}


def create(*arguments: Any, **keywords: Any) -> AutoFormer:
    network = cast(AutoFormer, timm.create_model(*arguments, **keywords))
    return network.eval()


@pytest.fixture
def supernet() -> AutoFormerSupernet:
    torch.manual_seed(0)
    return AutoFormerSupernet(**SIZES, embed_dim=24, depth=4, num_heads=2).eval()


@pytest.fixture
def config(supernet: AutoFormerSupernet, tmp_path: Path) -> Path:
    """JSON of a subnet beside its weights."""
    card = ModelCard(
        family="autoformer",
        settings=supernet.settings(),
        arch=ARCH.to_dict(),
        classes=list("abcd"),
        preprocessing={**PREPARED, "crop_pct": 0.9},
    )
    save_subnet(tmp_path / "model.json", supernet.extract(ARCH), family=FAMILY, card=card)
    return tmp_path / "model.json"


@pytest.mark.parametrize(
    ("name", "geometry", "arch", "params"),
    [
        ("raysearch_autoformer_tiny", AutoFormerGeometry.tiny(), PUBLISHED_TINY, 5_867_944),
        ("raysearch_autoformer_small", AutoFormerGeometry.small(), PUBLISHED_SMALL, 22_891_432),
        ("raysearch_autoformer_base", AutoFormerGeometry.base(), PUBLISHED_BASE, 53_691_688),
    ],
)
def test_published_names_take_published_supernets(
    name: str, geometry: AutoFormerGeometry, arch: AutoFormerArchitecture, params: int
) -> None:
    supernet = AutoFormerSupernet(**geometry.settings()).eval()
    network = create(name)
    network.load_state_dict(supernet.state_dict())
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(network(images), supernet(images, arch), rtol=0, atol=1e-5)
    assert sum(weight.numel() for weight in network.parameters()) == params
    assert timm.data.resolve_model_data_config(network) == {
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "crop_pct": 0.875,
        "crop_mode": "center",
    }


def test_a_published_file_is_a_checkpoint_path(tmp_path: Path) -> None:
    supernet = AutoFormerSupernet(**AutoFormerGeometry.tiny().settings()).eval()
    published = tmp_path / "supernet-tiny.pth"
    arguments = argparse.Namespace(model="", lr=5e-4, output_dir=PosixPath("out"))
    torch.save({"model": supernet.state_dict(), "args": arguments, "epoch": 499}, published)
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        expected = supernet.extract(PUBLISHED_TINY)(images)
        assert torch.equal(create("raysearch_autoformer_tiny", checkpoint_path=str(published))(images), expected)
    source = {"file": str(published)}
    tuned = create("raysearch_autoformer_tiny", pretrained=True, pretrained_cfg_overlay=source, num_classes=7, in_chans=1)
    assert tuned(torch.randn(2, 1, 224, 224)).shape == (2, 7)  # a new head, and the patches' weights summed over the colours
    assert torch.equal(tuned.norm.weight, supernet.extract(PUBLISHED_TINY).norm.weight)
    larger = create("raysearch_autoformer_tiny", checkpoint_path=str(published), img_size=256)
    assert larger(torch.randn(1, 3, 256, 256)).shape == (1, 1000)
    with pytest.raises(ValueError, match="does not fit into the supernet's 256"):
        create("raysearch_autoformer_small", checkpoint_path=str(published))


def test_a_subnet_of_any_size(supernet: AutoFormerSupernet, config: Path, tmp_path: Path) -> None:
    images = torch.randn(3, 3, 16, 16)
    weights = str(config.with_suffix(".safetensors"))
    whole = tmp_path / "supernet.safetensors"
    SupernetFile(FAMILY, supernet.settings(), supernet.state_dict()).write(whole)
    folder = tmp_path / "folder"
    folder.mkdir()
    values = json.loads(config.read_text())
    (folder / "config.json").write_text(json.dumps(folder_config(values)))
    config.with_suffix(".safetensors").rename(folder / "model.safetensors")
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    networks = [
        create("raysearch_autoformer", config=str(config), pretrained=True),
        create("raysearch_autoformer", config=config, checkpoint_path=weights),
        create("raysearch_autoformer", config=config, checkpoint_path=str(whole)),
        create(f"local-dir:{folder}", pretrained=True),
        create("raysearch_autoformer", config=config, pretrained=True, drop_path_rate=0.1, drop_rate=0.1),
        create("raysearch_autoformer", **{**SIZES, **ARCH.to_dict()}, checkpoint_path=weights),
    ]
    with torch.inference_mode():
        expected = supernet.extract(ARCH)(images)
        for network in networks:
            assert torch.equal(network(images), expected)
    for network in networks[:-1]:
        found = timm.data.resolve_model_data_config(network)
        assert (list(found["mean"]), found["interpolation"], found["crop_pct"]) == (PREPARED["mean"], "bilinear", 0.9)
        assert network.pretrained_cfg["label_names"] == list("abcd")  # pyright: ignore
    with pytest.raises(ValueError, match=r"lacks embed_dim, num_heads, mlp_ratio; give config=FILE"):
        create("raysearch_autoformer")


def test_head_and_features(config: Path) -> None:
    network, images = create("raysearch_autoformer", config=config, pretrained=True), torch.randn(2, 3, 16, 16)
    features = network.forward_features(images)
    assert features.shape == (2, 17, network.num_features)
    pooled = network.forward_head(features, pre_logits=True)
    assert torch.equal(pooled, features[:, 1:].mean(dim=1))
    assert torch.equal(network.get_classifier()(pooled), network(images))

    network.reset_classifier(9)
    assert (network(images).shape, network.num_classes) == ((2, 9), 9)
    network.reset_classifier(0, global_pool="token")
    assert torch.equal(network(images), features[:, 0])
    network.reset_classifier(5, global_pool="")
    assert network(images).shape == (2, 17, 5)
    with pytest.raises(ValueError, match="global_pool is 'map'; known: '', 'avg'"):
        network.reset_classifier(5, global_pool="map")

    tuned = create("raysearch_autoformer", config=config, pretrained=True, num_classes=9)
    assert tuned(images).shape == (2, 9)
    assert torch.equal(tuned.forward_features(images), features)
    headless = create("raysearch_autoformer", config=config, pretrained=True, num_classes=0)
    assert torch.equal(headless(images), pooled)


def test_intermediate_features_as_those_of_timms_own(config: Path) -> None:
    network, images = create("raysearch_autoformer", config=config, pretrained=True), torch.randn(2, 3, 16, 16)
    last, maps = network.forward_intermediates(images)
    assert torch.equal(last, network.forward_features(images))
    assert [tuple(found.shape) for found in maps] == [(2, 16, 4, 4)] * 3
    only = network.forward_intermediates(images, indices=[0, -1], norm=True, output_fmt="NLC", intermediates_only=True)
    assert torch.equal(only[1], last[:, 1:])
    ((patches, prefix),) = network.forward_intermediates(
        images, indices=1, norm=True, return_prefix_tokens=True, intermediates_only=True
    )
    assert torch.equal(prefix, last[:, :1])
    assert torch.equal(patches.flatten(2).transpose(1, 2), last[:, 1:])  # row by row

    pyramid: Any = timm.create_model(
        "raysearch_autoformer", config=config, pretrained=True, features_only=True, out_indices=(0, 1)
    )
    assert (pyramid.feature_info.channels(), pyramid.feature_info.reduction()) == ([16, 16], [4, 4])
    assert all(torch.equal(a, b) for a, b in zip(pyramid.eval()(images), maps, strict=False))
    assert len(pyramid.model.blocks) == 2  # the third is not needed
    own: Any = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, features_only=True, out_indices=(0, 1))
    assert [tuple(found.shape[2:]) for found in own(torch.randn(1, 3, 32, 32))] == [(2, 2)] * 2


def test_training_as_timm_trains(config: Path) -> None:
    network, images = create("raysearch_autoformer", config=config, pretrained=True), torch.randn(2, 3, 16, 16)

    def gradients() -> dict[str, torch.Tensor]:
        network.zero_grad()
        network(images).square().sum().backward()
        return {name: weight.grad.clone() for name, weight in network.named_parameters() if weight.grad is not None}

    plain = gradients()
    assert plain.keys() == dict(network.named_parameters()).keys()
    network.set_grad_checkpointing()
    again = gradients()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient)
    optimiser = timm.optim.create_optimizer_v2(network, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    still = {id(weight) for group in optimiser.param_groups if not group["weight_decay"] for weight in group["params"]}
    assert {id(network.cls_token), id(network.pos_embed), id(network.norm.weight)} <= still
    scales = {id(weight): group["lr_scale"] for group in optimiser.param_groups for weight in group["params"]}
    assert [scales[id(w)] for w in (network.patch_embed.proj.weight, network.head.weight)] == [0.5**4, 1]


def test_timms_transform_prepares_images_as_the_search_did(config: Path) -> None:
    network = create("raysearch_autoformer", config=config, pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (37, 50, 3), dtype=np.uint8))
    dataset = replace(IMAGENET, img_size=16, crop_pct=0.9, interpolation="bilinear")
    pixels = torch.from_numpy(to_array(evaluation_crop(dataset)(image)))[None]
    expected = Normalisation(tuple(PREPARED["mean"]), tuple(PREPARED["std"]))(pixels)
    torch.testing.assert_close(cast(Any, transform)(image)[None], expected, rtol=0, atol=1e-5)


def test_sizes_that_cannot_be_are_named(config: Path) -> None:
    with pytest.raises(ValueError, match="img_size is 16 x 32; AutoFormer takes square images"):
        create("raysearch_autoformer", config=config, img_size=(16, 32))
    with pytest.raises(ValueError, match=r"images of shape \(1, 3, 8, 8\), this network takes \(batch, 3, 16, 16\)"):
        create("raysearch_autoformer", config=config)(torch.zeros(1, 3, 8, 8))
    assert isinstance(create("raysearch_autoformer", config=config, num_classes=0).get_classifier(), nn.Identity)
