"""Published checkpoint files: read, refused, inferred."""

import argparse
import pathlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models import load_state_dict

from raysearch.spaces.autoformer import AutoFormerArchitecture, AutoFormerSupernet, geometry_of, read_published

SIZES: dict[str, Any] = {
    "img_size": 12,
    "patch_size": 4,
    "in_chans": 1,
    "num_classes": 7,
    "embed_dim": 26,
    "depth": 2,
    "num_heads": 3,
    "mlp_ratio": 3.5,
    "head_dim": 8,
    "max_relative_position": 2,
}
ARCH = AutoFormerArchitecture(embed_dim=20, num_heads=(2,), mlp_ratio=(3.5,))


def published_file(path: Path, net: AutoFormerSupernet) -> Path:
    """As the published training script writes it."""
    optimizer = torch.optim.AdamW(net.parameters())
    arguments = argparse.Namespace(lr=5e-4, output_dir=pathlib.PurePosixPath("out").name, data=path.parent, change_qkv=True)
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 499, "args": arguments}, path)
    return path


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"relative_position": False, "head_dim": 64, "max_relative_position": 14},
        {"qkv_bias": False},
        {"abs_pos": False},
        {"embed_dim": 37, "mlp_ratio": 3.33},  # 123 hidden features, but int(37 * (123 / 37)) is 122
    ],
    ids=str,
)
def test_file_gives_back_the_supernet(tmp_path: Path, change: dict[str, Any]) -> None:
    net = AutoFormerSupernet(**(SIZES | change)).eval()
    state = read_published(published_file(tmp_path / "supernet.pth", net))
    geometry = geometry_of(state, img_size=12)
    assert geometry.hidden_features == net.geometry.hidden_features
    assert geometry.settings() | {"mlp_ratio": 0} == net.geometry.settings() | {"mlp_ratio": 0}
    loaded = AutoFormerSupernet(**geometry.settings()).eval()
    loaded.load_published(state)
    images = torch.randn(2, 1, 12, 12)
    assert torch.equal(loaded(images, ARCH), net(images, ARCH))


def test_what_others_allowed_to_be_read_stays_allowed(tmp_path: Path) -> None:
    """timm reads published files after this, in the same process."""
    file = published_file(tmp_path / "supernet.pth", AutoFormerSupernet(**SIZES))
    before = list(torch.serialization.get_safe_globals())
    torch.serialization.clear_safe_globals()
    try:
        read_published(file)
        assert torch.serialization.get_safe_globals() == []
        torch.serialization.add_safe_globals([pathlib.PosixPath])
        read_published(file)
        assert torch.serialization.get_safe_globals() == [pathlib.PosixPath]
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def test_bare_state_dict_is_read(tmp_path: Path) -> None:
    net = AutoFormerSupernet(**SIZES)
    torch.save(net.state_dict(), tmp_path / "bare.pth")
    state = read_published(tmp_path / "bare.pth")
    assert list(state) == list(net.state_dict())


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_ema", "state_dict_ema", None])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_weights_are_found_in_any_wrapper_and_under_any_prefix(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    net = AutoFormerSupernet(**SIZES)
    state = {prefix + name: weight for name, weight in net.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "wrapped.pth")
    read = read_published(tmp_path / "wrapped.pth")
    assert list(read) == list(net.state_dict())


@pytest.mark.parametrize("names", [("model", "model_ema"), ("state_dict", "state_dict_ema")])
def test_of_weights_and_their_running_mean_the_mean_is_taken_as_timm_does_and_said(
    tmp_path: Path, names: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    last, mean = AutoFormerSupernet(**SIZES).state_dict(), AutoFormerSupernet(**SIZES).state_dict()
    path = tmp_path / "both.pth"
    torch.save(dict(zip(names, (last, mean), strict=True)), path)
    read, of_timm = read_published(path), load_state_dict(str(path), weights_only=True)
    for name, weight in mean.items():
        assert torch.equal(read[name], weight)
        assert torch.equal(of_timm[name], weight)
    assert f"under '{names[1]}' and '{names[0]}': those under '{names[1]}' are taken" in caplog.text


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_needs_more_than_tensors_says_what_stands_in_it_and_how_to_convert_it(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "more.pth"
    content = {"model": AutoFormerSupernet(**SIZES).state_dict(), "scaler": Fraction(1, 2)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"more\.pth is not a readable PyTorch checkpoint") as caught:
        read_published(path)
    message = str(caught.value)
    assert "Python objects beside tensors (fractions.Fraction)" in message
    assert "torch.save({'model': model.state_dict()}" in message
    assert "\x1b" not in message
    assert "\n" not in message


class Hostile:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("legacy", [False, True])
def test_hostile_file_does_not_run(tmp_path: Path, legacy: bool) -> None:
    path, witness = tmp_path / "hostile.pth", tmp_path / "it-ran"
    torch.save({"model": {}, "args": Hostile(witness)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"hostile\.pth is not a readable PyTorch checkpoint: .+") as caught:
        read_published(path)
    assert "\n" not in str(caught.value)
    assert not witness.exists()


def test_foreign_or_damaged_file_is_named(tmp_path: Path) -> None:
    whole = published_file(tmp_path / "whole.pth", AutoFormerSupernet(**SIZES)).read_bytes()
    contents = {
        "empty": b"",
        "text": b"not a checkpoint\n" * 99,
        "zip-magic": b"PK\x03\x04" + bytes(200),
        "half": whole[: len(whole) // 2],
        "pickle-magic": b"\x80\x02" + whole[:500],
    }
    for name, content in contents.items():
        path = tmp_path / f"{name}.pth"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}\.pth is not a readable PyTorch checkpoint: .+") as caught:
            read_published(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"absent\.pth does not exist"):
        read_published(tmp_path / "absent.pth")
    with pytest.raises(ValueError, match="is not a readable PyTorch checkpoint"):
        read_published(tmp_path)
    for content in ([1, 2], {"epoch": 3}, {}, {"model": {"weight": [1.0]}}, torch.zeros(3)):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(ValueError, match=r"other\.pth holds no state dict"):
            read_published(tmp_path / "other.pth")


def test_weights_of_another_supernet_change_nothing() -> None:
    net = AutoFormerSupernet(**SIZES)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = AutoFormerSupernet(**(SIZES | {"embed_dim": 32})).state_dict()
    del state["norm.bias"]
    state["teacher.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match="do not fit") as caught:
        net.load_published(state)
    message = str(caught.value)
    assert "1 missing: norm.bias;" in message
    assert "1 unexpected: teacher.weight;" in message
    assert "(1, 1, 32) instead of (1, 1, 26)" in message
    assert "\n" not in message
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_geometry_needs_the_layout() -> None:
    with pytest.raises(ValueError, match=r"patch_embed_super\.proj\.weight is missing"):
        geometry_of({"layer.weight": torch.zeros(3, 3)})
    state = AutoFormerSupernet(**(SIZES | {"abs_pos": False})).state_dict()
    with pytest.raises(ValueError, match="give img_size"):
        geometry_of(state)
    state["pos_embed"] = torch.zeros(1, 9, 26)
    with pytest.raises(ValueError, match="9 tokens"):
        geometry_of(state)
