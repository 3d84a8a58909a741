"""Subnets of a pretrained network name pictures: ``raysearch predict``, and programs that take their pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from search_script import program
from timm_layouts import LAYOUTS, vit

from raysearch.export import load_classifier, load_subnet, save_subnet
from raysearch.export.programs import write_onnx_uint8, write_torch_export_uint8
from raysearch.spaces.elastic_vit import FAMILY, ElasticArchitecture, from_timm
from raysearch.store.model_card import ModelCard

CLASSES = ["ape", "bee", "cat", "dog", "eel", "fox", "gnu"]
HOW = {"img_size": 32, "in_chans": 3, "mean": [0.5] * 3, "std": [0.2] * 3, "interpolation": "bilinear", "crop_pct": 0.9}


@pytest.mark.parametrize("layout", ["deit3"])
def test_a_subnet_names_pictures_the_same_by_every_way(layout: str, tmp_path: Path) -> None:
    supernet, _ = from_timm(vit(**LAYOUTS[layout]))
    arch = ElasticArchitecture(40, (1, 3), (20, 90))
    origin = {"network": "vit_small", "license": "cc-by-nc-4.0"}
    card = ModelCard(
        family=FAMILY.name,
        settings=supernet.settings(),
        arch=arch.to_dict(),
        classes=CLASSES,
        preprocessing=HOW,
        pretrained=origin,
    )
    champion = tmp_path / "champion.json"
    save_subnet(champion, supernet.extract(arch), family=FAMILY, card=card)
    assert "| licence | cc-by-nc-4.0 |" in champion.with_suffix(".md").read_text()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    picture = tmp_path / "picture.png"
    Image.fromarray(pixels).save(picture)
    named = load_classifier(champion)(picture)
    expected = {guess.name: guess.probability for guess in named}
    ended = program("predict", str(champion), str(picture))
    assert (ended.code, ended.complaints) == (0, "")
    assert f"{named[0].name} {named[0].probability:.1%}" in ended.printed
    network: Any = load_subnet(champion)
    pt2, onnx = tmp_path / "model.pt2", tmp_path / "model.onnx"
    write_torch_export_uint8(pt2, network, card=card)
    write_onnx_uint8(onnx, network, card=card)
    with torch.inference_mode():
        found = [torch.export.load(pt2).module()(torch.from_numpy(pixels)[None])[0].numpy()]
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    found.append(session.run(["probabilities"], {"images": pixels[None]})[0][0])
    assert json.loads(session.get_modelmeta().custom_metadata_map["labels"]) == CLASSES
    for probabilities in found:
        for name, probability in zip(CLASSES, probabilities, strict=True):
            if name in expected:  # the likeliest
                assert probability == pytest.approx(expected[name], abs=1e-4)
