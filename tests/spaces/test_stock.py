"""Networks of timm's beside those of a search: what is read, how they see its images, and what is refused in a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
from timm_layouts import SIZES, model_of, pretrained_folder
from torch import Tensor

from raysearch.errors import UserError
from raysearch.spaces import build_subnet
from raysearch.spaces.stock import STOCK, FoundStock, find_stock
from raysearch.tasks import Ends
from raysearch.training.alone import Alone
from raysearch.training.groups import parameter_groups

OURS: dict[str, Any] = {"mean": (0.4,), "std": (0.2,)}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def found(name: str, shape: tuple[int, ...] = (1, 8, 8)) -> FoundStock:
    return find_stock(name, Ends(shape, 10), OURS, drop_path=0.1, seed=0)


def built(stock: FoundStock) -> Any:
    network = build_subnet(STOCK, {}, stock.arch.to_dict())
    network.load_state_dict(stock.weights)
    return network.eval()


def with_old_head(network: Any, old: Any) -> Any:
    """With the head that the file has, as that of the classes is new."""
    network.network.head = old.head
    return network


def test_trained_weights_see_images_in_their_own_normalisation(tmp_path: Path) -> None:
    folder = pretrained_folder(tmp_path)
    stock = found(f"local-dir:{folder}")
    assert stock.fresh is None
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    pixels = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        seen: Tensor = with_old_head(built(stock), theirs)((pixels - 0.4) / 0.2)
        torch.testing.assert_close(seen, theirs((pixels - 0.25) / 0.5), rtol=1e-4, atol=1e-4)


def test_another_process_builds_the_same_and_its_cost_is_pytorchs(tmp_path: Path) -> None:
    stock = found(f"local-dir:{pretrained_folder(tmp_path)}")
    network = built(stock)
    expected = model_of(**SIZES, num_classes=10)
    assert stock.cost.params == sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in expected.parameters())
    tokens, width = 5, 24
    of_block = tokens * 12 * width**2 + 2 * tokens**2 * width
    assert stock.cost.macs == 3 * of_block + 4 * 16 * width + width * 10


def test_without_a_hub_weights_are_fresh_and_it_is_said() -> None:
    # A convolutional network asks for no image size.
    for name in ("test_vit", "test_resnet"):
        stock = found(name, (1, 32, 32))
        assert stock.fresh is not None
        assert "cannot be had from the hub" in stock.fresh
        assert built(stock)(torch.randn(2, 1, 32, 32)).shape == (2, 10)
        again = found(name, (1, 32, 32)).weights  # drawn by the seed alone
        assert all(torch.equal(weight, again[part]) for part, weight in stock.weights.items())


def test_layers_learn_at_rates_of_their_own() -> None:
    stock = found("test_vit", (1, 32, 32))
    network = Alone(build_subnet(STOCK, {}, stock.arch.to_dict()), stock.arch)
    groups = parameter_groups(network, weight_decay=0.1, undecayed=STOCK.undecayed, layer_decay=0.5)
    names = {id(p): name for name, p in network.named_parameters()}
    rates = {names[id(p)].removeprefix("subnet.network."): group["lr_scale"] for group in groups for p in group["params"]}
    assert rates["head.weight"] == 1
    assert rates["patch_embed.proj.weight"] < rates["blocks.0.mlp.fc1.weight"] < rates["blocks.1.mlp.fc1.weight"] < 1
    decayed = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    assert "subnet.network.pos_embed" not in decayed


@pytest.mark.parametrize(
    ("name", "shape", "line"),
    [
        ("vit_tinny_patch16_224", (1, 8, 8), "--baselines vit_tinny_patch16_224: timm has no .* vit_tiny_patch16_224"),
        ("test_vit", (1, 8, 8), r"--baselines test_vit cannot .*\(1?,? ?8, 8\)"),
        ("test_vit", (16,), r"take images \(chans, height, width\), not \(16,\)"),
    ],
)
def test_bad_input_is_one_line(name: str, shape: tuple[int, ...], line: str) -> None:
    with pytest.raises(UserError, match=line) as raised:
        found(name, shape)
    assert "\n" not in str(raised.value)
