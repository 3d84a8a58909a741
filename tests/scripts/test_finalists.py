"""From one search to the next: warm start, another algorithm, and finalists on images that the search did not use."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from copies import copied_store
from mlflow import MlflowClient
from search_script import NO_MODELS, searched

from raysearch.jobs.plan import SearchCommand, plan_search
from raysearch.recipes.autoformer import DIGITS_RECIPE


def cost_of(values: dict[str, Any]) -> int:
    """Parameters of a subnet of the digits."""
    task = DIGITS_RECIPE.task
    geometry = DIGITS_RECIPE.family.build(DIGITS_RECIPE.config, task.ends(task.splits()))
    return geometry.cost(DIGITS_RECIPE.family.architecture.from_dict(values)).params


def test_a_second_search_starts_from_the_first_and_names_its_champion_on_all_images(
    finished_search: Path, tmp_path: Path
) -> None:
    output, run_id = tmp_path / "run", json.loads((finished_search / "summary.json").read_text())["mlflow_run_id"]
    copied_store(finished_search.parent, tmp_path)  # as other tests count the searches in it
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    flags = (
        *("digits", "--supernet", str(finished_search / "supernet.safetensors"), "--tracking-uri", uri),
        *("--warm-start", run_id, "--warm-start-count", "3", "--report.random-subnets", "2"),
        *("--algorithm", "predictor", "--predictor.generations", "2", "--predictor.population", "5"),
        *("--finalists.search-images", "100", "--finalists.count", "4", *NO_MODELS),
    )
    summary, printed = searched(*flags, output=output)
    earlier = pq.read_table(finished_search / "candidates.parquet").to_pylist()
    best = sorted(earlier, key=lambda row: (-row["score"], row["loss"], row["params"], row["index"]))[:3]
    table = pq.read_table(output / "candidates.parquet").to_pylist()
    assert [row["id"] for row in table[:3]] == [row["id"] for row in best]
    assert [row["origin"] for row in table[:3]] == ["seed"] * 3
    assert {row["images_seen"] for row in table} == {100}

    finalists = summary["finalists"]
    # The images that are kept for the finalists, and those of the search split on which the search scored nobody.
    assert (finalists["images"], finalists["images_in_search"]) == (200 + 397 - 100, 100)
    rows, champion = finalists["rows"], summary["networks"]["champion"]
    assert rows[0]["score_in_search"] == max(row["score"] for row in table)
    assert rows[0]["id"] == finalists["best"]
    unbeaten = [row for row in rows if not row["beaten"]]
    assert champion["id"] == min(unbeaten, key=lambda row: row["params"])["id"]
    assert all(row["p_value"] <= 0.05 for row in rows if row["beaten"])
    chosen = next(row for row in rows if row["id"] == champion["id"])
    assert chosen["behind_champion"] == 0.0
    assert champion["score_interval"]["low"] <= champion["score"] <= champion["score_interval"]["high"]
    lost = statistics.mean(row["score_in_search"] - row["score"] for row in rows)
    assert finalists["selection_bias"] == pytest.approx(lost)
    assert finalists["bias_interval"]["low"] <= lost <= finalists["bias_interval"]["high"]
    assert "finalists: on 497 images that chose nobody" in printed

    networks = summary["networks"]
    costs = [cost_of(values) for values in networks["random"]["archs"]]
    assert all(abs(params / champion["params"] - 1) <= networks["random"]["within"] for params in costs)
    assert networks["over_largest"]["value"] == pytest.approx(champion["test_score"] - networks["largest"]["test_score"])
    assert "random networks of the same number of parameters within 5 %" in printed


def test_a_proxy_opens_a_search_and_is_judged_by_it(finished_search: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    flags = (
        *("digits", "--supernet", str(finished_search / "supernet.safetensors"), "--report.random-subnets", "6"),
        *("--warm-start", "snip", "--warm-start-count", "3", "--algorithm", "random", "--search.population", "5"),
        *("--search.generations", "1", *NO_MODELS),
    )
    summary, printed = searched(*flags, output=output)
    table = pq.read_table(output / "candidates.parquet").to_pylist()
    assert [row["origin"] for row in table] == ["seed"] * 3 + ["random"] * 2
    again = plan_search(SearchCommand(DIGITS_RECIPE, warm_start="snip", warm_start_count=3))
    assert [row["id"] for row in table[:3]] == [arch.id for arch in again.initial]
    judged = summary["proxy"]
    assert (judged["name"], judged["subnets"]) == ("snip", 6)
    assert -1 <= judged["proxy"]["low"] <= judged["proxy"]["value"] <= judged["proxy"]["high"] <= 1
    assert "random subnets: proxy snip " in printed
    assert "parameter count " in printed
    assert MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").search_registered_models() == []  # as asked
