"""What an evaluator does before its first score: it maps the supernet, and neither draws weights nor loads a compiler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
import torch

from raysearch.errors import UserError
from raysearch.spaces.autoformer import FAMILY, AutoFormerSpace, AutoFormerSupernet
from raysearch.training.supernets import SupernetFile, read_supernet

SIZES = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0, "head_dim": 16}
SPACE = AutoFormerSpace(embed_dim=(16, 32), num_heads=(1, 2), mlp_ratio=(1.0, 2.0), depth=(1, 2))


@pytest.fixture
def supernet() -> AutoFormerSupernet:
    torch.manual_seed(0)
    return AutoFormerSupernet(**SIZES).eval()


@pytest.fixture
def path(supernet: AutoFormerSupernet, tmp_path: Path) -> Path:
    file = tmp_path / "supernet.safetensors"
    SupernetFile(FAMILY, supernet.settings(), dict(supernet.state_dict())).write(file)
    return file


def test_a_supernet_from_a_file_computes_the_same(supernet: AutoFormerSupernet, path: Path) -> None:
    loaded = read_supernet(path, FAMILY).build().eval()
    images = torch.randn(2, 3, 16, 16)
    for arch in (SPACE.smallest(), SPACE.sample(Random(0)), SPACE.largest()):
        torch.testing.assert_close(loaded(images, arch), supernet(images, arch), rtol=0, atol=0)
        torch.testing.assert_close(loaded.extract(arch)(images), supernet.extract(arch)(images), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_in_any_precision_scores_as_one_in_float32(
    supernet: AutoFormerSupernet, tmp_path: Path, dtype: torch.dtype, suffix: str
) -> None:
    weights = {name: weight.to(dtype) for name, weight in supernet.state_dict().items()}
    file = tmp_path / f"other{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{name}": weight for name, weight in weights.items()}}, file)
    else:
        SupernetFile(FAMILY, supernet.settings(), weights).write(file)
    loaded = read_supernet(file, FAMILY).build().eval()
    assert {weight.dtype for weight in loaded.state_dict().values()} == {torch.float32}
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(loaded(images, SPACE.smallest()), supernet(images, SPACE.smallest()), rtol=0.05, atol=0.05)


def test_weights_of_whole_numbers_are_no_network(supernet: AutoFormerSupernet, tmp_path: Path) -> None:
    weights = {name: weight.to(torch.int8) for name, weight in supernet.state_dict().items()}
    SupernetFile(FAMILY, supernet.settings(), weights).write(tmp_path / "small.safetensors")
    with pytest.raises(UserError, match=r"small\.safetensors holds no usable supernet: \S+ is of int8, not float32"):
        read_supernet(tmp_path / "small.safetensors", FAMILY)


def test_its_weights_are_the_mapped_file(path: Path) -> None:
    loaded = read_supernet(path, FAMILY).build()
    with Path("/proc/self/maps").open() as maps:
        lines = [line.split() for line in maps if line.rstrip().endswith(str(path))]
    ranges = [tuple(int(end, 16) for end in fields[0].split("-")) for fields in lines]
    for name, weight in loaded.named_parameters():
        assert any(low <= weight.data_ptr() < high for low, high in ranges), f"{name} is a copy"


def test_loading_and_extracting_start_no_compiler(path: Path) -> None:
    """Torch computes on the meta device in Python, for which it imports its compiler: seconds, and 100 MB per evaluator."""
    program = f"""
import sys
from pathlib import Path
from raysearch.training.supernets import read_supernet
from raysearch.spaces.autoformer import FAMILY, AutoFormerArchitecture
supernet = read_supernet(Path({str(path)!r}), FAMILY).build()
supernet.extract(AutoFormerArchitecture(embed_dim=16, num_heads=(1, 2), mlp_ratio=(1.0, 2.0)))
print(sorted({{"torch._dynamo", "sympy", "triton"}} & set(sys.modules)))
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout == "[]\n"
