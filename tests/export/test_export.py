"""A champion leaves as two files and computes elsewhere what it computed here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from raysearch.export import load_subnet, save_subnet
from raysearch.export.card import without_credentials, write_markdown
from raysearch.spaces.autoformer import FAMILY, AutoFormerArchitecture, AutoFormerSupernet

ARCH = AutoFormerArchitecture(embed_dim=16, num_heads=(1, 2), mlp_ratio=(2.0, 3.5))


@pytest.fixture(params=[{}, {"relative_position": False, "abs_pos": False, "global_pool": "token", "qkv_bias": False}])
def supernet(request: pytest.FixtureRequest) -> AutoFormerSupernet:
    sizes: dict[str, Any] = {"img_size": 16, "patch_size": 8, "num_classes": 4, "embed_dim": 24, "depth": 3, "num_heads": 2}
    return AutoFormerSupernet(**sizes, **request.param).eval()


@pytest.fixture
def saved(supernet: AutoFormerSupernet, tmp_path: Path) -> Path:
    card = {"arch": ARCH.to_dict(), "classes": ["a", "b", "c", "d"], "score": 0.5}
    path = tmp_path / "out" / "champion.json"
    path.parent.mkdir()
    save_subnet(path, supernet.extract(ARCH), family=FAMILY, settings=supernet.settings(), card=card)
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
    save_subnet(apart, supernet.extract(other), family=FAMILY, settings=supernet.settings(), card={"arch": other.to_dict()})
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
    card = json.loads(saved.read_text())
    card |= {"score_images": 60, "test_score": None, "latency_ms": 1.2345, "classes": [f"class {i}" for i in range(30)]}
    card |= {"latency": {"device": "CPU, 1 thread", "batch_size": 1, "precision": "float32"}, "precision": "bfloat16"}
    write_markdown(saved.with_suffix(".md"), card, family=FAMILY)
    text = saved.with_suffix(".md").read_text()
    for row in (
        "| accuracy, search split | 50.00% (30 of 60 images) |",
        "| accuracy, test split | not scored |",
        "| scored in | bfloat16 |",
        "| latency | 1.23 ms (CPU, 1 thread, batches of 1, float32) |",
    ):
        assert row in text.splitlines()
    assert "class 19, ... (all in the JSON file)" in text


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("search.py digits --tracking-uri https://me:s%2Fc@mlflow.org/x --seed 1", "https://mlflow.org/x --seed 1"),
        ("search.py digits --tracking-uri 'postgresql://me:p@ss@db:5432/runs'", "'postgresql://db:5432/runs'"),
        ("search.py digits --tracking-uri http://localhost:5000 --output a@b", "http://localhost:5000 --output a@b"),
    ],
)
def test_a_card_holds_no_passwords(given: str, kept: str) -> None:
    assert without_credentials(given) == f"search.py digits --tracking-uri {kept}"
