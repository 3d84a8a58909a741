"""A search that ends in order when its time is over: what was asked for is scored, nothing else is asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))

import toy

from raysearch.distributed.search_run import SearchRun
from raysearch.errors import UserError
from raysearch.jobs.search import _enough
from raysearch.parsing.search import parse_search
from raysearch.search import Result
from raysearch.store.folder import OutputFolder


def candidates(*, most: int | None) -> list[str]:
    """Ids of what a search asks for, that has enough when so many have their outcome."""
    told: list[str] = []
    run = SearchRun(
        toy.evolution(),
        cost=toy.cost,
        known={},
        on_candidate=lambda candidate: told.append(candidate.proposal.arch.id),
        enough=lambda: most is not None and len(told) >= most,
    )
    while not run.finished:
        run.advance()
        while (arch := run.next()) is not None:
            run.complete(arch, Result(toy.toy_score(arch), 1, 1, 1))
    return told


def test_the_generation_that_was_begun_is_the_last() -> None:
    whole = candidates(most=None)
    assert len(whole) == 24
    assert candidates(most=9) == whole[:16]
    assert candidates(most=0) == whole[:8]  # a champion needs candidates


def test_hours_are_those_of_all_runs_and_told_once(tmp_path: Path) -> None:
    folder, said = OutputFolder(tmp_path, {}), list[str]()
    assert not _enough(None, folder, said.append)()
    folder.add_seconds("train", 3000)
    assert not _enough(1.0, folder, said.append)()
    folder.add_seconds("search", 600)
    over = _enough(1.0, folder, said.append)
    assert over()
    assert over()
    (line,) = said
    assert line.startswith("--max-hours 1 are over: no more candidates")
    with pytest.raises(UserError, match=r"max.hours.*above 0"):
        parse_search(["digits", "--max-hours", "0"])
