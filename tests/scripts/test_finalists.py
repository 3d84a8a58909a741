"""From one search to the next: warm start, another algorithm, and finalists on images that the search did not use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
from mlflow import MlflowClient
from search_script import NO_MODELS, searched

from raysearch.jobs.plan import SearchCommand, plan_search
from raysearch.recipes.autoformer import DIGITS_RECIPE


def test_a_second_search_starts_from_the_first_and_names_its_champion_on_all_images(
    finished_search: Path, tmp_path: Path
) -> None:
    output, run_id = tmp_path / "run", json.loads((finished_search / "summary.json").read_text())["mlflow_run_id"]
    # A copy of the record, as other tests count the searches in it; SQLite's log too, as this process has the database open.
    for path in finished_search.parent.glob("mlflow.db*"):
        shutil.copy(path, tmp_path)
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
    assert (finalists["images"], finalists["images_in_search"]) == (397, 100)
    scores = {row["id"]: row["score_in_search"] for row in finalists["rows"]}
    assert sorted(scores.values()) == sorted(row["score"] for row in table)[-4:]
    champion = summary["networks"]["champion"]
    row = next(row for row in finalists["rows"] if row["id"] == champion["id"])
    assert champion["score"] == row["score"] == max(row["score"] for row in finalists["rows"])
    assert (row["p_value"], row["behind_champion"]) == (1.0, 0.0)
    assert "finalists: by a paired test on 397 search images" in printed
    assert "the search scored on 100 of them" in printed


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
