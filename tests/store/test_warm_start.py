import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy_space import BAND, Toy, drive, large_problem, noise, small_problem, toy_cost

from raysearch.search import Candidate, Evolution, EvolutionConfig, Failure, RandomConfig, RandomSearch, Result, pareto_front
from raysearch.store.candidates import write_candidates
from raysearch.store.warm_start import best_of_search, listed_architectures

PROBLEM = large_problem(BAND)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Candidate]]:
    """A random search without a band, with failures, excluded candidates and ties."""
    search = RandomSearch(large_problem(), RandomConfig(120, 20), seed=0)

    def told(arch: Toy) -> Result | Failure:
        draw = noise(arch)
        if draw < 0.2:
            return Failure("lost")
        loss = None if draw < 0.3 else float(round(draw * 70) % 3)
        score, excluded = (1.0, "slow") if draw < 0.4 else (round(draw, 1), None)
        return Result(score, 100, toy_cost(arch).params, toy_cost(arch).macs, loss, excluded=excluded)

    candidates = [Candidate(search.proposal(arch), toy_cost(arch), told(arch)) for arch in drive(search)]
    path = tmp_path_factory.mktemp("search") / "candidates.parquet"
    write_candidates(path, candidates)
    return path, candidates


def test_the_best_that_fit_start_the_next_search(finished: tuple[Path, list[Candidate]]):
    path, candidates = finished

    def order(candidate: Candidate) -> tuple[float, float, int, int]:
        told = candidate.result
        assert told is not None
        return -told.score, math.inf if told.loss is None else told.loss, told.params, candidate.proposal.index

    ranked = [c.proposal.arch for c in sorted((c for c in candidates if c.status == "scored"), key=order)]
    start = best_of_search(path, PROBLEM, count=7)
    assert list(start.architectures) == [arch for arch in ranked if PROBLEM.in_band(arch)][:7]
    assert start.skipped == ranked.index(start.architectures[-1]) + 1 - 7 > 0
    asked = drive(Evolution(PROBLEM, EvolutionConfig(generations=2), seed=0, initial=start.architectures))
    assert asked[:7] == list(start.architectures)
    everything = best_of_search(path, PROBLEM, count=1000)
    assert len(everything.architectures) + everything.skipped == len(ranked)
    assert best_of_search(path, small_problem(), count=5).architectures == ()


def test_a_table_of_another_family_is_skipped_whole(finished: tuple[Path, list[Candidate]], tmp_path: Path):
    rows = pq.read_table(finished[0]).to_pylist()
    other = tmp_path / "other.parquet"
    pq.write_table(pa.Table.from_pylist([{**row, "arch": '{"width": 3}'} for row in rows]), other)
    start = best_of_search(other, PROBLEM, count=5)
    assert start.architectures == ()
    assert start.skipped == sum(row["status"] == "scored" for row in rows)


def test_what_is_no_table_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"none.parquet is missing; give the candidates.parquet"):
        best_of_search(tmp_path / "none.parquet", PROBLEM, count=1)
    (tmp_path / "text.parquet").write_text("not a table\nat all")
    with pytest.raises(ValueError, match=r"text.parquet is damaged or no table of candidates: .+") as caught:
        best_of_search(tmp_path / "text.parquet", PROBLEM, count=1)
    assert "\n" not in str(caught.value)
    pq.write_table(pa.table({"index": [1], "arch": ["{}"]}), tmp_path / "bare.parquet")
    with pytest.raises(ValueError, match=r"bare\.parquet is damaged .*: it has no column id"):
        best_of_search(tmp_path / "bare.parquet", PROBLEM, count=1)


def test_a_list_in_any_of_its_forms(finished: tuple[Path, list[Candidate]], tmp_path: Path):
    archs = [c.proposal.arch for c in pareto_front(finished[1]) if PROBLEM.admits(c.proposal.arch)]
    path = tmp_path / "list.json"
    for form in (Toy.to_dict, lambda arch: {"arch": arch.to_dict()}, lambda arch: {"id": arch.id, "arch": arch.to_json()}):
        path.write_text(json.dumps([form(arch) for arch in archs]))
        assert list(listed_architectures(path, PROBLEM)) == archs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is no JSON"),
        ("{}", "holds no list"),
        ("[3]", "entry 0: not a Toy"),
        ('[{"width": 3}]', "entry 0: not a Toy: missing or unknown"),
        (json.dumps([Toy(24, (1,) * 9, (2,) * 9).to_dict()]), "entry 0: .* is not in the space"),
        (json.dumps([PROBLEM.space.largest().to_dict()]), "entry 0: .* is not within 18,000 <= params"),
    ],
)
def test_a_list_with_a_mistake_is_refused_in_one_line(tmp_path: Path, text: str, message: str):
    path = tmp_path / "list.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"list.json.*{message}") as caught:
        listed_architectures(path, PROBLEM)
    assert "\n" not in str(caught.value)


def test_a_list_that_is_not_there(tmp_path: Path):
    with pytest.raises(ValueError, match="is missing; give a JSON list of architectures"):
        listed_architectures(tmp_path / "none.json", PROBLEM)
