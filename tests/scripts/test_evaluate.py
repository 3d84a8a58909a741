"""Accuracy of networks of any kind on labelled images, without a cluster."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console
from search_script import write_tones

from raysearch.errors import UserError
from raysearch.jobs.evaluate import EvaluateCommand, Evaluation, evaluate
from raysearch.parsing.one_dataclass import parse
from raysearch.recipes.autoformer import DIGITS_RECIPE
from raysearch.spaces.autoformer import FAMILY, AutoFormerGeometry, AutoFormerSupernet


def evaluated(*arguments: str) -> tuple[Evaluation, str]:
    """What the job finds out, and what it prints."""
    screen = io.StringIO()
    with redirect_stdout(screen):
        found = evaluate(parse(EvaluateCommand, arguments, prog="evaluate"), console=Console(width=200))
    return found, screen.getvalue()


def digit_folder(folder: Path, parts: dict[str, int]) -> Path:
    """Images of the digits' splits as pictures in folders, so many of each part."""
    splits = DIGITS_RECIPE.task.splits()
    for part, count in parts.items():
        images = getattr(splits, part)
        for i in range(count):
            place = folder / str(images.labels[i])
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.pixels[i, 0]).save(place / f"{part}-{i}.png")
    return folder


def test_a_search_is_judged_on_its_test_images_as_its_report_says(finished_search: Path) -> None:
    summary = json.loads((finished_search / "summary.json").read_text())
    tuning, networks = summary["tuning"], summary["networks"]
    found, printed = evaluated(str(finished_search))
    deployed = tuning["champion"]["test" if tuning["deployed"] == "fine-tuned" else "inherited_test"]
    assert (found.images, found.accuracy.value, found.trained_on) == (400, pytest.approx(deployed), 0)
    assert found.accuracy.low < deployed < found.accuracy.high
    assert len(found.by_class) == 10
    assert sum(share.value for share in found.by_class.values()) / 10 == pytest.approx(deployed, abs=0.02)
    assert "on 400 images, the test split of the search" in printed
    largest, _ = evaluated(str(finished_search), "--subnet", "largest")
    assert largest.accuracy.value == pytest.approx(networks["largest"]["test_score"])
    inherited, _ = evaluated(str(finished_search / "champion-inherited.safetensors"))
    assert inherited.accuracy.value == pytest.approx(networks["champion"]["test_score"])


def test_a_supernets_file_is_judged_as_its_largest_or_smallest_subnet(finished_search: Path, tmp_path: Path) -> None:
    networks = json.loads((finished_search / "summary.json").read_text())["networks"]
    data = digit_folder(tmp_path / "digits", {"test": 400})
    moved = tmp_path / "supernet.safetensors"
    moved.write_bytes((finished_search / "supernet.safetensors").read_bytes())
    flags = ("--data", str(data), "--dataset.dataset", "images")
    for subnet in ("largest", "smallest"):
        found, printed = evaluated(str(moved), "--subnet", subnet, *flags)
        assert found.accuracy.value == pytest.approx(networks[subnet]["test_score"])
        assert found.trained_on is None
        assert "whether it was trained on any of these images is not known here" in printed
    listed = tmp_path / "arch.json"
    listed.write_text(json.dumps({"arch": networks["champion"]["arch"]}))
    found, _ = evaluated(str(moved), "--subnet", str(listed), *flags)
    assert (found.network, found.accuracy.value) == (
        networks["champion"]["id"],
        pytest.approx(networks["champion"]["test_score"]),
    )


def test_a_published_checkpoint_is_judged_by_the_name_of_its_subnet(tmp_path: Path) -> None:
    """Weights are random; what is looked at is which network and which images."""
    sizes: dict[str, Any] = AutoFormerGeometry.tiny(img_size=32, num_classes=2).settings()
    torch.save({"model": AutoFormerSupernet(**sizes, drop_path_rate=0.0).state_dict()}, tmp_path / "supernet-tiny.pth")
    data = write_tones(tmp_path / "tones", count=6)
    found, printed = evaluated(str(tmp_path / "supernet-tiny.pth"), "--subnet", "autoformer-tiny", "--data", str(data))
    assert found.network == FAMILY.published["autoformer-tiny"].id
    assert (found.images, list(found.by_class)) == (12, ["dark", "light"])
    assert f"all of {data}" in printed
    with pytest.raises(UserError, match="has 1 class folders"):
        evaluated(str(tmp_path / "supernet-tiny.pth"), "--data", str(write_one(tmp_path / "one")))


def write_one(folder: Path) -> Path:
    """Pictures of one class."""
    (folder / "only").mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (16, 16), (i, 2 * i, 3 * i)).save(folder / "only" / f"{i}.png")
    return folder


def test_images_that_it_was_trained_on_are_counted_and_left_out(finished_search: Path, tmp_path: Path) -> None:
    """Known by their pixels, whatever files they are in."""
    data = write_tones(tmp_path / "tones", count=5)
    with pytest.raises(UserError, match=r"2 of 2 classes of the images are none of the network's \(dark, light\)"):
        evaluated(str(finished_search), "--data", str(data))
    mixed = digit_folder(tmp_path / "mixed", {"test": 100, "train": 60})
    found, printed = evaluated(str(finished_search), "--data", str(mixed))
    alone, _ = evaluated(str(finished_search), "--data", str(digit_folder(tmp_path / "alone", {"test": 100})))
    assert (found.images, found.trained_on, alone.trained_on) == (160, 60, 0)
    assert found.unseen == alone.accuracy
    assert "warning: it was trained on 60 of these images" in printed


def test_one_json_object_instead_of_lines(finished_search: Path) -> None:
    found, printed = evaluated(str(finished_search), "--json")
    assert json.loads(printed)["accuracy"]["value"] == found.accuracy.value
