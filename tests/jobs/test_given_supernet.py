"""What a search is checked for before it trains: a supernet's file says its own sizes, and a start fits a generation."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from search_script import write_tones

from raysearch.errors import UserError
from raysearch.jobs.plan import plan_search
from raysearch.parsing.search import parse_search
from raysearch.recipes import RECIPES
from raysearch.recipes.fitted import Machine
from raysearch.space import Constraint
from raysearch.spaces.autoformer import FAMILY, AutoFormerSupernet
from raysearch.training.supernets import SupernetFile, build_supernet, read_supernet

SIZES = ("--net.embed-dim", "64", "--net.depth", "3", "--net.num-heads", "2", "--net.mlp-ratio", "2", "--net.patch-size", "2")
SPACE = (
    "--space.embed-dim",
    "32",
    "64",
    "--space.depth",
    "2",
    "3",
    "--space.num-heads",
    "1",
    "2",
    "--space.mlp-ratio",
    "1",
    "2",
)
LAPTOP = Machine(cores=2, gpus=0, memory_bytes=8 << 30)
GPUS = Machine(cores=64, gpus=8, memory_bytes=256 << 30)
BUDGET = ("--constraint.min-params", "0", "--constraint.max-params", "1M")


def write(path: Path, *, recorded: bool, flags: tuple[str, ...] = (*SIZES, *SPACE, "--dataset.img-size", "12")) -> Path:
    """The supernet that a search with these flags would train, but untrained."""
    recipe = parse_search(["digits", *flags]).recipe
    settings = dict(recipe.family.build(recipe.config, recipe.task.ends(recipe.task.splits())).settings)
    net = build_supernet(recipe.family, settings, weight_init="xavier", pos_embed_std=0.2, seed=0)
    config = json.loads(json.dumps(asdict(recipe.config))) if recorded else None
    preprocessing = json.loads(json.dumps(recipe.task.preprocessing())) if recorded else None
    SupernetFile(recipe.family, settings, dict(net.state_dict()), config=config, preprocessing=preprocessing).write(path)
    return path


def test_net_space_and_image_size_come_from_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "net.safetensors", recorded=True)
    plan = plan_search(parse_search(["digits", "--supernet", str(path), *BUDGET]))
    as_given = parse_search(["digits", *SIZES, *SPACE]).recipe.config
    assert plan.recipe.config == as_given
    assert plan.recipe.task.dataset.img_size == 12
    assert plan.given is not None


def test_a_file_that_does_not_record_its_space_says_the_sizes_of_its_net(tmp_path: Path) -> None:
    path = write(tmp_path / "net.safetensors", recorded=False)
    plan = plan_search(parse_search(["digits", "--supernet", str(path), *SPACE, *BUDGET]))
    assert plan.recipe.config == parse_search(["digits", *SIZES, *SPACE]).recipe.config
    with pytest.raises(UserError, match="96"):  # the recipe's space does not fit into this net
        plan_search(parse_search(["digits", "--supernet", str(path), *BUDGET]))


def test_what_is_given_beside_a_file_stays_and_a_conflict_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "net.safetensors", recorded=True)
    narrow = plan_search(parse_search(["digits", "--supernet", str(path), "--space.depth", "2", *BUDGET]))
    assert narrow.recipe.config.space.depth == (2,)
    with pytest.raises(UserError, match="does not fit the recipe digits: depth 3 instead of 4"):
        plan_search(parse_search(["digits", "--supernet", str(path), "--net.depth", "4", *BUDGET]))
    with pytest.raises(UserError, match="img_size 12 instead of 8"):
        plan_search(parse_search(["digits", "--supernet", str(path), "--dataset.img-size", "8", *BUDGET]))


def published(path: Path, *, classes: int, size: int = 8) -> AutoFormerSupernet:
    """A supernet of so many classes as programs of others write it."""
    net = AutoFormerSupernet(
        **{"img_size": size, "patch_size": 4, "in_chans": 1, "num_classes": classes, "drop_path_rate": 0.0},
        **{"embed_dim": 96, "depth": 5, "num_heads": 4, "mlp_ratio": 3.0, "head_dim": 32, "max_relative_position": 1},
    )
    torch.save({"model": net.state_dict()}, path)
    return net


def test_a_supernet_of_other_classes_is_where_training_begins(tmp_path: Path) -> None:
    path = tmp_path / "published.pth"
    net = published(path, classes=7)
    plan = plan_search(parse_search(["digits", "--supernet", str(path)]))
    assert plan.given is None
    assert plan.start is not None
    assert "it has 7 classes, the images 10" in plan.start.words
    assert "a training of 300 epochs, with a new head (head.weight, head.bias)" in plan.start.words
    assert plan.seen is not None
    assert "if search, finalist or test images were among them" in plan.seen
    before = net.state_dict()
    assert plan.start.weights["head.weight"].shape == (10, 96)
    assert all(torch.equal(plan.start.weights[name], before[name]) for name in before.keys() - {"head.weight", "head.bias"})
    again = plan_search(parse_search(["digits", "--supernet", str(path), "--seed", "1"]))
    assert again.start is not None
    assert not torch.equal(again.start.weights["head.weight"], plan.start.weights["head.weight"])
    larger = plan_search(parse_search(["digits", "--supernet", str(path), "--dataset.img-size", "16"]))
    assert larger.start is not None
    assert larger.start.weights["pos_embed"].shape == (1, 17, 96)
    with pytest.raises(UserError, match=r"does not fit the recipe digits: depth 5 instead of 6"):
        plan_search(parse_search(["digits", "--supernet", str(path), "--net.depth", "6"]))


def test_a_supernet_of_the_same_classes_is_searched_as_it_is_unless_a_new_head_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "published.pth"
    published(path, classes=10)
    command = ["digits", "--supernet", str(path)]
    known = plan_search(parse_search(command))
    assert (known.given is None, known.start) == (False, None)
    asked = plan_search(parse_search([*command, "--new-head"]))
    assert (asked.given, asked.start is None) == (None, False)
    own = write(tmp_path / "own.safetensors", recorded=True)
    file = read_supernet(own, FAMILY)
    replace(file, classes=list("abcdefghij")).write(own)
    named = plan_search(parse_search(["digits", "--supernet", str(own), *BUDGET]))
    assert named.start is not None
    assert "its classes have other names" in named.start.words
    with pytest.raises(UserError, match="--new-head needs --supernet FILE"):
        plan_search(parse_search(["digits", "--new-head"]))


def listed(path: Path, count: int) -> Path:
    """A JSON list of so many architectures of the digits' space and budget."""
    plan = plan_search(parse_search(["digits"]))
    from random import Random

    archs = [plan.problem.sample(Random(i)) for i in range(count)]
    path.write_text(json.dumps([arch.to_dict() for arch in archs if arch is not None]))
    return path


@pytest.mark.parametrize("flags", [("--search.population", "4"), ("--algorithm", "ageing", "--ageing.population", "4")])
def test_a_start_is_no_larger_than_a_first_generation(tmp_path: Path, flags: tuple[str, ...]) -> None:
    path = str(listed(tmp_path / "list.json", 6))
    plan = plan_search(parse_search(["digits", "--warm-start", path, *flags]))
    assert len(plan.initial) == 4
    with pytest.raises(UserError, match=r"--warm-start-count is 5, but a first generation of \w+ holds 4"):
        plan_search(parse_search(["digits", "--warm-start", path, "--warm-start-count", "5", *flags]))
    assert RECIPES["digits"][1].predictor.population >= 10


def test_a_recipe_that_fits_its_settings_keeps_all_that_the_file_states(tmp_path: Path) -> None:
    """Also where that is the recipe's default: it must not follow from this machine or budget instead."""
    data = ("images", "--data", str(write_tones(tmp_path / "data", count=60, size=64)))
    trained = plan_search(parse_search([*data, "--constraint.max-params", "2M"]), machine=lambda: LAPTOP)
    net = build_supernet(trained.recipe.family, trained.settings, weight_init="xavier", pos_embed_std=0.2, seed=0)
    config = json.loads(json.dumps(asdict(trained.recipe.config)))
    path = tmp_path / "net.safetensors"
    SupernetFile(trained.recipe.family, dict(trained.settings), dict(net.state_dict()), config=config).write(path)
    again = plan_search(parse_search([*data, "--supernet", str(path), "--constraint.max-params", "1M"]), machine=lambda: GPUS)
    assert again.recipe.config == trained.recipe.config
    assert again.recipe.task.dataset.img_size == trained.recipe.task.dataset.img_size
    assert again.recipe.constraint == Constraint(max_params=1e6)


def test_a_warm_up_ends_before_the_training_does() -> None:
    train = plan_search(parse_search(["digits", "--train.epochs", "2"])).recipe.train
    assert (train.epochs, train.warmup_epochs) == (2, 1)
    with pytest.raises(UserError, match=r"train\.warmup-epochs is 3, must be at most train\.epochs \(2\)"):
        plan_search(parse_search(["digits", "--train.epochs", "2", "--train.warmup-epochs", "3"]))


def test_a_supernet_is_not_scored_on_inputs_that_are_prepared_otherwise(tmp_path: Path) -> None:
    path = write(tmp_path / "net.safetensors", recorded=True)
    with pytest.raises(UserError, match=r"prepared otherwise \(mean \[0\.\d+\], here \[0\.5\]\): its scores"):
        plan_search(parse_search(["digits", "--supernet", str(path), "--dataset.mean", "0.5", *BUDGET]))
    unknown = write(tmp_path / "unknown.safetensors", recorded=False, flags=(*SIZES, *SPACE))
    assert plan_search(parse_search(["digits", "--supernet", str(unknown), *SPACE, "--dataset.mean", "0.5", *BUDGET])).given


def test_images_are_read_under_the_eyes_of_the_caller() -> None:
    entered: list[str] = []

    @contextmanager
    def reading() -> Generator[None]:
        entered.append("begun")
        yield
        entered.append("ended")

    plan_search(parse_search(["digits"]), reading=reading())
    assert entered == ["begun", "ended"]
