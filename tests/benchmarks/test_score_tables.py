"""A table of scores as a file, and the surrogate that answers from it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy_space import Toy, drive, large_problem, result, toy_score

from benchmarks.score_tables import ScoreTable, Surrogate
from raysearch.search import RandomConfig, RandomSearch


def toy_table(rows: int) -> ScoreTable[Toy]:
    archs = tuple(drive(RandomSearch(large_problem(), RandomConfig(rows, 50), seed=0)))
    results = tuple(result(arch, loss=1 - toy_score(arch)) for arch in archs)
    return ScoreTable(archs, ("random",) * rows, results, {"snip": (0.5, None) * (rows // 2)}, {"recipe": {"name": "toy"}})


@pytest.fixture(scope="module")
def table() -> ScoreTable[Toy]:
    return toy_table(200)


def test_a_table_survives_its_file(table: ScoreTable[Toy], tmp_path: Path):
    table.write(tmp_path / "table.parquet")
    assert ScoreTable.read(tmp_path / "table.parquet", Toy) == table


def test_what_is_no_table_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"is missing; benchmarks/make_score_table\.py writes"):
        ScoreTable.read(tmp_path / "none.parquet", Toy)
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(ValueError, match="is no table of scores"):
        ScoreTable.read(tmp_path / "text.parquet", Toy)
    pq.write_table(pa.table({"arch": ["{}"]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="is no table of scores"):
        ScoreTable.read(tmp_path / "other.parquet", Toy)


@pytest.fixture(scope="module")
def rugged(table: ScoreTable[Toy]) -> Surrogate[Toy]:
    return Surrogate(table, large_problem())


@pytest.fixture(scope="module")
def others(table: ScoreTable[Toy]) -> list[Toy]:
    found = drive(RandomSearch(large_problem(), RandomConfig(200, 50), seed=1))
    assert not set(found) & set(table.archs)
    return found


def test_scores_are_exact_in_the_table_and_near_outside(table: ScoreTable[Toy], rugged: Surrogate[Toy], others: list[Toy]):
    assert rugged.results(table.archs[:50]) == list(table.results[:50])
    found = rugged.results(others)
    assert np.corrcoef([r.score for r in found], [toy_score(arch) for arch in others])[0, 1] > 0.5
    costs = [rugged.problem.cost(arch) for arch in others]
    assert [(r.params, r.macs) for r in found] == [(cost.params, cost.macs) for cost in costs]
    assert all(0 <= r.score <= 1 and round(r.score * 100) == pytest.approx(r.score * 100) for r in found)


def test_ruggedness_is_the_error_of_rows_that_were_held_out(table: ScoreTable[Toy], rugged: Surrogate[Toy], others: list[Toy]):
    smooth = Surrogate(table, large_problem(), ruggedness=0.0)
    # Alone and in another order: a search may ask as it likes.
    predicted = [smooth.results([arch])[0].score for arch in reversed(others)][::-1]
    assert predicted == [r.score for r in smooth.results(others)]
    assert np.corrcoef(predicted, [toy_score(arch) for arch in others])[0, 1] > 0.8
    added = [r.score - p for r, p in zip(rugged.results(others), predicted, strict=True)]
    errors = [r.score - p for r, p in zip(table.results, rugged.held_out[:, 0], strict=True)]
    assert np.std(added) == pytest.approx(np.std(errors), rel=0.2)
    assert np.std(errors) > 0.01


def test_scores_of_different_images_are_no_table(table: ScoreTable[Toy], tmp_path: Path):
    mixed = replace(table, results=(replace(table.results[0], items_seen=7), *table.results[1:]))
    with pytest.raises(AssertionError, match="cannot be compared"):
        mixed.write(tmp_path / "table.parquet")
