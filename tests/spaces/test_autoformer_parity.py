"""The supernet against frozen outputs of the published implementation (tests/data/parity/README.md)."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from raysearch.spaces.autoformer import AutoFormerArchitecture, AutoFormerSupernet

PARITY = Path(__file__).parents[1] / "data" / "parity"
CASES: list[dict[str, Any]] = json.loads((PARITY / "parity.json").read_text())
LOGITS = np.load(PARITY / "parity.npz")


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {}
    for key, shape in shapes.items():
        values = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
        values *= np.float32(0.05)
        if key.endswith("norm.weight"):
            values += np.float32(1)
        state[key] = torch.from_numpy(values)
    return state


@pytest.mark.parametrize("index", range(len(CASES)), ids=[case["name"] for case in CASES])
def test_reproduces_the_published_implementation(index: int) -> None:
    case = CASES[index]
    supernet = AutoFormerSupernet(**case["supernet"]).eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in supernet.state_dict().items()}
    if "state_dict_shapes" in case:
        assert {name: list(shape) for name, shape in shapes.items()} == case["state_dict_shapes"]
    supernet.load_published(weights(shapes))
    values = dict(case["arch"])
    depth = values.pop("depth")
    arch = AutoFormerArchitecture(**values)
    assert arch.depth == depth
    assert supernet.cost(arch).params == case["official_params"]
    geometry = supernet.geometry
    rng = np.random.RandomState(case["input_seed"])
    size = (case["batch"], geometry.in_chans, geometry.img_size, geometry.img_size)
    images = torch.from_numpy(rng.standard_normal(size).astype(np.float32))
    expected = torch.from_numpy(LOGITS[f"case{index}_logits"])

    with torch.inference_mode():
        subnet = supernet.extract(arch)
        torch.testing.assert_close(subnet(images), expected, atol=1e-5, rtol=0)
    logits = supernet(images, arch)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)

    if "grad_norms" in case:
        labels = np.random.RandomState(case["input_seed"] + 1).randint(0, geometry.num_classes, case["batch"])
        loss = F.cross_entropy(logits, torch.from_numpy(labels))
        assert loss.item() == pytest.approx(case["loss"], rel=1e-5)
        loss.backward()
        expected_norms = {name: norm for name, norm in case["grad_norms"].items() if norm is not None}
        norms = {name: p.grad.norm().item() for name, p in supernet.named_parameters() if p.grad is not None}
        assert norms == pytest.approx(expected_norms, rel=1e-4)  # the same parameters, no other has a gradient
