"""What the best share, where choices are words and blocks stand in stages."""

import json
from pathlib import Path
from random import Random
from typing import Any

from finished_search import candidates_of
from staged_space import staged_space

from raysearch.report import common_line, write_report
from raysearch.report.common import in_common
from raysearch.search import Candidate, Proposal, Result
from raysearch.space import Cost
from raysearch.store.summary import Counts, Progress, Summary, Training


def staged(count: int) -> list[Candidate]:
    """Random candidates of two stages, of which those with attention in the first block of the second stage are better."""
    space, found = staged_space(), list[Candidate]()
    rng = Random(0)
    archs = list(dict.fromkeys(space.sample(rng) for _ in range(2 * count)))[:count]
    for i, arch in enumerate(archs):
        score = 0.5 + 0.4 * (arch.mixer[1][0] == "attention") + 0.001 * rng.random()
        proposal = Proposal(arch, index=i, generation=0, origin="random")
        found.append(Candidate(proposal, Cost(1000 + i, 1000), Result(score, 100, 1000 + i, 1000)))
    return found


def test_words_and_stages_are_among_what_the_best_share(tmp_path: Path) -> None:
    candidates = staged(100)
    rows: list[Any] = [c.row() for c in candidates]
    found = in_common(rows)
    assert found is not None
    shares = found.shares["mixer, stage 2,", 0]
    assert list(shares) == ["attention", "conv"]
    with_attention = sum(json.loads(row["arch"])["mixer"][1][0] == "attention" for row in rows) / len(rows)
    assert (shares["attention"].best, shares["attention"].others) == (1.0, with_attention)
    assert found.shares["norm", None].keys() == {"layer", "batch"}
    assert found.present["kernel, stage 1,", 0] == 1
    assert found.present["kernel, stage 1,", 1] < 1  # a block that may be left out
    line = common_line(rows)
    assert line is not None
    assert "mixer, stage 2, attention in block 1 (100%" in line

    summary = Summary(
        recipe="staged",
        seed=0,
        command="",
        constraint="no limit",
        search_id="0",
        mlflow_run_id="0",
        counts=Counts(100, 10, 10),
        seconds={"search": 1.0},
        training=Training(0, []),
        versions={},
        written="2026-01-01T00:00:00+00:00",
        progress=Progress(1, 2, 100, 200),
    )
    page = write_report(tmp_path, summary, candidates=candidates).read_text()
    common = page.partition("What the best have in common")[2].partition("</figure>")[0]
    for label in ("norm batch", "norm layer", "mixer, stage 2, attention", "kernel, stage 1, 5"):
        assert f"<td>{label}</td>" in common


def test_depth_is_that_of_blocks_and_not_of_stages() -> None:
    found = in_common([c.row() for c in staged(40)])
    assert found is not None
    assert ("depth", None) not in found.shares
    flat = in_common([c.row() for c in candidates_of(generations=2, population=20)])
    assert flat is not None
    assert set(flat.shares["depth", None]) == {2, 3, 4, 5}
