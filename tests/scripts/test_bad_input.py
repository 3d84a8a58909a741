"""A user's mistake gets one clear line before anything is trained, and leaves earlier results whole."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from copies import copied_search
from search_script import FEW_CANDIDATES, NO_MODELS, SMALL_NET, contents, program, small_supernet, write_tones

from raysearch.spaces.autoformer import FAMILY
from raysearch.store.folder import open_folder, read_json
from raysearch.tasks.images import IMAGES, EncodedImages, load_splits
from raysearch.training import checkpoint
from raysearch.training.supernets import SupernetFile

Refused = Callable[..., str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Refused:
    """Run the main job in this process, in an empty folder; returns the one line that it ends with."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: str) -> str:
        ended = program("search", *arguments)
        assert ended.printed in ("", "reading the images\n")  # nothing began; reading is told where the machine is busy
        return ended.message

    return run


# --- what can be said of the command line alone ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("cifar", ["unknown recipe 'cifar'", "digits, fashion, fashion-mnist, images"]),
        ("", ["give a recipe", "digits"]),
        ("digits --trian.epochs 3", ["--trian.epochs", "did you mean --train.epochs?"]),
        ("digits --train.epochs many", ["--train.epochs: 'many' is no whole number", "; --help-all lists all options"]),
        ("digits --train.epochs 0", ["--train.epochs is 0", "at least 1"]),
        ("digits --train.precision float8", ["--train.precision", "bfloat16"]),
        ("digits --dataset.search-images 1.5", ["--dataset.search-images is 1.5, must be above 0 and below 1"]),
        ("digits --dataset.search-images 1795", ["1795 search images", "ask for fewer"]),
        ("digits --search.population 8 --search.mutations 9", ["9 mutations and 4 crossovers", "population of 8"]),
        ("digits --search.population 8 --algorithm ageing", ["--search sets evolution", "algorithm is ageing"]),
        ("digits --racing.enabled", ["racing.enabled does not fit algorithm predictor", "choose algorithm evolution"]),
        ("digits --finalists.count 0", ["--finalists.count is 0", "at least 1"]),
        ("digits --finalists.search-images 398", ["finalists.search-images is 398", "the search split has 397"]),
        ("digits --warm-start nowhere", ["nowhere is missing", "candidates.parquet"]),
        ("digits --warm-start list.json", ["list.json is missing", "JSON list"]),
        (
            "digits --warm-start 0123456789abcdef0123456789abcdef",
            ["no candidates.parquet of run 0123456789abcdef", "no MLflow record", "--tracking-uri"],
        ),
        ("digits --racing.enabled --racing.error 1", ["--racing.error is 1,", "below 1"]),
        ("digits --dataset.img-size 9", ["img_size 9", "patch_size 4"]),
        ("digits --space.embed-dim 64 128", ["embed_dim 128", "supernet's 96"]),
        ("digits --constraint.min-params 2e5 --constraint.max-params 1e5", ["empty band", "200,000", "100,000"]),
        (
            "digits --constraint.min-params 2e9 --constraint.max-params 3e9",
            ["2,000,000,000 <= params <= 3,000,000,000", "it offers 15,082 to 534,410 params", "Widen the band"],
        ),
        ("digits --constraint.max-latency-ms -1", ["--constraint.max-latency-ms is -1", "must be above 0"]),
        ("digits --latency.repetitions 0", ["--latency.repetitions is 0", "at least 1"]),
        ("digits --resume", ["--resume", "no search of digits in runs/", "--output"]),
        ("images", ["needs --data DIR"]),
        ("images --data nowhere", ["nowhere, which is not a folder"]),
        ("imagenet-tiny --data .", ["no folder /", "/train: ImageNet", "val/<wnid>"]),
        ("fashion-mnist --data .", ["no Fashion-MNIST in", "dataset-fashion-mnist"]),
        ("digits --supernet nowhere.pth", ["nowhere.pth does not exist"]),
        ("digits --supernet nowhere.safetensors", ["nowhere.safetensors does not exist"]),
        ("digits --supernet .", [". is not a readable"]),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(refused: Refused, arguments: str, words: list[str]) -> None:
    message = refused(*arguments.split())
    for word in words:
        assert word in message
    assert not list(Path().iterdir())


# --- images ---


def test_a_missing_class_and_unreadable_images_are_named(refused: Refused, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_tones(data / "train", count=4)
    write_tones(data / "val", count=2)
    (data / "val" / "light").rename(data / "val" / "bright")
    assert f"no folder {data / 'val' / 'light'}" in refused("images", "--data", str(data))
    (data / "val" / "bright").rename(data / "val" / "light")

    victim = data / "val" / "light" / "001.png"
    victim.write_bytes(victim.read_bytes()[:100])
    assert f"{victim} is not a readable image" in refused("images", "--data", str(data))
    assert not list(Path().iterdir())


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("part", ["train", "search", "finalists"])
def test_an_image_that_breaks_after_the_start_ends_training_with_its_name(tmp_path: Path, part: str) -> None:
    """One to train on is found by a process of the training, which is not started over for it; others before it begins."""
    data, output = write_tones(tmp_path / "data", count=24), tmp_path / "run"
    flags = ("--dataset.img-size", "16", "--net.patch-size", "8", *SMALL_NET, *FEW_CANDIDATES, *NO_MODELS)
    train = ("--train.batch-size", "8", "--train.loader-workers", "1", "--train.workers", "1")

    victims: EncodedImages = getattr(load_splits(replace(IMAGES, root=data)), part)

    def spoil() -> None:
        for path in map(victims.path, range(len(victims))):
            path.write_bytes(b"\0" * path.stat().st_size)  # of the same size: the files listed are still those

    command = ("images", "--data", str(data), "--output", str(output), *flags, *train)
    ended = program("search", *command, at_first_line=spoil)
    first, *others = ended.printed.splitlines()
    assert "images to train" in first  # all of them were read and found in order
    assert ended.message.startswith(f"{data}/")
    assert "is not a readable image" in ended.message
    assert not any(line.startswith("search") for line in others)
    timed = output / "seconds.json"  # a timed step may have met the image before anything was timed
    assert part == "train" or "train" not in read_json(timed)


# --- output folders and what they hold ---


@pytest.fixture
def stopped(finished_search: Path, tmp_path: Path) -> Path:
    """A search that was killed in its report, ready to be continued."""
    copy = copied_search(finished_search, tmp_path / "earlier")
    (copy / ".finished").unlink()
    (copy / "summary.json").unlink()
    return copy


def test_an_earlier_search_is_never_mixed_with_another(
    refused: Refused, digits_flags: tuple[str, ...], stopped: Path, tmp_path: Path
) -> None:
    before = contents(stopped.parent)
    output = ("--output", str(stopped))
    message = refused(*digits_flags, *output)
    assert f"{stopped} holds an earlier search" in message
    assert "--resume" in message

    message = refused(*digits_flags, "--train.lr", "0.5", *output, "--resume")
    assert "another configuration (train.lr: 0.003 there, 0.5 here)" in message
    assert "supernet:" in refused(*digits_flags, "--supernet", str(stopped / "supernet.safetensors"), *output, "--resume")
    assert "another configuration" in refused("digits", "--seed", "1", *output, "--resume")

    with open_folder(stopped, read_json(stopped / "config.json"), resume=True):
        assert f"{stopped} is in use by another search" in refused(*digits_flags, *output, "--resume")
    assert contents(stopped.parent) == before

    foreign = tmp_path / "letters"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("Dear Ray,")
    for flags in ([], ["--resume"]):
        message = refused("digits", "--output", str(foreign), *flags)
        assert f"{foreign} holds files, but no search" in message
        assert "empty folder" in message
    assert "is a file" in refused("digits", "--output", str(foreign / "letter.txt"))
    assert [p.name for p in foreign.iterdir()] == ["letter.txt"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cross_out(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], "#" * len(lines[3]) + "\n", *lines[4:]]))


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("config.json", cut, ["config.json is damaged", "restore it or choose another --output"]),
        ("config.json", lambda path: path.write_text("[]"), ["config.json is damaged", "another --output"]),
        ("config.json", lambda path: path.write_text("{}"), ["config.json is no configuration of raysearch"]),
        ("training.json", cut, ["training.json is damaged"]),
        ("seconds.json", cut, ["seconds.json is damaged"]),
        ("supernet.safetensors", cut, ["supernet.safetensors is damaged", "restore it"]),
        ("supernet.safetensors", Path.unlink, ["supernet.safetensors is missing", "restore it"]),
        ("journal.jsonl", cross_out, ["journal.jsonl line 4 is damaged", "remove that line"]),
    ],
)
def test_a_damaged_file_of_an_earlier_search_is_named(
    refused: Refused,
    digits_flags: tuple[str, ...],
    stopped: Path,
    name: str,
    damage: Callable[[Path], Any],
    words: list[str],
) -> None:
    damage(stopped / name)
    before = contents(stopped.parent)
    message = refused(*digits_flags, "--output", str(stopped), "--resume")
    assert str(stopped / name) in message
    for word in words:
        assert word in message
    assert contents(stopped.parent) == before


def test_a_supernet_that_others_were_scored_with_is_not_exchanged(
    refused: Refused, digits_flags: tuple[str, ...], stopped: Path
) -> None:
    weights, metadata = checkpoint.read(stopped / "supernet.safetensors")
    checkpoint.write(stopped / "supernet.safetensors", checkpoint.pack({k: v + 1 for k, v in weights.items()}, metadata))
    message = refused(*digits_flags, "--output", str(stopped), "--resume")
    assert f"{stopped / 'journal.jsonl'} holds scores of other weights" in message


def test_a_damaged_training_checkpoint_is_named(refused: Refused, digits_flags: tuple[str, ...], stopped: Path) -> None:
    for name in ("supernet.safetensors", "journal.jsonl", "training.json"):
        (stopped / name).unlink()
    (stopped / "training.safetensors").write_bytes(b"\x10" * 1000)
    message = refused(*digits_flags, "--output", str(stopped), "--resume")
    assert f"{stopped / 'training.safetensors'} is damaged" in message


def test_a_finished_search_without_its_summary_is_named(refused: Refused, digits_flags: tuple[str, ...], stopped: Path) -> None:
    (stopped / ".finished").touch()
    message = refused(*digits_flags, "--output", str(stopped), "--resume")
    assert f"{stopped / 'summary.json'} is missing" in message


# --- supernets that are given ---


def test_a_supernet_that_cannot_be_used_is_refused(refused: Refused, finished_search: Path, tmp_path: Path) -> None:
    sound = finished_search / "supernet.safetensors"
    given = tmp_path / "given.safetensors"

    def message(path: Path = given) -> str:
        text = refused("digits", "--supernet", str(path), "--output", "new")
        assert str(path) in text
        assert not Path("new").exists()
        return text

    given.write_bytes(sound.read_bytes()[:5000])
    assert "is damaged or not a checkpoint of raysearch" in message()
    safetensors.torch.save_file({"weight": torch.zeros(3)}, given)
    assert "not written by raysearch" in message()
    assert "holds no supernet (a subnet)" in message(finished_search / "champion.safetensors")
    SupernetFile(FAMILY, (other := small_supernet()).settings(), other.state_dict()).write(given)
    assert "does not fit the recipe digits: embed_dim 96 does not fit into the supernet's 32" in message()  # the recipe's space
    ours = (
        "--dataset.img-size",
        "8",
        "--net.patch-size",
        "4",
        "--net.embed-dim",
        "96",
        "--net.num-heads",
        "4",
        "--net.depth",
        "5",
    )
    text = refused("digits", "--supernet", str(given), *ours, "--net.mlp-ratio", "3", "--output", "new")
    for size in ("img_size 224 instead of 8", "embed_dim 32 instead of 96", "num_classes 1000 instead of 10"):
        assert size in text

    # Another split seed divides the images anew: what the supernet learned from would be searched and tested with.
    text = refused("digits", "--supernet", str(sound), "--dataset.split-seed", "1", "--output", "new")
    assert f"{sound} was trained on other images, or on another division of these" in text
    assert not Path("new").exists()

    published = tmp_path / "published.pth"
    torch.save({"model": {k: v for k, v in other.state_dict().items() if k != "norm.weight"}}, published)
    assert "1 missing: norm.weight" in message(published)
    torch.save({"model": {"fc.weight": torch.zeros(3, 3)}}, published)
    assert "not an AutoFormer checkpoint: patch_embed_super.proj.weight is missing" in message(published)
    torch.save({"model": other.state_dict()}, published)
    cut(published)
    assert "is not a readable PyTorch checkpoint" in message(published)


class Hostile:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_hostile_pickle_runs_nothing(refused: Refused, tmp_path: Path, save: Callable[[Any, Path], Any]) -> None:
    mark, given = tmp_path / "mark", tmp_path / "given.pth"
    save({"model": small_supernet().state_dict(), "args": Hostile(mark)}, given)
    assert f"{given} is not a readable PyTorch checkpoint" in refused("digits", "--supernet", str(given))
    assert not mark.exists()


# --- MLflow ---


def test_an_unreachable_tracking_server_is_named_and_leaves_no_trace(
    refused: Refused, digits_flags: tuple[str, ...], stopped: Path
) -> None:
    nobody = ("--tracking-uri", "http://127.0.0.1:9")
    for _ in range(2):  # the failed start is no earlier search
        message = program("search", *digits_flags, "--output", "new", *nobody).message
        assert "cannot use MLflow at http://127.0.0.1:9" in message
        assert "start the server" in message
        assert not (Path("new") / "config.json").exists()
    before = contents(stopped.parent)
    assert "cannot use MLflow" in refused(*digits_flags, "--output", str(stopped), "--resume", *nobody)
    assert contents(stopped.parent) == before
    assert json.loads((stopped / "config.json").read_text())["recipe"]["name"] == "digits"


def test_a_finished_search_is_not_continued_with_other_settings(
    refused: Refused, digits_flags: tuple[str, ...], finished_search: Path
) -> None:
    before = contents(finished_search.parent)
    message = refused(*digits_flags, "--output", str(finished_search), "--resume", "--seed", "7")
    assert "seed: 0 there, 7 here" in message
    assert contents(finished_search.parent) == before
