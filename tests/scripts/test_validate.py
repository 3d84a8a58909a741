"""Subnets of a finished search retrained from scratch: resumable, recorded, and with one line for a mistake."""

from __future__ import annotations

import json
import shutil
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from copies import copied_search
from mlflow import MlflowClient
from search_script import ROOT, contents, one_line, succeed

from raysearch import cli
from raysearch.recipes.autoformer import RECIPES
from raysearch.recipes.recipe import FinalistsConfig
from raysearch.recipes.stored import stored_recipe
from raysearch.store.candidates import read_candidates

pytestmark = pytest.mark.timeout(600)  # three runs of scripts are in the first test's fixtures


@pytest.fixture(scope="module")
def searched(finished_search: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished search and of its record, to be written to."""
    return copied_search(finished_search, tmp_path_factory.mktemp("validated"))


ARGUMENTS = ("--subnets", "4", "--within", "0.5", "--epochs", "1")


@pytest.fixture(scope="module")
def validated(searched: Path) -> tuple[Path, str]:
    """The folder after a validation that an earlier, broken-off one had begun, and what the second one printed."""
    script = Path(shutil.copy(ROOT / "experiments" / "validate.py", searched.parent))  # alone, as `ray submit` takes it
    with chdir(searched.parent):
        succeed("validate", searched.name, *ARGUMENTS, folder=script.parent)
        # As a crash leaves it: eight of ten trainings done, the ninth line cut short.
        lines = (searched / "validation.jsonl").read_bytes().splitlines(keepends=True)
        (searched / "validation.jsonl").write_bytes(b"".join(lines[:9]) + lines[9][:40])
        (searched / "validation.json").rename(searched.parent / "first.json")
        printed = succeed("validate", searched.name, *ARGUMENTS, folder=script.parent)
    return searched, printed


def numbers(path: Path) -> dict[str, Any]:
    """A validation without the time that it took."""
    values = json.loads(path.read_text())
    for row in values["subnets"]:
        del row["seconds"]
    return values


def test_a_second_call_continues_and_ends_with_the_same_numbers(validated: tuple[Path, str]) -> None:
    folder, printed = validated
    assert "; 8 of 10 trainings are done" in printed
    assert numbers(folder / "validation.json") == numbers(folder.parent / "first.json")
    lines = [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]
    assert len({line["training"] for line in lines[1:]}) == len(lines) - 1 == 10


def test_subnets_cost_what_the_champion_costs_and_a_third_is_trained_twice(validated: tuple[Path, str]) -> None:
    folder, _ = validated
    rows = numbers(folder / "validation.json")["subnets"]
    champion = json.loads((folder / "champion.json").read_text())
    (found,) = (row for row in read_candidates(folder / "candidates.parquet") if row.id == champion["id"])
    assert (rows[0]["role"], rows[0]["id"], rows[0]["inherited"]) == ("champion", champion["id"], found.score)
    assert [row["role"] for row in rows[1:]] == ["drawn"] * 3
    assert all(0.5 * rows[0]["params"] <= row["params"] <= 1.5 * rows[0]["params"] for row in rows)
    assert [row["inherited"] for row in rows[1:]] == sorted(row["inherited"] for row in rows[1:])
    assert [len(row["retrainings"]) for row in rows] == [2, 1, 1, 2]
    assert rows[0]["retrainings"][0] != rows[0]["retrainings"][1]
    assert all(row["retrained"] == pytest.approx(sum(row["retrainings"]) / len(row["retrainings"])) for row in rows)
    # One epoch from inherited weights is not one from fresh ones, which know next to nothing after it.
    assert all(row["finetuned"] > max(row["retrainings"]) for row in rows)
    assert all(set(row["proxies"]) == {"grad_norm", "snip", "dss"} for row in rows)


def test_report_terminal_and_mlflow_tell_it(validated: tuple[Path, str]) -> None:
    folder, printed = validated
    page = (folder / "report.html").read_text()
    assert "Is the ranking true?" in page
    found = numbers(folder / "validation.json")
    assert all(row["id"] in page.split("Is the ranking true?", 1)[1] for row in found["subnets"])
    assert (
        "Kendall tau with the accuracy after 1 epochs (the supernet had 4) from scratch, over 3 random subnets with" in printed
    )
    assert set(found["rankings"]) == {"inherited", "fine-tuned", "params", "macs", "grad_norm", "snip", "dss"}
    assert "with such noise a perfect ranking is expected to have a tau of" in printed
    client = MlflowClient(f"sqlite:///{folder.parent / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'digits'")
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`raysearch.role` = 'search'")
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["validation/regret_measured"] == pytest.approx(found["regret"]["measured"])
    assert parent.data.metrics["validation/tau_highest/value"] == pytest.approx(found["noise"]["highest"]["value"])


def test_other_settings_and_unusable_folders_are_one_line(
    validated: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = validated
    unfinished = Path(shutil.copytree(folder, tmp_path / "unfinished"))
    (unfinished / ".finished").unlink()
    damaged = Path(shutil.copytree(folder, tmp_path / "damaged"))
    (damaged / "validation.jsonl").write_text('{"settings"\n')
    old = Path(shutil.copytree(folder, tmp_path / "old"))
    settings = {"subnets": 4, "epochs": 1, "seed": 0, "weights": numbers(folder / "validation.json")["settings"]["weights"]}
    (old / "validation.jsonl").write_text(f'{json.dumps({"settings": settings})}\n{{"id": "ab", "inherited": {{}}}}\n')
    for arguments, words in [
        ([], "give the output folder of a finished search"),
        ([str(tmp_path / "nowhere")], "nowhere is no output folder of a search"),
        ([str(unfinished)], "is not finished; continue it with --resume first"),
        ([str(folder), *ARGUMENTS[:4], "--epochs", "2"], "retrained with epochs 1, not 2; repeat its settings"),
        ([str(folder), "--subnets", "3"], "--subnets is 3, must be at least 4"),
        ([str(folder), "--within", "1"], "--within is 1, must be above 0 and below 1"),
        ([str(folder), "--within", "1e-9"], "subnets were found with"),
        ([str(folder), "--epoch", "2"], "did you mean --epochs?"),
        ([str(damaged), *ARGUMENTS], "validation.jsonl line 1 is damaged"),
        ([str(old), *ARGUMENTS], "retrained with within None, not 0.5; repeat its settings, or remove it"),
    ]:
        before = contents(folder)
        with pytest.raises(SystemExit) as left:
            cli.validate(arguments)
        printed = capsys.readouterr()
        assert printed.out == ""
        assert words in one_line(left.value.code, printed.err)
        assert contents(folder) == before


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_read_back_from_its_configuration(name: str) -> None:
    recipe = RECIPES[name][1]
    stored = json.loads(json.dumps(recipe.to_dict()))
    assert stored_recipe(stored) == recipe
    del stored["finalists"]  # as a search of a version before these
    assert stored_recipe(stored) == replace(recipe, finalists=FinalistsConfig())
    stored["train"]["momentum"] = 0.9
    with pytest.raises(ValueError, match=r"recipe\.train\.momentum is no setting of this version"):
        stored_recipe(stored)
