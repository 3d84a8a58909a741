"""From one search to the next: warm start, another algorithm, and finalists on images that the search did not use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from search_script import succeed

from raysearch.pipeline.finalists import paired_p_value
from raysearch.search import Result


def result(*right: bool) -> Result:
    return Result(score=sum(right) / len(right), images_seen=len(right), params=1, macs=1, correct=np.packbits(right).tobytes())


def test_the_paired_test_is_mcnemars_exact_one() -> None:
    alike = [True] * 30 + [False] * 10
    assert paired_p_value(result(*alike), result(*alike)) == 1.0
    # Only the images on which they differ count: 6 to 0 is 2 / 2^6, however many others there are.
    assert paired_p_value(result(*alike, *[True] * 6), result(*alike, *[False] * 6)) == pytest.approx(2 / 2**6)
    assert paired_p_value(result(*[False] * 6), result(*[True] * 6)) == pytest.approx(2 / 2**6)
    assert paired_p_value(result(True, True, False), result(False, True, True)) == 1.0


def test_a_second_search_starts_from_the_first_and_names_its_champion_on_all_images(
    finished_search: Path, tmp_path: Path
) -> None:
    output, run_id = tmp_path / "run", json.loads((finished_search / "summary.json").read_text())["mlflow_run_id"]
    # A copy of the record: other tests count the searches in it.
    uri = f"sqlite:///{shutil.copy(finished_search.parent / 'mlflow.db', tmp_path / 'mlflow.db')}"
    flags = (
        *("digits", "--supernet", str(finished_search / "supernet.safetensors"), "--tracking-uri", uri),
        *("--warm-start", run_id, "--warm-start-count", "3", "--report.random-subnets", "2"),
        *("--algorithm", "predictor", "--predictor.generations", "2", "--predictor.population", "5"),
        *("--finalists.search-images", "100", "--finalists.count", "4"),
    )
    printed = succeed(*flags, "--output", str(output))
    earlier = pq.read_table(finished_search / "candidates.parquet").to_pylist()
    best = sorted(earlier, key=lambda row: (-row["score"], row["loss"], row["params"], row["index"]))[:3]
    table = pq.read_table(output / "candidates.parquet").to_pylist()
    assert [row["id"] for row in table[:3]] == [row["id"] for row in best]
    assert [row["origin"] for row in table[:3]] == ["seed"] * 3
    assert {row["images_seen"] for row in table} == {100}

    summary = json.loads((output / "summary.json").read_text())
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
