"""The recipes beyond the demo, by the same script: own images, Fashion-MNIST and ImageNet, trained here or given a supernet."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from search_script import (
    FEW_CANDIDATES,
    NO_MODELS,
    SMALL_NET,
    accuracy,
    program,
    searched,
    small_supernet,
    write_idx,
    write_tones,
)

from raysearch.recipes.autoformer import RECIPES
from raysearch.space.cost import Constraint
from raysearch.spaces.autoformer import FAMILY, AutoFormerSpace
from raysearch.tasks import Ends
from raysearch.tasks.images import DIGITS, ArrayImages, AugmentConfig, load_splits
from raysearch.tasks.images.config import IMAGES
from raysearch.training import checkpoint
from raysearch.training.supernets import SupernetFile

# --- settings ---


@pytest.mark.parametrize(
    ("name", "space", "supernet", "band"),
    [
        ("imagenet-tiny", AutoFormerSpace.tiny(), (256, 14, 4), (5e6, 6e6)),
        ("imagenet-small", AutoFormerSpace.small(), (448, 14, 7), (22e6, 23e6)),
        ("imagenet-base", AutoFormerSpace.base(), (640, 16, 10), (52e6, 54e6)),
    ],
)
def test_imagenet_recipes_are_the_published_ones(
    name: str, space: AutoFormerSpace, supernet: tuple[int, int, int], band: tuple[float, float]
) -> None:
    _, recipe = RECIPES[name]
    assert recipe.name == name
    built = recipe.config.space.build()
    assert (built.choices, built.depth) == (space.choices, space.depth)
    assert recipe.constraint == Constraint(min_params=band[0], max_params=band[1])
    net = recipe.config.net
    assert (net.embed_dim, net.depth, net.num_heads) == supernet
    assert (net.patch_size, net.mlp_ratio, net.head_dim, net.max_relative_position) == (16, 4.0, 64, 14)
    assert (net.global_pool, net.relative_position, net.abs_pos) == ("avg", True, True)

    train = recipe.train
    assert (train.epochs, train.batch_size, train.warmup_epochs) == (500, 1024, 20)
    assert (train.lr, train.min_lr, train.warmup_lr, train.weight_decay) == (1e-3, 1e-5, 1e-6, 0.05)
    assert (train.label_smoothing, train.mixup, train.cutmix, train.drop_path) == (0.1, 0.8, 1.0, 0.1)
    assert (train.archs_per_step, train.weight_init, train.clip_grad) == (1, "trunc_normal", None)
    assert recipe.task.augment == AugmentConfig(
        crop_scale=(0.08, 1.0),
        hflip=0.5,
        rand_augment="rand-m9-mstd0.5-inc1",
        color_jitter=0.4,
        random_erasing=0.25,
        interpolation="bicubic",
        repeated_augmentation=3,
    )
    assert (recipe.task.dataset.img_size, recipe.task.dataset.in_chans, recipe.task.dataset.search_images) == (224, 3, 10_000)
    search = recipe.search
    assert (search.population, search.generations, search.parents) == (50, 20, 10)
    assert (search.shares, search.rates) == ((25, 25), "code")


@pytest.mark.parametrize("name", [name for name, (_, recipe) in RECIPES.items() if not recipe.fits])
def test_every_recipe_fits_together(name: str) -> None:
    """The largest subnet fits the supernet, and the smallest and largest lie on the two sides of the band."""
    _, recipe = RECIPES[name]
    size = recipe.task.dataset.img_size
    geometry = recipe.family.build(recipe.config, Ends((recipe.task.dataset.in_chans, size, size), 10))
    space = geometry.space
    band = recipe.constraint
    quantity = "params" if band.max_params is not None else "macs"
    least, most = (getattr(geometry.cost(arch), quantity) for arch in (space.smallest(), space.largest()))
    lower, upper = (getattr(band, f"{end}_{quantity}") for end in ("min", "max"))
    assert upper is not None
    assert least < upper
    assert most > (lower or upper)  # the budget decides something
    assert recipe.search.population == 50


@pytest.mark.parametrize("name", ["imagenet-tiny", "imagenet-small", "imagenet-base"])
def test_plus_changes_what_a_step_trains_and_what_becomes_of_the_champion_alone(name: str) -> None:
    published, plus = RECIPES[name][1], RECIPES[f"{name}-plus"][1]
    assert (published.train.draw_from, published.champion.epochs) == ("space", 0)
    assert (plus.train.draw_from, plus.champion.epochs) == ("band", 30)
    assert replace(plus, name=name, train=published.train, champion=published.champion) == published
    assert replace(plus.train, draw_from="space") == published.train


def test_the_splits_of_digits_are_disjoint() -> None:
    """Told by the pixels: no image is in two splits, and the four together are the data set."""
    recipe = RECIPES["digits"][1]
    splits = load_splits(recipe.task.dataset)
    parts: list[set[bytes]] = []
    for part in (splits.train, splits.search, splits.finalists, splits.test):
        assert isinstance(part, ArrayImages)
        parts.append({image.tobytes() for image in part.pixels})
    assert [len(part) for part in parts] == [800, 397, 200, 400]
    assert len(set().union(*parts)) == sum(map(len, parts)) == 1797
    assert recipe.task.dataset == DIGITS


# --- from the images to the champion ---


@pytest.mark.usefixtures("cluster")
def test_own_images_from_training_to_champion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the report, nothing reads the test images: they are broken until the search is over.

    The images are listed in a table. All paths are given from where the user is, or from the table; training and evaluators'
    processes are elsewhere.
    """
    monkeypatch.chdir(tmp_path)
    data, output = write_tones(tmp_path / "data", count=40), tmp_path / "run"
    listed = [f"{path.relative_to(data)},{path.parent.name}" for path in sorted(data.rglob("*.*"))]
    (data / "labels.csv").write_text("\n".join(["path,label", *listed]))
    config = replace(IMAGES, root=data / "labels.csv", img_size=16)
    test = load_splits(config).test
    flags = [
        *("images", "--data", "data/labels.csv", "--dataset.img-size", "16", "--net.patch-size", "4"),
        *("--train.epochs", "12", "--train.warmup-epochs", "2", "--train.batch-size", "26", "--train.lr", "2e-3"),
        *("--train.loader-workers", "1", "--train.workers", "1"),
        *("--augment.repeated-augmentation", "1", "--augment.color-jitter", "0"),
        *SMALL_NET,
        *FEW_CANDIDATES,
        *NO_MODELS,
    ]
    whole = {path: path.read_bytes() for path in map(test.path, range(len(test)))}  # pyright: ignore[reportAttributeAccessIssue]

    def spoil() -> None:
        for path, content in whole.items():
            path.write_bytes(b"\0" * len(content))

    ended = program("search", *flags, "--output", str(output), at_first_line=spoil)
    assert "12 to test" in ended.printed.splitlines()[0]
    assert ended.message.partition(" ")[0] in map(str, whole)
    assert "generation 2/2" in ended.printed
    assert (output / "candidates.parquet").exists()
    assert {path.name for path in (output / "cache").glob("*.arrow")} == {"search.arrow", "finalists.arrow"}

    for path, content in whole.items():
        path.write_bytes(content)
    summary, printed = searched(*flags, "--resume", output=output)
    assert "champion" in printed
    assert summary["training"]["epochs"] == 12
    assert summary["counts"]["candidates"] == 8
    found = accuracy(output / "champion.json", config, output / "cache" / "test.arrow")
    assert found == pytest.approx(summary["networks"]["champion"]["test_score"])
    assert found > 0.8
    found = accuracy(output / "champion.json", config, output / "cache" / "search.arrow")
    assert found == pytest.approx(summary["networks"]["champion"]["score"])
    assert json.loads((output / "champion.json").read_text())["classes"] == ["dark", "light"]


@pytest.mark.usefixtures("cluster")
def test_a_published_supernet_is_searched_without_training(tmp_path: Path) -> None:
    """With races, whose high error level stops candidates even of an untrained supernet; the report scores them in full."""
    data, output, given = write_idx(tmp_path / "data", train=200, test=20), tmp_path / "run", tmp_path / "supernet.pth"
    torch.manual_seed(0)
    weights = small_supernet(img_size=28, patch_size=14, in_chans=1, num_classes=10).state_dict()
    torch.save({"model": weights, "args": argparse.Namespace(model="", lr=5e-4, output_dir=Path("out"))}, given)
    parts = ("--dataset.search-images", "100", "--dataset.finalist-images", "20")
    flags = (*parts, "--net.patch-size", "14", *SMALL_NET, *FEW_CANDIDATES, *NO_MODELS)
    races = ("--search.parents", "2", "--racing.enabled", "--racing.error", "0.8", "--racing.block", "10")
    flags = (*flags, *races, "--report.random-subnets", "60")  # the whole space
    summary, printed = searched("fashion-mnist", "--data", str(data), "--supernet", str(given), *flags, output=output)
    assert "train  " not in printed
    assert summary["training"] == {"epochs": 0, "history": []}
    assert "train" not in summary["seconds"]
    counts = summary["counts"]
    sizes = [counts[f"{part}_images"] for part in ("train", "search", "finalist", "test")]
    assert sizes == [80, 100, 20, 20]
    table = pq.read_table(output / "candidates.parquet").to_pylist()
    raced = [row for row in table if row["status"] == "raced"]
    assert raced
    assert (counts["candidates"], counts["scored"], counts["raced"]) == (8, 8 - len(raced), len(raced))
    racing = summary["racing"]
    assert racing["images_seen"] == sum(row["images_seen"] for row in table) < racing["images_of_full_scoring"] == 800
    assert f"racing stopped {len(raced)} of 8 candidates" in printed
    journal = [json.loads(line) for line in (output / "journal.jsonl").read_text().splitlines()[1:]]
    # A network that is compared was scored on all search images, once more where a race had stopped it.
    whole = {entry["id"]: entry["outcome"] for entry in journal if entry["split"] in ("search", "search/all")}
    again = {entry["id"] for entry in journal if entry["split"] == "search/all"}
    assert again <= {row["id"] for row in raced}
    compared = dict(zip(summary["networks"]["random"]["ids"], summary["networks"]["random"]["scores"], strict=True))
    assert compared
    for arch_id, compared_score in compared.items():
        assert (whole[arch_id]["items_seen"], whole[arch_id]["score"]) == (100, compared_score)
    kept, _ = checkpoint.read(output / "supernet.safetensors")
    assert kept.keys() == weights.keys()
    assert all(torch.equal(kept[name], weights[name]) for name in weights)


@pytest.mark.usefixtures("cluster")
def test_imagenet_with_a_supernet_of_our_own(tmp_path: Path) -> None:
    data, output, given = tmp_path / "data", tmp_path / "run", tmp_path / "supernet.safetensors"
    write_tones(data / "train", count=8)
    write_tones(data / "val", count=3)
    supernet = small_supernet(img_size=16, patch_size=8, num_classes=2)
    SupernetFile(FAMILY, supernet.settings(), supernet.state_dict()).write(given)
    size = (
        "--dataset.img-size",
        "16",
        "--dataset.search-images",
        "6",
        "--dataset.finalist-images",
        "4",
        "--net.patch-size",
        "8",
    )
    summary, printed = searched(
        *("imagenet-tiny", "--data", str(data), "--supernet", str(given), "--algorithm", "random"),
        *(*size, *SMALL_NET, *FEW_CANDIDATES, *NO_MODELS),
        output=output,
    )
    table = pq.read_table(output / "candidates.parquet").to_pylist()
    assert {row["origin"] for row in table} == {"random"}
    assert [row["images_seen"] for row in table] == [6] * 8
    assert summary["counts"]["test_images"] == 6
    # Nothing tells what the file's supernet has learned from: the images that choose are a part of ImageNet's training images.
    assert "Published supernets learned from all training images of ImageNet" in summary["seen"]
    for text in (printed, (output / "champion.md").read_text(), (output / "report.html").read_text()):
        assert "scores on them are of images that it has seen" in text
