"""What a resumed search takes from the folder that it resumes, and which of its settings may change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from raysearch.errors import UserError
from raysearch.jobs import search
from raysearch.jobs.opening import configuration
from raysearch.jobs.plan import continued, plan_search
from raysearch.parsing.search import parse_search
from raysearch.recipes import flat_settings
from raysearch.recipes.autoformer import DIGITS_RECIPE
from raysearch.recipes.recipe import BESIDE
from raysearch.recipes.resuming import may_change
from raysearch.recipes.stored import upgraded
from raysearch.store.folder import open_folder, read_json

OF_0_1_0 = Path(__file__).parents[1] / "data" / "of_0_1_0"
"""What version 0.1.0 wrote of a search of digits."""


def test_what_may_change_is_how_the_work_is_done_and_before_the_end_of_training_what_helps_one_that_diverged() -> None:
    settings = flat_settings(DIGITS_RECIPE.to_dict())
    while_training, after = may_change(trained=False), may_change(trained=True)
    assert while_training <= settings.keys()
    assert {"train.lr", "train.clip_grad", "train.min_lr"} <= while_training - after
    assert {"evaluators.cpus", "train.workers"} <= after
    for decides_a_score in ("train.epochs", "train.batch_size", "evaluators.precision", "seed", "dataset.img_size"):
        assert decides_a_score in settings
        assert decides_a_score not in while_training


# --- what continues a search -------------------------------------------------------------------------------------------


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
    """Runs a search that is interrupted in a function; returns the commands that would have continued it."""
    monkeypatch.chdir(tmp_path)
    # A search that is begun times its training on Ray first.
    monkeypatch.setattr(search, "connected_to_ray", lambda *_: nullcontext())
    monkeypatch.setattr(search, "machine_of_cluster", lambda train: None)
    monkeypatch.setattr(search, "fit_to_time", lambda command, plan, *_, **__: plan)

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def run(place: str, *flags: str) -> list[str]:
        told: list[str] = []
        command = parse_search(["digits", *flags])
        with monkeypatch.context() as patched:
            patched.setattr(search, place, interrupt)
            with pytest.raises(KeyboardInterrupt):
                search.run(command, line="search", console=Console(quiet=True), continues=told.append)
        return told

    return run


def test_nothing_continues_a_search_before_its_folder_is_there(interrupted: Callable[..., list[str]], tmp_path: Path) -> None:
    for place in ("plan_search", "fit_to_time"):
        assert interrupted(place) == []
        assert interrupted(place, "--output", "runs/mine") == []
    assert not (tmp_path / "runs").exists()


def test_what_continues_a_search_names_the_folder_that_its_command_did_not(
    interrupted: Callable[..., list[str]], tmp_path: Path
) -> None:
    assert interrupted("check_held", "--output", "runs/mine") == ["the same command with --resume"]
    begun = read_json(tmp_path / "runs" / "mine" / "config.json")
    assert (begun["given"], begun["time"]) == (["output"], None)
    (found,) = interrupted("check_held")
    (folder,) = (tmp_path / "runs").glob("digits-*")
    assert found == f"the same command with --output runs/{folder.name} --resume"
    # What is resumed is there from the beginning.
    assert interrupted("plan_search", "--output", "runs/mine", "--resume") == ["the same command with --resume"]
    assert interrupted("plan_search", "--resume") == [found]


# --- a search of 0.1.0 ------------------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder of 0.1.0, interrupted before the end of training."""
    return Path(shutil.copytree(OF_0_1_0, tmp_path / "run"))


def resumed(folder: Path, *flags: str) -> dict[str, Any]:
    """The recipe of the search that the main job goes on with."""
    command = continued(parse_search(["digits", *flags, "--output", str(folder), "--resume"]), folder)
    plan = plan_search(command)
    with open_folder(
        folder, configuration(plan, command, "line"), resume=True, upgrade=upgraded, may_change=may_change(trained=False)
    ) as held:
        assert json.loads(json.dumps(plan.recipe.to_dict())).items() <= held.config["recipe"].items()
        return held.config["recipe"]


def test_every_setting_of_today_has_the_value_that_it_stood_for_in_0_1_0() -> None:
    """A setting that is added later has to be thought of in ``upgraded``, or no search of an earlier version is resumed."""
    held = read_json(OF_0_1_0 / "config.json")["recipe"]
    assert flat_settings(upgraded(held)).keys() - BESIDE == flat_settings(DIGITS_RECIPE.to_dict()).keys()


def test_a_search_of_0_1_0_is_resumed_by_its_command_with_what_it_meant_then(old: Path) -> None:
    before = (old / "config.json").read_bytes()
    of_its_command = ("--train.epochs", "2", "--train.warmup-epochs", "0", "--predictor.population", "6")
    recipe = resumed(old, *of_its_command)
    assert recipe == resumed(old)
    assert recipe["dataset"] | {"rules": "0.1", "finalist_images": 0, "shrink": 0.0} == recipe["dataset"]
    assert (recipe["fits"], recipe["finalists"]["choose"]) == (False, "best")
    assert recipe["constraint"]["max_params"] == 200e3  # the recipe's own budget is another one now
    assert (old / "config.json").read_bytes() == before


def test_a_search_of_0_1_0_is_not_resumed_with_another_setting(old: Path) -> None:
    with pytest.raises(UserError, match=r"another configuration \(seed: 0 there, 3 here\)"):
        resumed(old, "--seed", "3")


def test_a_search_of_0_1_0_stays_one_after_a_resume_with_a_setting_that_may_change(old: Path) -> None:
    changed = resumed(old, "--train.lr", "1e-3")
    assert changed["train"]["lr"] == 1e-3
    assert read_json(old / "config.json")["recipe"] == changed  # as this version writes it
    assert resumed(old) == changed
