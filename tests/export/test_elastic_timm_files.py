"""Subnets of a pretrained network leave as files that timm opens without this package."""

import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
import timm
import torch
from timm_layouts import LAYOUTS, images, vit

from raysearch.spaces.elastic_vit import ElasticArchitecture, from_timm
from raysearch.spaces.elastic_vit.timm_files import timm_files

CARD = {"preprocessing": {"mean": [0.5], "std": [0.25], "crop_pct": 0.9, "interpolation": "bilinear"}, "classes": ["a", "b"]}


def written(folder: Path, subnet: Any) -> set[str]:
    for name, content in timm_files(subnet, CARD).items():
        (folder / name).write_bytes(content)
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("layout", ["deit", "deit3", "dinov2-reg", "siglip-gap", "gap", "not square", "any hidden width"])
def test_alike_blocks_are_a_stock_network(layout: str, tmp_path: Path):
    model = vit(**LAYOUTS[layout])
    supernet, _ = from_timm(model)
    sizes = supernet.net.sizes
    # Two of four heads fill half of the channels.
    arch = ElasticArchitecture(sizes.embed_dim // 2, (2, 2), (sizes.hidden_features // 3,) * 2)
    subnet = supernet.extract(arch)
    assert written(tmp_path, subnet) == {"config.json", "model.safetensors"}
    loaded: Any = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert type(loaded) is type(model)
    assert (loaded.pretrained_cfg["crop_pct"], loaded.pretrained_cfg["interpolation"]) == (0.9, "bilinear")
    with torch.no_grad():
        torch.testing.assert_close(loaded(images(model)), subnet(images(model)), rtol=1e-4, atol=1e-4)


def test_all_layouts_have_a_form(tmp_path: Path):
    """Each was compared as it was made."""
    for layout, arguments in LAYOUTS.items():
        supernet, space = from_timm(vit(**arguments))
        for arch in (space.largest(), space.sample(Random(layout))):
            assert "model.safetensors" in timm_files(supernet.extract(arch), CARD)


def test_blocks_that_differ_bring_a_model_that_imports_timm_alone(tmp_path: Path):
    model = vit(**LAYOUTS["clip"])
    supernet, _ = from_timm(model)
    subnet = supernet.extract(ElasticArchitecture(40, (1, 3), (20, 90)))
    assert written(tmp_path, subnet) == {"model.json", "model.py", "model.safetensors"}
    with torch.no_grad():
        torch.save((images(model), subnet(images(model))), tmp_path / "expected.pt")
    program = (
        "import sys, torch, model; inputs, expected = torch.load('expected.pt'); "
        "torch.testing.assert_close(model.load()(inputs), expected, rtol=1e-4, atol=1e-4); "
        "assert not any(name.startswith('raysearch') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", f"import torch; torch.set_grad_enabled(False); {program}"], cwd=tmp_path, check=True)
