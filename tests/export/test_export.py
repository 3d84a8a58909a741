"""A champion leaves as two files and computes elsewhere what it computed here."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from staged_space import Staged

from raysearch.export import load_subnet, read_card, save_subnet
from raysearch.export.card import write_markdown
from raysearch.spaces.autoformer import FAMILY, AutoFormerArchitecture, AutoFormerSupernet
from raysearch.store.model_card import LatencyPlace, ModelCard
from raysearch.tasks.images.reading import read_image

ARCH = AutoFormerArchitecture(embed_dim=16, num_heads=(1, 2), mlp_ratio=(2.0, 3.5))


@pytest.fixture(params=[{}, {"relative_position": False, "abs_pos": False, "global_pool": "token", "qkv_bias": False}])
def supernet(request: pytest.FixtureRequest) -> AutoFormerSupernet:
    sizes: dict[str, Any] = {"img_size": 16, "patch_size": 8, "num_classes": 4, "embed_dim": 24, "depth": 3, "num_heads": 2}
    return AutoFormerSupernet(**sizes, **request.param).eval()


@pytest.fixture
def saved(supernet: AutoFormerSupernet, tmp_path: Path) -> Path:
    card = ModelCard(
        family="autoformer", settings=supernet.settings(), arch=ARCH.to_dict(), classes=["a", "b", "c", "d"], score=0.5
    )
    path = tmp_path / "out" / "champion.json"
    path.parent.mkdir()
    save_subnet(path, supernet.extract(ARCH), family=FAMILY, card=card)
    return path


def test_a_loaded_subnet_computes_the_same_elsewhere(supernet: AutoFormerSupernet, saved: Path, tmp_path: Path) -> None:
    moved = Path(shutil.move(saved.parent, tmp_path / "elsewhere")) / "champion.json"
    network, images = load_subnet(moved), torch.randn(3, 3, 16, 16)
    assert not network.training
    with torch.inference_mode():
        assert torch.equal(network(images), supernet.extract(ARCH)(images))
        torch.testing.assert_close(network(images), supernet(images, ARCH), rtol=0, atol=1e-5)
    assert sum(p.numel() for p in network.parameters()) == supernet.cost(ARCH).params
    assert json.loads(moved.read_text())["classes"] == ["a", "b", "c", "d"]


def test_missing_and_damaged_files_are_named(saved: Path) -> None:
    weights = saved.with_suffix(".safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=f"{weights} is damaged"):
        load_subnet(saved)
    weights.unlink()
    with pytest.raises(ValueError, match=f"{weights} does not exist"):
        load_subnet(saved)
    saved.write_text(saved.read_text()[:50])
    with pytest.raises(ValueError, match=f"{saved} is damaged"):
        load_subnet(saved)
    saved.write_text("{}")
    with pytest.raises(ValueError, match=f"{saved} describes no subnet"):
        load_subnet(saved)
    saved.unlink()
    with pytest.raises(ValueError, match=f"{saved} is missing"):
        load_subnet(saved)


def test_weights_of_another_network_are_refused(supernet: AutoFormerSupernet, saved: Path) -> None:
    other = AutoFormerArchitecture(embed_dim=24, num_heads=(1,), mlp_ratio=(2.0,))
    apart = saved.with_name("other.json")
    card = ModelCard(family="autoformer", settings=supernet.settings(), arch=other.to_dict())
    save_subnet(apart, supernet.extract(other), family=FAMILY, card=card)
    shutil.copy(apart.with_suffix(".safetensors"), saved.with_suffix(".safetensors"))
    with pytest.raises(ValueError, match=r"champion\.safetensors does not hold the weights of .*champion\.json"):
        load_subnet(saved)


def test_the_card_beside_a_subnet_is_written_for_people(saved: Path) -> None:
    text = saved.with_suffix(".md").read_text()
    assert text.startswith(f"# subnet {ARCH.id}\n")
    assert "50.00%" in text
    assert "4 classes, in the order of the logits: a, b, c, d" in text
    assert 'load_subnet(Path("champion.json"))' in text
    assert "timm" not in text  # which must know how images are prepared


def test_the_card_tells_latency_and_what_was_not_scored(saved: Path) -> None:
    card = replace(
        read_card(saved),
        **{"score_images": 60, "test_images": 40, "latency_ms": 1.2345, "classes": [f"class {i}" for i in range(30)]},
        latency=LatencyPlace("CPU, 1 thread", batch_size=1, precision="float32"),
        precision="bfloat16",
    )
    write_markdown(saved.with_suffix(".md"), card, family=FAMILY)
    text = saved.with_suffix(".md").read_text()
    tested = replace(card, test_score=0.75)
    write_markdown(saved.with_suffix(".md"), tested, family=FAMILY)
    assert "| accuracy, test split, 95 % interval | 58.8 to 87.3 % |" in saved.with_suffix(".md").read_text().splitlines()
    for row in (
        "| accuracy, search split | 50.00% (30 of 60 images) |",
        "| accuracy, test split | not scored |",
        "| scored in | bfloat16 |",
        "| latency | 1.23 ms (CPU, 1 thread, batches of 1, float32) |",
    ):
        assert row in text.splitlines()
    assert "class 19, ... (all in the JSON file)" in text


def test_a_card_that_version_0_1_0_wrote_is_the_same_card(saved: Path) -> None:
    """Its keys, nothing of what came later, and one that nobody knows any more."""
    images = {"train_images": 1000, "search_images": 397, "test_images": 400}
    written = {
        **{"family": "autoformer", "settings": {"depth": 3}, "weights": "champion.safetensors", "id": ARCH.id},
        **{"arch": ARCH.to_dict(), "score": 0.75, "test_score": None, "params": 1234, "macs": 56_789, "latency_ms": 1.5},
        **{"score_images": 397, "test_images": 400, "precision": "auto", "classes": ["a", "b"]},
        "preprocessing": {
            "img_size": 8,
            "in_chans": 1,
            "mean": [0.3],
            "std": [0.4],
            "interpolation": "bicubic",
            "crop_pct": 1.0,
        },
        "data": {"recipe": "digits", "dataset": "digits", **images, "seed": 0, "digest": "12ab"},
        **{"search_id": "5", "command": "search.py digits", "created": "2026-11-25", "versions": {"python": "3.11"}},
        "latency": {"device": "CPU", "batch_size": 1, "precision": "float32"},
    }
    saved.write_text(json.dumps({**written, "of earlier days": 1}))
    assert read_card(saved).to_dict() == written
    saved.write_text(json.dumps({**written, "params": "many"}))
    with pytest.raises(ValueError, match=rf"{saved} is damaged: params: "):
        read_card(saved)


def test_a_card_shows_staged_choices_and_scores_that_are_no_shares(tmp_path: Path) -> None:
    arch = Staged(
        norm="layer",
        width=(16, 32),
        downsample=("pool", "conv"),
        gated=(False, True),
        kernel=((3, None), (5, 7, 3)),
        mixer=(("conv", None), ("conv", "attention", "conv")),
    )
    family = replace(FAMILY, name="staged", architecture=Staged)
    card = ModelCard(
        family="staged",
        settings={"gates": True},
        arch=arch.to_dict(),
        score=-0.012345,
        score_images=60,
        classes=[],
        preprocessing={"window": 24, "mean": [0.5]},
        score_name="negative error",
        score_kind="float32",
    )
    write_markdown(tmp_path / "champion.md", card, family=family)
    lines = (tmp_path / "champion.md").read_text().splitlines()
    for row in (
        "| negative error, search split | -0.01235 (60 images) |",
        "| norm | `layer` |",
        "| width | `[16, 32]` |",
        "| downsample | `[pool, conv]` |",
        "| kernel | `[[3, –], [5, 7, 3]]` |",  # noqa: RUF001  # a dash for the block that is left out
        "| gates | `True` |",
        "| window | `24` |",
    ):
        assert row in lines
    assert 'network = load_subnet(Path("champion.json"))  # prepared inputs (batch, ...) -> logits' in lines


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("white", [None, 4095.0])
def test_the_code_for_pixels_reads_pictures_as_the_search_did(tmp_path: Path, mode: Any, white: float | None) -> None:
    """Of 8 bits and of more, transparent and turned."""
    rng, most = np.random.default_rng(0), int(white or 65535)
    grey = rng.integers(0, most + 1, (9, 7))
    colours = rng.integers(0, 256, (9, 7, 4), dtype=np.uint8)
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    Image.fromarray(grey.astype(np.uint16)).save(tmp_path / "16 bits.png", exif=turned)
    Image.fromarray(grey.astype(np.int32)).save(tmp_path / "32 bits.tif")
    Image.fromarray((grey / (1 if white else most)).astype(np.float32)).save(tmp_path / "floats.tif")
    Image.fromarray(colours[..., :3]).save(tmp_path / "colours.png", exif=turned)
    Image.fromarray(colours).save(tmp_path / "transparent.png")
    how = {"img_size": 8, "in_chans": 1 if mode == "L" else 3, "mean": [0.5], "std": [0.5], "interpolation": "bicubic"}
    card = ModelCard(
        family="autoformer",
        settings={},
        arch=ARCH.to_dict(),
        classes=["a", "b"],
        preprocessing={**how, "crop_pct": 1.0, "white": white},
        programs_take="pixels",
    )
    write_markdown(tmp_path / "model.md", card, family=FAMILY, forms=("onnx", "torch-export"))
    text = (tmp_path / "model.md").read_text()
    assert ("In grey pictures of more than 8 bits 4095 is white." in text) == (white is not None)
    codes = re.findall(r"def pixels_of.*?(?=```)", text, re.DOTALL)
    assert len(codes) == 2
    for code in codes:
        names: dict[str, Any] = {"np": np}
        exec(code, names)
        for path in sorted(tmp_path.glob("*.[pt]*")):
            expected = np.array(read_image(path, mode, white=white))
            np.testing.assert_array_equal(names["pixels_of"](path).reshape(expected.shape), expected)
