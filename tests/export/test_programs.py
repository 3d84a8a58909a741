"""Programs of a subnet: any batch size, the same outputs, and nothing is left that computes something else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from raysearch.export.programs import METADATA, write_onnx, write_torch_export
from raysearch.spaces.autoformer import AutoFormerArchitecture, AutoFormerSubnet, AutoFormerSupernet
from raysearch.store.model_card import ModelCard

ARCH = AutoFormerArchitecture(embed_dim=16, num_heads=(1, 2), mlp_ratio=(2.0, 3.5))
SHAPE = (3, 16, 16)
CARD = ModelCard(family="autoformer", settings={}, arch=ARCH.to_dict(), classes=["cat", "dog"])


@pytest.fixture(params=[{}, {"relative_position": False, "abs_pos": False, "global_pool": "token", "qkv_bias": False}])
def subnet(request: pytest.FixtureRequest) -> AutoFormerSubnet:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"img_size": 16, "patch_size": 4, "num_classes": 4, "embed_dim": 24, "depth": 3, "num_heads": 2}
    return AutoFormerSupernet(**sizes, **request.param).eval().extract(ARCH)


class Noisy(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3)) + torch.rand(images.shape[:2])


def test_torch_export_takes_any_batch(subnet: AutoFormerSubnet, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    assert write_torch_export(path, subnet, SHAPE) <= 1e-5
    program = torch.export.load(path).module()
    for batch in (1, 2, 7):
        images = torch.randn(batch, *SHAPE)
        torch.testing.assert_close(program(images), subnet(images), rtol=0, atol=1e-5)


def test_onnx_takes_any_batch_and_carries_the_card(subnet: AutoFormerSubnet, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    assert write_onnx(path, subnet, SHAPE, card=CARD) <= 1e-4
    assert [file.name for file in tmp_path.iterdir()] == [path.name]  # the weights are in it
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 2, 7):
        images = torch.randn(batch, *SHAPE)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        np.testing.assert_allclose(logits, subnet(images).detach().numpy(), rtol=0, atol=1e-4)
    assert json.loads(session.get_modelmeta().custom_metadata_map[METADATA]) == CARD.to_dict()


def test_a_program_that_computes_something_else_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.pt2 was not written: its logits differ .* more than 1e-05"):
        write_torch_export(tmp_path / "model.pt2", Noisy(), SHAPE)
    with pytest.raises(ValueError, match=r"model\.onnx was not written: its logits differ .* more than 1e-04"):
        write_onnx(tmp_path / "model.onnx", Noisy(), SHAPE, card=CARD)
    assert not list(tmp_path.iterdir())


def test_absent_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)  # as Python finds a package that is not installed
    with pytest.raises(ValueError, match=r"not installed: pip install onnx onnxscript, or choose other formats"):
        write_onnx(tmp_path / "model.onnx", Noisy(), SHAPE, card=CARD)


def test_importing_the_package_imports_neither_timm_nor_onnx() -> None:
    code = """
import sys
import raysearch, raysearch.export, raysearch.jobs.export
print(sorted({name.partition(".")[0] for name in sys.modules} & {"timm", "onnx", "onnxruntime", "onnxscript"}))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
