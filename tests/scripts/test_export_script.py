"""Subnets of a finished search, exported and run by programs that know nothing of it, reach the accuracy that was stated."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from contextlib import chdir
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from search_script import ROOT, contents, one_line, succeed

from raysearch import cli
from raysearch.export import load_subnet
from raysearch.tasks.images import DIGITS, Normalisation, load_splits
from raysearch.tasks.images.cache import open_cache

pytestmark = pytest.mark.timeout(600)  # a search is in the first test's fixtures

STRANGER = f"""
import sys
sys.path.append({sysconfig.get_path("purelib")!r})  # without what the folder's .pth files add: raysearch
sys.modules |= dict.fromkeys(BLOCKED)
"""
"""The beginning of a program that runs isolated (``-I -S``) and cannot import some packages."""

COUNT = """
import numpy as np
images = np.load(sys.argv[1])
print(int((logits(images["images"]).argmax(axis=1) == images["labels"]).sum()))
"""


@pytest.fixture(scope="module")
def searched(finished_search: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished search, to be written to."""
    return Path(shutil.copytree(finished_search, tmp_path_factory.mktemp("to export") / "run"))


@pytest.fixture(scope="module")
def exported(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The champion in all formats, taken elsewhere; the script was called as a user calls it."""
    script = Path(shutil.copy(ROOT / "experiments" / "export.py", searched.parent))  # alone, as `ray submit` takes it
    with chdir(searched.parent):
        printed = succeed("export", searched.name, folder=script.parent)
    assert len(re.findall(r"largest difference of a logit \d\.\de[-+]\d\d", printed)) == 2
    champion = json.loads((searched / "champion.json").read_text())
    folder = searched / "export" / champion["id"]
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "model.json", "model.md", "model.onnx", "model.pt2", "model.safetensors"),
    }
    assert all(
        str(Path(searched.name, "export", champion["id"], name)) in printed for name in contents(folder) if name != "model.md"
    )
    return Path(shutil.move(folder, tmp_path_factory.mktemp("elsewhere") / "champion"))


@pytest.fixture(scope="module")
def test_images(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test split as numpy's file."""
    cached, path = open_cache(searched / "cache" / "test.arrow"), tmp_path_factory.mktemp("images") / "test.npz"
    np.savez(path, images=cached.images, labels=cached.labels)
    return path


@pytest.fixture(scope="module")
def files(test_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test images as picture files, each named after its class."""
    folder, images = tmp_path_factory.mktemp("files"), np.load(test_images)
    for i, (image, label) in enumerate(zip(images["images"], images["labels"], strict=True)):
        Image.fromarray(image[0]).save(folder / f"{i:03}-{label}.png")
    return folder


@pytest.fixture(scope="module")
def programs_of_pixels(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The champion's programs that take pixels, taken elsewhere."""
    printed = succeed("export", str(searched), "--uint8", "--format", "torch-export", "onnx")
    folder = searched / "export" / f"{json.loads((searched / 'champion.json').read_text())['id']}-uint8"
    assert contents(folder).keys() == {"model.json", "model.md", "model.onnx", "model.pt2", "model.safetensors"}
    takes = r"takes uint8 \(batch, height, width, 1\), grey, of any size; largest difference of a probability \d\.\de[-+]\d\d"
    assert len(re.findall(takes, printed)) == 2
    return Path(shutil.move(folder, tmp_path_factory.mktemp("elsewhere") / "pixels"))


def stated(folder: Path) -> int:
    """Right answers on the test images, as the card and the report's summary say."""
    card = json.loads((folder / "model.json").read_text())
    assert card["test_images"] == 400
    right = card["test_score"] * card["test_images"]
    assert right == pytest.approx(round(right))
    assert f"{card['test_score']:.2%} ({round(right)} of 400 images)" in (folder / "model.md").read_text()
    return round(right)


def code(card: Path, mark: str) -> str:
    """The program of a model card that holds ``mark``."""
    (found,) = (block for block in re.findall(r"```python\n(.*?)```", card.read_text(), re.DOTALL) if mark in block)
    return found


def run(folder: Path, program: str, *arguments: str, isolated: bool) -> str:
    flags = ["-I", "-S"] if isolated else []
    command = [sys.executable, *flags, "-c", program, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize(
    ("mark", "blocked"),
    [("onnxruntime", ("raysearch", "torch", "timm", "onnx", "PIL")), ("torch.export", ("raysearch", "timm", "onnx"))],
)
def test_programs_reach_the_stated_accuracy_without_raysearch(
    searched: Path, exported: Path, test_images: Path, mark: str, blocked: tuple[str, ...]
) -> None:
    """By the code of the model card, in a process that cannot import this package."""
    summary = json.loads((searched / "summary.json").read_text())
    tuning = summary["tuning"]
    score = summary["networks"]["champion"]["test_score"]
    if tuning is not None and tuning["deployed"] == "fine-tuned":
        score = tuning["champion"]["test"]
    assert stated(exported) == pytest.approx(score * summary["counts"]["test_images"])
    program = STRANGER.replace("BLOCKED", repr(blocked)) + code(exported / "model.md", mark) + COUNT
    assert int(run(exported, program, str(test_images), isolated=True)) == stated(exported)


def test_timm_reaches_the_stated_accuracy(searched: Path, exported: Path, files: Path) -> None:
    """Image files through timm's own transform, by the code of the exported card and by that of the champion's."""
    program = """
import pathlib, sys, torch
from PIL import Image
files = sorted(pathlib.Path(sys.argv[1]).glob("*.png"))
with torch.inference_mode():
    answers = network(torch.stack([transform(Image.open(file)) for file in files])).argmax(dim=1)
print(sum(int(file.stem[-1]) == answer for file, answer in zip(files, answers.tolist(), strict=True)))
print(network.pretrained_cfg["label_names"])
"""
    for folder, card in ((exported, "model.md"), (searched, "champion.md")):
        right, names = run(folder, code(folder / card, "timm") + program, str(files), isolated=False).splitlines()
        assert int(right) == stated(exported)
        assert names == str([str(digit) for digit in range(10)])


# --- from a picture to a name: every way reaches the same accuracy ----------------------------------------------------


@pytest.mark.parametrize(
    ("mark", "blocked"),
    [("onnxruntime", ("raysearch", "torch", "timm", "onnx")), ("torch.export", ("raysearch", "timm", "onnx", "torchvision"))],
)
def test_programs_of_pixels_name_picture_files_without_raysearch(
    programs_of_pixels: Path, files: Path, mark: str, blocked: tuple[str, ...]
) -> None:
    """By the code of their model card, in a process that cannot import this package,."""
    count = """
from pathlib import Path
right = 0
for path in Path(sys.argv[1]).glob("*.png"):
    right += labels[int(probabilities(pixels_of(path)).argmax())] == path.stem[-1]
print(right)
"""
    program = STRANGER.replace("BLOCKED", repr(blocked)) + code(programs_of_pixels / "model.md", mark) + count
    assert int(run(programs_of_pixels, program, str(files), isolated=True)) == stated(programs_of_pixels)


def test_predict_names_picture_files(searched: Path, programs_of_pixels: Path, files: Path) -> None:
    for source in (searched, searched / "champion.json", programs_of_pixels):
        answers = json.loads(succeed("predict", str(source), str(files), "--json"))
        assert [answer["image"] for answer in answers] == sorted(map(str, files.iterdir()))
        right = sum(Path(answer["image"]).stem[-1] == answer["predictions"][0]["name"] for answer in answers)
        assert right == stated(programs_of_pixels)
        assert [len(answer["predictions"]) for answer in answers] == [3] * len(answers)


def test_the_registered_champion_names_pictures_of_every_form(
    finished_search: Path, programs_of_pixels: Path, files: Path
) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{finished_search.parent / 'mlflow.db'}")
    model = mlflow.pyfunc.load_model("models:/digits@champion")
    mlflow.set_tracking_uri(None)
    paths = sorted(files.iterdir())
    names = [path.stem[-1] for path in paths]
    read = [path.read_bytes() for path in paths]
    pixels = np.stack([np.array(Image.open(path))[..., None] for path in paths])
    for form in (list(map(str, paths)), read, [base64.b64encode(file).decode() for file in read], pixels):
        assert sum(model.predict(form)["name"] == names) == stated(programs_of_pixels)


def test_the_card_tells_where_the_network_comes_from(searched: Path, exported: Path) -> None:
    card, config = (json.loads(path.read_text()) for path in (exported / "model.json", searched / "config.json"))
    splits = load_splits(DIGITS)
    assert card["data"] == {
        **{"recipe": "digits", "dataset": "digits", "seed": 0, "digest": splits.digest},
        **{"train_images": 800, "search_images": 397, "finalist_images": 200, "test_images": 400},
    }
    assert (card["search_id"], card["command"]) == (config["search_id"], config["command"])
    text = (exported / "model.md").read_text()
    for said in (card["id"], card["search_id"], f"{card['params']:,}", f"{card['macs']:,}", splits.digest, "torch 2."):
        assert said in text
    champion = json.loads((searched / "champion.json").read_text())
    assert {**card, "weights": "champion.safetensors"} == champion


def test_any_candidate_reaches_the_score_of_the_search(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table: list[dict[str, Any]] = pq.read_table(searched / "candidates.parquet").to_pylist()
    champion = json.loads((searched / "champion.json").read_text())
    row = next(row for row in table if row["id"] != champion["id"] and row["score"] is not None)
    summary = json.loads((searched / "summary.json").read_text())
    cached = open_cache(searched / "cache" / "search.arrow")
    normalise = Normalisation(DIGITS.mean, DIGITS.std)
    networks = summary["networks"]
    drawn, largest = networks["random"], networks["largest"]
    asked = {
        row["id"]: (row["score"], None),
        "largest": (largest["score"], largest["test_score"]),
        drawn["ids"][0]: (drawn["scores"][0], drawn["test_scores"][0]),  # of the closing report, no candidate
    }
    for which, (score, test_score) in asked.items():
        cli.export([str(searched), "--subnet", which, "--format", "safetensors", "--output", str(searched / which)])
        assert capsys.readouterr().out.count("\n") == 2
        card = json.loads((searched / which / "model.json").read_text())
        assert (card["score"], card["score_images"], card["test_score"]) == (score, 397, test_score)
        with torch.inference_mode():
            network = load_subnet(searched / which / "model.json")
            answers = network(normalise(torch.tensor(cached.images))).argmax(dim=1)
        assert (answers == torch.tensor(cached.labels)).double().mean().item() == pytest.approx(score)
        assert sum(weight.numel() for weight in network.parameters()) == card["params"]
        assert "timm" not in (searched / which / "model.md").read_text().partition("## Loading")[2].partition("## Origin")[0]
    assert f"index {row['index']}, {row['origin']}, generation" in (searched / row["id"] / "model.md").read_text()


def test_a_champion_that_was_moved_is_exported(searched: Path, exported: Path, tmp_path: Path) -> None:
    for name in ("champion.json", "champion.safetensors"):
        shutil.copy(searched / name, tmp_path)
    cli.export([str(tmp_path / "champion.json"), "--format", "timm"])
    (folder,) = (tmp_path / "export").iterdir()
    assert contents(folder).keys() == {"config.json", "model.json", "model.md", "model.safetensors"}
    for name in ("config.json", "model.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (exported / name).read_bytes()
    cli.export([str(tmp_path / "champion.json"), "--format", "timm"])  # once more, over its own files


def test_mistakes_are_one_line(searched: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(searched / "config.json", unfinished)
    other = Path(shutil.copytree(exported, tmp_path / "other"))
    held = json.loads((other / "model.json").read_text())
    (other / "model.json").write_text(json.dumps({**held, "id": "0" * 12}))
    damaged = tmp_path / "damaged.json"
    damaged.write_text("{}")
    for arguments, words in [
        ([], "give the output folder of a finished search"),
        ([str(tmp_path / "nowhere")], "nowhere is no output folder of a search"),
        ([str(tmp_path / "nowhere.json")], "nowhere.json is missing"),
        ([str(damaged)], "damaged.json describes no subnet"),
        ([str(unfinished)], "unfinished has no champion yet; continue it with --resume first"),
        ([str(searched), "--subnet", "0123"], "--subnet 0123: no such candidate in"),
        ([str(searched / "champion.json"), "--subnet", "largest"], "give the folder of the search instead"),
        ([str(searched), "--output", str(searched)], "holds a config.json of something else; choose another folder"),
        ([str(searched), "--output", str(damaged)], "damaged.json is a file, not a folder"),
        ([str(searched), "--output", str(other)], "holds another subnet (000000000000); choose another folder"),
        ([str(searched), "--uint8", "--format", "timm"], "--uint8 --format timm holds no program; add torch-export or onnx"),
        ([str(searched), "--uint8", "--output", str(exported)], "holds model.pt2, written without --uint8; choose another"),
        ([str(searched), "--format", "onxx"], "onxx"),
        ([str(searched), "--formats", "onnx"], "did you mean --format?"),
    ]:
        before = contents(tmp_path)
        with pytest.raises(SystemExit) as left:
            cli.export(arguments)
        printed = capsys.readouterr()
        assert printed.out == ""
        assert words in one_line(left.value.code, printed.err)
        assert contents(tmp_path) == before
