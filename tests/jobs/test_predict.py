"""``raysearch predict``: names of pictures, one line each, and a word for each that cannot be read."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from search_script import Ended, one_line, program

from raysearch.errors import UserError
from raysearch.export import load_classifier, save_subnet
from raysearch.spaces.autoformer import FAMILY, AutoFormerArchitecture, AutoFormerSupernet
from raysearch.store.model_card import ModelCard

ARCH = AutoFormerArchitecture(embed_dim=16, num_heads=(1,), mlp_ratio=(2.0,))
HOW = {"img_size": 16, "in_chans": 3, "mean": (0.5,) * 3, "std": (0.1,) * 3, "interpolation": "bicubic", "crop_pct": 0.875}
CLASSES = ["dark [red]", "light", "b\udcfclue", "d"]
"""Names that could be taken for markup, and one of bytes that are no UTF-8."""


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    supernet = AutoFormerSupernet(img_size=16, patch_size=8, num_classes=4, embed_dim=16, depth=1, num_heads=1).eval()
    path = tmp_path_factory.mktemp("network") / "champion.json"
    card = ModelCard(family="autoformer", settings=supernet.settings(), arch=ARCH.to_dict(), classes=CLASSES, preprocessing=HOW)
    save_subnet(path, supernet.extract(ARCH), family=FAMILY, card=card)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures of different sizes, one of them in a sub-folder, beside a text and a damaged file."""
    rng, folder = np.random.default_rng(0), tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for name, size in (("a.png", (30, 40)), ("b.jpg", (100, 20)), ("more/c[1].webp", (8, 8))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


def predict(*arguments: object) -> Ended:
    return program("predict", *map(str, arguments))


def test_each_picture_is_a_line_of_names_and_no_ray_is_started(champion: Path, pictures: Path) -> None:
    ended = predict(champion, pictures)
    assert (ended.code, ended.complaints) == (0, "")
    lines = ended.printed.splitlines()
    assert len(lines) == 3
    classify = load_classifier(champion)
    for line, name in zip(lines, ("a.png", "b.jpg", "more/c[1].webp"), strict=True):
        path = pictures / name
        shown = [guess.name.replace("\udcfc", "\ufffd") + f" {guess.probability:.1%}" for guess in classify(path)]
        assert line == f"{path}  {', '.join(shown)}"
    code = """
import sys
from raysearch.cli import main
main(sys.argv[1:])
print(sorted({"ray", "mlflow"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", code, "predict", str(champion), str(pictures / "a.png")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert printed == [lines[0], "[]"]


def test_folders_patterns_and_standard_input(champion: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(pictures))
    content = (pictures / "a.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    ended = predict(champion, "-", "~/**/*.*p*g*", pictures / "more" / "c[1].webp", "--top", 1, "--json")
    answers = json.loads(ended.printed)
    assert ended.code == 0
    given = ["-", *(str(pictures / name) for name in ("a.png", "b.jpg", "more/c[1].webp"))]
    assert [answer["image"] for answer in answers] == given
    assert all(len(answer["predictions"]) == 1 for answer in answers)
    assert answers[0]["predictions"] == answers[1]["predictions"]


def test_a_picture_that_cannot_be_read_is_a_line_and_the_rest_is_named(champion: Path, pictures: Path) -> None:
    (pictures / "cut.png").write_bytes((pictures / "a.png").read_bytes()[:200])
    (pictures / "empty").mkdir()
    given = [pictures / "notes.txt", pictures / "nowhere.jpg", pictures / "empty", f"{pictures}/*.gif", pictures]
    ended = predict(champion, *given)
    assert ended.code == 1
    assert [Path(line.split("  ")[0]).name for line in ended.printed.splitlines()] == ["a.png", "b.jpg", "c[1].webp"]
    complaints = ended.complaints.splitlines()
    assert len(complaints) == 5
    for line, name in zip(complaints, ("notes.txt", "nowhere.jpg", "empty", "*.gif", "cut.png"), strict=True):
        assert line.startswith(f"error: {pictures / name} ")
    answers = json.loads(predict(champion, *given, "--json").printed)
    assert [answer["image"] for answer in answers if "error" in answer] == [
        str(given) for given in (*given[:4], pictures / "cut.png")
    ]


def test_mistakes_are_one_line(champion: Path, pictures: Path, tmp_path: Path) -> None:
    nameless = tmp_path / "champion.json"
    nameless.write_text(json.dumps({**json.loads(champion.read_text()), "classes": []}))
    (tmp_path / "champion.safetensors").write_bytes(champion.with_suffix(".safetensors").read_bytes())
    for arguments, words in [
        ((), "give the output folder of a finished search and pictures"),
        ((champion,), "pictures"),
        ((tmp_path / "nowhere", pictures), "is no output folder of a search"),
        ((nameless, pictures), "the network's outputs are no classes, so that they have no probabilities; load_subnet gives"),
        ((champion, pictures, "--top", 0), "--top is 0, must be at least 1"),
        ((champion, pictures, "--subnet", "largest"), "give the folder of the search instead"),
    ]:
        ended = predict(*arguments)
        assert words in one_line(ended.code, ended.complaints)
        assert ended.printed == ""


def test_pixels_that_may_be_no_picture_are_refused(champion: Path, tmp_path: Path) -> None:
    classify = load_classifier(champion)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    file.seek(0)
    assert classify(pixels) == classify(file.getvalue()) == classify(file)
    assert [guess.name for guess in classify(pixels, top=9)] != CLASSES[:1]
    assert sum(guess.probability for guess in classify(pixels, top=9)) == pytest.approx(1)
    with tempfile.NamedTemporaryFile(suffix=".png") as opened:
        opened.write(file.getvalue())
        opened.seek(0)
        assert classify(opened) == classify(pixels)
    grey = pixels[..., 0]
    assert classify(grey) == classify(grey[..., None]) == classify(np.repeat(grey[..., None], 3, axis=2))
    for wrong in (pixels / 255, pixels.astype(np.int64), pixels.transpose(2, 0, 1), pixels[None], pixels.ravel()):
        with pytest.raises(ValueError, match="give"):
            classify(wrong)
    (tmp_path / "photo.jpg").write_bytes(file.getvalue())
    for text in (io.StringIO("no picture"), (tmp_path / "photo.jpg").open()):
        with text, pytest.raises(UserError, match=r"give a picture as a path, the bytes of a file, a file opened as binary"):
            classify(text)


def test_a_pil_image_is_seen_as_its_file(champion: Path, tmp_path: Path) -> None:
    classify = load_classifier(champion)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    colours = Image.fromarray(pixels[..., :3])
    colours.save(tmp_path / "turned.jpg", exif=turned)
    Image.fromarray(pixels).save(tmp_path / "transparent.png")
    colours.convert("P").save(tmp_path / "palette.gif", transparency=3)
    for path in sorted(tmp_path.iterdir()):
        with Image.open(path) as image:
            assert classify(image) == classify(path)
    assert classify(Image.open(tmp_path / "turned.jpg")) != classify(colours)
    with pytest.raises(UserError, match="a PIL image of mode F: give the path of its file, or an image of mode L or RGB"):
        classify(Image.fromarray(pixels[..., 0].astype(np.float32)))
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "turned.jpg").read_bytes()[:-300])
    with Image.open(tmp_path / "cut.jpg") as cut, pytest.raises(UserError, match="the PIL image is not readable"):
        classify(cut)
