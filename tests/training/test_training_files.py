"""Learning rates, and checkpoints as files."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch

from raysearch.spaces.autoformer import FAMILY, AutoFormerArchitecture, AutoFormerSupernet
from raysearch.training import checkpoint
from raysearch.training.config import TrainingConfig
from raysearch.training.supernets import SupernetFile, build_supernet, read_supernet

SIZES: dict[str, Any] = {"img_size": 16, "patch_size": 8, "num_classes": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
ARCH = AutoFormerArchitecture(embed_dim=16, num_heads=(1, 2), mlp_ratio=(2.0, 4.0))

# --- learning rate ---


def test_the_learning_rate_meets_the_published_numbers() -> None:
    steps = 50
    config = TrainingConfig()
    rates = [config.learning_rate(step, steps_per_epoch=steps) for step in range(500 * steps)]
    assert rates[0] == 1e-6
    assert rates[1] > rates[0]  # the published code spends an epoch here
    assert max(rates) == rates[20 * steps] == 1e-3
    assert rates[-1] == pytest.approx(1e-5)
    middle = 20 * steps + (480 * steps - 1) // 2
    assert rates[middle] == pytest.approx((1e-3 + 1e-5) / 2, rel=1e-4)
    assert rates[: 20 * steps] == sorted(rates[: 20 * steps])
    assert rates[20 * steps :] == sorted(rates[20 * steps :], reverse=True)


@pytest.mark.parametrize("config", [TrainingConfig(epochs=1, warmup_epochs=0), TrainingConfig(epochs=2, warmup_epochs=2)])
def test_the_shortest_schedules_stay_between_their_limits(config: TrainingConfig) -> None:
    rates = [config.learning_rate(step, steps_per_epoch=1) for step in range(config.epochs)]
    assert all(config.warmup_lr <= rate <= config.lr for rate in rates)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"epochs": 0}, r"^epochs is 0"),
        ({"archs_per_step": 0}, r"^archs-per-step is 0"),
        ({"lr": 0.0}, r"^lr is 0,"),
        ({"warmup_epochs": -1}, r"^warmup-epochs is -1"),
        ({"drop_path": 1.0}, r"^drop-path is 1,"),
        ({"mixup": -0.1}, r"^mixup is -0\.1"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(TrainingConfig(), **wrong)


# --- checkpoints ---


def test_a_checkpoint_keeps_tensors_and_metadata(tmp_path: Path) -> None:
    wide = torch.arange(12.0).view(3, 4)
    tensors = {"part": wide[:, 1:3], "count": torch.tensor(3), "half": torch.ones(2, dtype=torch.bfloat16)}
    content = checkpoint.pack(tensors, {"kind": "training", "history": [{"loss": 0.1}]})
    path = tmp_path / "new" / "file.safetensors"
    checkpoint.write(path, content)
    for read, metadata in (checkpoint.read(path), checkpoint.unpack(content)):
        assert metadata == {"kind": "training", "history": [{"loss": 0.1}]}
        assert {name: (t.dtype, t.tolist()) for name, t in read.items()} == {
            name: (t.dtype, t.tolist()) for name, t in tensors.items()
        }
    assert [p.name for p in path.parent.iterdir()] == ["file.safetensors"]
    with safetensors.safe_open(path, framework="pt") as file:  # readable without this package
        assert json.loads(file.metadata()["raysearch"])["kind"] == "training"


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    checkpoint.write(path, checkpoint.pack({"a": torch.ones(1)}, {}))
    before = path.read_bytes()
    (tmp_path / "file.safetensors.tmp").mkdir()
    with pytest.raises(IsADirectoryError):
        checkpoint.write(path, b"half")
    assert path.read_bytes() == before


# --- supernets ---


def supernet() -> AutoFormerSupernet:
    return AutoFormerSupernet(**SIZES, drop_path_rate=0.3).eval()


def test_a_supernet_from_a_file_computes_the_same(tmp_path: Path) -> None:
    """Under any name: a node keeps another one's file under its digest, without an ending."""
    net, images = supernet(), torch.randn(2, 3, 16, 16)
    SupernetFile(FAMILY, net.settings(), net.state_dict()).write(tmp_path / "net.safetensors")
    (tmp_path / "net.safetensors").rename(tmp_path / "3f1c")
    again = read_supernet(tmp_path / "3f1c", FAMILY).build().eval()
    assert again.settings() == net.settings()
    assert torch.equal(again(images, ARCH), net(images, ARCH))


def test_a_published_file_gives_sizes_and_weights(tmp_path: Path) -> None:
    net, images = supernet(), torch.randn(2, 3, 16, 16)
    torch.save({"model": net.state_dict(), "epoch": 499, "args": argparse.Namespace(lr=5e-4)}, tmp_path / "net.pth")
    read = read_supernet(tmp_path / "net.pth", FAMILY)
    assert read.settings == {**net.settings(), "drop_path_rate": 0.0}
    assert torch.equal(read.build().eval()(images, ARCH), net(images, ARCH))


def test_settings_that_make_no_supernet_are_refused_with_the_file(tmp_path: Path) -> None:
    path, net = tmp_path / "net.safetensors", supernet()
    for settings, words in (({"width": 3}, "width"), ({**net.settings(), "patch_size": 5}, "patch_size 5")):
        SupernetFile(FAMILY, settings, net.state_dict()).write(path)
        with pytest.raises(ValueError, match=words) as refused:
            read_supernet(path, FAMILY)
        assert str(path) in str(refused.value)


def test_fresh_weights_depend_on_the_seed_alone() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.rand(seed + 1)  # the global generator is somewhere else each time
        fresh = build_supernet(FAMILY, SIZES, weight_init="trunc_normal", pos_embed_std=0.02, seed=seed)
        return torch.cat([p.flatten() for p in fresh.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))
