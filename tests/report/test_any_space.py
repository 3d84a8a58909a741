"""Reports of searches unlike AutoFormer's: stages, words, switches, blocks left out, and scores that are no accuracy."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from finished_search import finish, leave
from page_reader import Page, figures
from rich.console import Console
from staged_space import Staged, staged_space
from toy_space import toy_space

from raysearch.report import closing_table, common_line, finalists_line, validation_lines, write_report
from raysearch.report.comparison import ComparedGroup, ComparedRun, Comparison, comparison_tables, write_comparison
from raysearch.report.places import places
from raysearch.search import Candidate, Failure, Proposal, Result, champion
from raysearch.space import SearchSpace
from raysearch.space.cost import Cost
from raysearch.statistics import Gap, Interval
from raysearch.store.candidates import read_candidates
from raysearch.store.folder import read_record
from raysearch.store.scores import Scale
from raysearch.store.summary import Finalist, Finalists, Summary
from raysearch.store.validation import Validation

SPACE = staged_space()


def staged_candidates() -> list[Candidate]:
    """A hundred random ones and a hundred later ones: batch norm, and no second block in the first stage, is better."""
    drawn = list(dict.fromkeys(SPACE.sample(Random(i)) for i in range(400)))[:200]
    candidates: list[Candidate] = []
    for i, arch in enumerate(drawn):
        good = (arch.norm == "batch") + (arch.kernel[0][1:] == (None,))
        cost = Cost(1000 + i, 5000 + i)
        proposal = Proposal(arch, index=i, generation=i // 100, origin="random" if i < 100 else "mutation")
        result = Result(0.5 + 0.1 * good + i / 10_000, 397, cost.params, cost.macs, loss=1.0)
        candidates.append(Candidate(proposal, cost, Failure("<img src=x>") if i == 7 else result))
    return candidates


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Candidate], str]:
    folder = tmp_path_factory.mktemp("staged")
    candidates = staged_candidates()
    leave(folder, candidates)
    return folder, candidates, write_report(folder).read_text(encoding="utf-8")


@pytest.mark.parametrize("space", [SPACE, toy_space(1, 2, 5)])
def test_every_decision_of_a_space_has_a_place(space: SearchSpace[Any]) -> None:
    for i in range(50):
        arch = space.sample(Random(i))
        found = {
            ".".join([place.name, *(str(at) for at in (place.stage, place.block) if at is not None)]): value
            for place, value in places(arch.to_dict()).items()
        }
        decided = space.to_params(arch)
        assert {name: value for name, value in found.items() if value is not None} == {
            name: value for name, value in decided.items() if not name.startswith("skip.")
        }
        left_out = {name.removeprefix("skip") for name, skipped in decided.items() if name.startswith("skip.") and skipped}
        assert {name.removeprefix("kernel") for name, value in found.items() if value is None and "kernel" in name} == left_out


def test_the_champion_is_shown_by_stage_and_block(staged: tuple[Path, list[Candidate], str]) -> None:
    _, candidates, html = staged
    best, page = champion(candidates).proposal.arch, Page(html)
    assert isinstance(best, Staged)
    assert best.kernel[0][1] is None
    assert page.fetched == []  # nor the picture that a failure's reason holds
    assert ["stage", "1", "2"] in page.rows
    assert ["width", *map(str, best.width)] in page.rows
    assert ["downsample", *best.downsample] in page.rows
    assert ["gated", *map(str, best.gated)] in page.rows
    assert ["depth", *(str(len(stage)) for stage in best.kernel)] in page.rows
    places_of_blocks = [f"{s}.{b}" for s, stage in enumerate(best.kernel, 1) for b in range(1, 1 + len(stage))]
    assert ["stage.block", *places_of_blocks] in page.rows
    for name, values in (("kernel", best.kernel), ("mixer", best.mixer)):
        cells = ["–" if value is None else str(value) for stage in values for value in stage]  # noqa: RUF001
        assert [name, *cells] in page.rows
    assert f"norm {best.norm}" in " ".join(" ".join(page.text).split())
    (pointed,) = figures(html)["front"]["champion"]["text"]
    assert f"norm: {best.norm}<br>" in pointed
    assert f"downsample: {' '.join(best.downsample)}" in pointed
    assert f"kernel: {best.kernel[0][0]} – | " in pointed  # noqa: RUF001


def test_what_the_best_share_holds_words_and_blocks_left_out(staged: tuple[Path, list[Candidate], str]) -> None:
    folder, _, html = staged
    line = common_line(read_candidates(folder / "candidates.parquet"))
    assert line is not None
    assert "norm batch (100%, " in line
    page = Page(html)
    rows = {row[0]: row[1:] for row in page.rows if row}
    assert rows["norm batch"][0] == "100%"
    assert {"width 16 in stage 1", "gated False in stage 2", "downsample conv in stage 1"} <= rows.keys()
    told = re.search(r'title="skip True in stage 1, block 2: best (\d+)%; random candidates (\d+)%"', html)
    assert told is not None
    assert int(told[1]) > 1.5 * int(told[2])  # leaving it out is what made candidates better
    assert 'title="mixer attention in stage 2, block 1: best ' in html
    assert 'title="skip False in stage 1, block 1: ' not in html  # which nobody can leave out


def test_scores_that_are_no_shares_are_written_as_numbers_with_their_name(tmp_path: Path) -> None:
    candidates = [
        replace(c, outcome=replace(c.result, score=c.result.score - 1, kind="float32")) if c.result else c
        for c in finish(tmp_path / "shares", generations=4, population=10)
    ]
    leave(tmp_path, candidates)
    known = replace(read_record(tmp_path / "summary.json", Summary), score_name="negative error", score_kind="float32")
    assert known.networks is not None
    rows = [Finalist(str(i), i + 1, -0.01, -0.0123456 - i / 100, i / 100, 0.5, 60_000, 1_000_000) for i in range(2)]
    networks = replace(known.networks, champion=replace(known.networks.champion, test_score=-0.0123456))
    known = replace(known, networks=networks, finalists=Finalists(397, 200, 0.0123456, 0, 1, rows))
    html = write_report(tmp_path, known).read_text(encoding="utf-8")
    page = Page(html)
    text = " ".join(" ".join(page.text).split())
    assert "-0.01235 test score of the champion (negative error)" in text
    assert "Scores are negative error; all with inherited weights" in text
    assert ["1", "2", "-0.01", "-0.02235", "–", "0.01", "0.5", "60,000", "1.00 M"] in page.rows  # noqa: RUF001
    assert "search score (negative error)" in html
    assert '"tickformat":".1%"' not in html
    assert " %" not in text.partition("Time by phase")[0]
    assert "scores changed by -0.01235 on average" in finalists_line(known.finalists, known.scale)
    output = io.StringIO()
    Console(width=100, file=output).print(closing_table(known))
    assert "-0.01235" in output.getvalue()
    assert "scored (negative error) on" in " ".join(output.getvalue().split())


def test_a_validation_is_told_by_the_name_of_its_score() -> None:
    written: dict[str, Any] = {
        "settings": {"subnets": 3, "epochs": 2, "seed": 0, "weights": "ab"},
        **{"recipe_epochs": 2, "search_images": 397, "failed": {}, "subnets": []},
        "agreement": {
            "all": {"subnets": 3, "inherited": {"value": 0.5, "low": 0.25, "high": 0.75}, "params": None, "lead": None}
        },
        "gap": {name: {"value": 0.0125, "standard_error": 0.0025} for name in ("inherited", "retrained")},
    }
    validation = Validation.from_dict(written)  # as version 0.1.0 wrote it
    assert validation.agreement["all"].inherited == Interval(0.5, 0.25, 0.75)
    assert validation.gap is not None
    assert validation.gap.retrained == Gap(0.0125, 0.0025)
    agreement, gap = validation_lines(validation)
    assert "Kendall tau with the accuracy after 2 epochs from scratch" in agreement
    assert "+1.25 ± 0.25 points retrained" in gap
    agreement, gap = validation_lines(replace(validation, score_name="negative error", score_kind="float32"))
    assert "inherited negative error 0.50 (95 %: 0.25 to 0.75)" in agreement
    assert "+0.0125 ± 0.0025 retrained" in gap
    with pytest.raises(ValueError, match="recipe_epochs: "):
        Validation.from_dict({**written, "recipe_epochs": None})


def test_searches_with_float_scores_are_compared_as_numbers(tmp_path: Path) -> None:
    run = ComparedRun("<run>", 0, ((1000, -0.5, "abc"),), (-0.75, -0.5), -0.5, 0.5, 2, 4.0, 2, 4.0)
    values = {name: Interval(number, number, number) for name in ("best", "evaluations", "seconds") for number in (-0.5,)}
    values |= {name: Interval(1.0, 1.0, 1.0) for name in ("hypervolume", "evaluations_to_score", "seconds_to_score")}
    comparison = Comparison(
        recipe="small",
        groups=(ComparedGroup("mixer <attention>", (run,), values),),
        score=-0.5,
        reference=(-0.75, 1000.0),
        ideal=(-0.5, 1000.0),
        command="compare.py a b",
        scale=Scale("negative error", "float32"),
    )
    output = io.StringIO()
    Console(width=100, file=output).print(*comparison_tables(comparison, width=100))
    assert "best score (negative error)" in output.getvalue()
    assert "candidates to -0.5" in output.getvalue()
    write_comparison(tmp_path / "page.html", comparison)
    html = (tmp_path / "page.html").read_text()
    assert ["best score (negative error)", "-0.5"] in Page(html).rows
    unknown = "–"  # noqa: RUF001  # test scores, as no summary was there
    assert ["<run>", "0", "-0.5", unknown, unknown, "50.0%", "2", "4.0 s", "2", "4.0 s"] in Page(html).rows
    assert "search score (negative error)" in html
    json.dumps(figures(html)["fronts"])
