"""What a resumed search takes from the folder that it resumes, and which of its settings may change."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from raysearch.errors import UserError
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
