"""Finished searches side by side: numbers that can be checked by hand, and one line for what cannot be compared."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from compared_searches import write_search
from page_reader import Page
from rich.console import Console
from scipy.stats import binomtest
from search_script import one_line, program, succeed

from raysearch import cli
from raysearch.jobs.compare import CompareCommand, compare_searches
from raysearch.recipes.autoformer import DIGITS_RECIPE
from raysearch.report.comparison import ComparedGroup, Comparison
from raysearch.search import RacingConfig

Compare = Callable[..., Comparison]


@pytest.fixture
def compare(tmp_path: Path) -> Compare:
    """Compares folders and keeps what is printed to itself; the page is ``page.html`` beside them."""

    def compared(*folders: Path, **options: Any) -> Comparison:
        command = CompareCommand(tuple(map(str, folders)), output=tmp_path / "page.html", **options)
        return compare_searches(command, line="compare", console=Console(quiet=True))

    return compared


def values(group: ComparedGroup, name: str) -> tuple[float, float, float]:
    found = group.values[name]
    return found.value, found.low, found.high


def test_candidates_and_seconds_to_a_score_count_those_asked_until_it_is_there(tmp_path: Path, compare: Compare) -> None:
    slow = write_search(tmp_path / "slow", [0.5, 0.6, -0.9, 0.7, 0.9])
    quick = write_search(tmp_path / "quick", [0.8, 0.5, 0.5], algorithm="random", seed=1)
    found = compare(slow, quick)
    assert found.score == 0.8  # the lower of the two bests: both reach it
    first, second = found.groups
    assert (first.label, second.label) == ("evolution", "random")
    # The raced 0.9 does not compete, yet it was asked and cost seconds.
    assert values(first, "evaluations_to_score")[0] == 5
    assert values(first, "seconds_to_score")[0] == 10.0
    assert values(second, "evaluations_to_score")[0] == 1
    assert first.runs[0].best_so_far == (0.5, 0.6, 0.6, 0.7, 0.9)
    assert values(compare(slow, quick, score=0.85).groups[1], "seconds_to_score")[0] == float("inf")


def test_hypervolume_is_the_share_of_the_rectangle_between_reference_and_ideal(tmp_path: Path, compare: Compare) -> None:
    sizes = [100_000, 150_000, 200_000]
    one = write_search(tmp_path / "one", [0.6, 0.8, 1.0], params=sizes)
    other = write_search(tmp_path / "other", [0.5, 1.0, 0.9], params=sizes, algorithm="random", seed=1)
    found = compare(one, other)
    assert (found.reference, found.ideal) == ((0.5, 200_000), (1.0, 100_000))
    # One: 0.1 high for the whole width and 0.2 more for half of it, of 0.5. Other: 0.5 high for half of the width.
    assert [group.runs[0].hypervolume for group in found.groups] == pytest.approx([(0.1 + 0.2 / 2) / 0.5, 0.5])
    assert [p for p, _, _ in found.groups[1].runs[0].front] == [100_000, 150_000]
    nearer = compare(one, other, reference=(0.8, 200_000))
    assert nearer.groups[0].runs[0].hypervolume == pytest.approx(0.0)


def test_searches_that_differ_in_their_seed_alone_are_one_group_with_an_interval(tmp_path: Path, compare: Compare) -> None:
    seeds = [write_search(tmp_path / f"seed{s}", [0.5, 0.7 + s / 100], seed=s) for s in range(3)]
    racing = write_search(tmp_path / "racing", [0.9], seed=0, racing=RacingConfig(enabled=True))
    found = compare(*seeds, racing)
    assert [(group.label, len(group.runs)) for group in found.groups] == [("no racing.enabled", 3), ("racing.enabled", 1)]
    assert values(found.groups[0], "best") == pytest.approx((0.71, 0.7, 0.72))
    # One supernet for each of two searches with the same seed: two groups, as the seed is not all that differs.
    given = [write_search(tmp_path / f"given-{d}", [0.5], supernet=d) for d in ("a", "b")]
    assert [group.label for group in compare(*given).groups] == ["supernet a", "supernet b"]


def test_searches_of_one_supernet_differ_in_the_search_alone(tmp_path: Path, compare: Compare) -> None:
    trained = [write_search(tmp_path / f"trained{s}", [0.5], seed=s, trained=f"{s}" * 64) for s in range(2)]
    given = [write_search(tmp_path / f"given{s}", [0.6], seed=s, algorithm="random", supernet=f"{s}" * 12) for s in range(2)]
    found = compare(*trained, *given)
    assert [(group.label, len(group.runs)) for group in found.groups] == [("evolution", 2), ("random", 2)]
    assert found.notes == ("searches of one seed share their supernet, so differences between them are those of the searches",)
    # Of a supernet that a search trained itself nothing is known without its journal.
    (trained[1] / "journal.jsonl").unlink()
    unsure = compare(*trained, *given)
    assert [group.label for group in unsure.groups] == ["evolution, no given supernet", "random, given supernet"]
    assert "differences may be those of the supernets" in unsure.notes[0]
    # One supernet for seeds that divide the images differently.
    leaking = [write_search(tmp_path / f"leaking{s}", [0.5], seed=s, supernet="c" * 12) for s in range(2)]
    assert "it may have learned some of their search images" in compare(*leaking).notes[1]


def test_what_followed_from_a_timed_step_makes_no_other_group_and_is_told(tmp_path: Path, compare: Compare) -> None:
    def search(name: str, epochs: int, *flags: str, fits: bool = True, **settings: Any) -> Path:
        train = replace(DIGITS_RECIPE.train, epochs=epochs, warmup_epochs=epochs / 10)
        return write_search(tmp_path / name, [0.5, 0.6], fits=fits, train=train, flags=flags, **settings)

    searched = replace(DIGITS_RECIPE.search, generations=9)
    seeds = [search("a", 62, "data"), search("b", 65, "data", seed=1), search("c", 100, "data", seed=2, search=searched)]
    alone = compare(*seeds)
    assert [(group.label, len(group.runs)) for group in alone.groups] == [("digits", 3)]
    assert alone.notes[-1] == (
        "settings that followed from a timed step differ among the seeds of these searches: search.generations 9 to 10, "
        "train.epochs 62 to 100, train.warmup_epochs 6.2 to 10.0"
    )
    assert "each search trained a supernet of its own" in alone.notes[0]
    assert "train.epochs 62 to 100" in (tmp_path / "page.html").read_text()
    given = search("given", 65, "train.epochs", "train.warmup_epochs")
    limited = [search(f"{time}{s}", 62 + s, seed=s, fits=False, time=time) for time in ("1h", "2h") for s in range(2)]
    assert [len(group.runs) for group in compare(*seeds, given).groups] == [3, 1]
    assert [group.label for group in compare(*seeds, given).groups] == [
        "train.epochs as time allows, train.warmup_epochs as time allows",
        "train.epochs 65, train.warmup_epochs 6.5",
    ]
    assert [(group.label, len(group.runs)) for group in compare(*limited).groups] == [("time 1h", 2), ("time 2h", 2)]
    # Settings of a recipe are meant, as are all where an earlier version did not write down which were given.
    assert len(compare(search("r", 62, fits=False), search("s", 65, seed=1, fits=False)).groups) == 2
    for folder in seeds:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "given": None}))
    assert len(compare(*seeds).groups) == 3


def test_test_scores_stand_beside_the_best_with_their_intervals(tmp_path: Path, compare: Compare) -> None:
    seeds = [write_search(tmp_path / f"e{s}", [0.9, 0.95], seed=s, test=(0.90 + s / 100, 0.88)) for s in range(3)]
    alone = write_search(tmp_path / "r", [0.9, 0.92], seed=0, algorithm="random", test=(0.93, 0.89))
    unknown = write_search(tmp_path / "a", [0.9, 0.92], seed=0, algorithm="ageing")
    found = compare(*seeds, alone, unknown)
    groups = {group.label: group for group in found.groups}
    assert values(groups["evolution"], "test") == pytest.approx((0.91, 0.90, 0.92))
    assert values(groups["evolution"], "random_test")[0] == pytest.approx(0.88)
    exact = binomtest(372, 400).proportion_ci(method="exact")
    assert values(groups["random"], "test") == pytest.approx((0.93, exact.low, exact.high))
    assert "test" not in groups["ageing"].values
    rows = {row[0]: row[1:] for row in Page((tmp_path / "page.html").read_text()).rows if row}
    assert rows["test score, champion"][:2] == ["91.00 %", "90.00 % to 92.00 %"]
    assert "test score, random median" in rows


def test_a_score_that_a_search_was_given_is_no_find_of_its_own(tmp_path: Path, compare: Compare) -> None:
    warm = write_search(tmp_path / "warm", [0.9, 0.5, 0.95], given=2)
    cold = write_search(tmp_path / "cold", [0.5, 0.9, 0.6], seed=1)
    found = compare(warm, cold)
    assert found.score == 0.9
    by_label = {group.label: group for group in found.groups}
    begun = next(group for label, group in by_label.items() if "2" in label)
    assert (begun.runs[0].evaluations_to_score, begun.runs[0].seconds_to_score) == (0, 0.0)
    assert any("were given architectures to start with" in note for note in found.notes)
    assert "given at the start" in (tmp_path / "page.html").read_text()
    # A better one is its own, and costs all that was asked until then, what was given among it.
    assert [group.runs[0].evaluations_to_score for group in compare(warm, cold, score=0.95).groups][:1] == [3]


def test_a_terminal_of_80_columns_shows_every_word(tmp_path: Path) -> None:
    algorithms = ("evolution", "random", "ageing", "nsga2", "predictor")
    folders = [
        write_search(tmp_path / name, [0.5, 0.6], seed=s, algorithm=name, racing=RacingConfig(enabled=s % 2 == 0))
        for s, name in enumerate(algorithms)
    ]
    output = io.StringIO()
    command = CompareCommand(tuple(map(str, folders)), output=tmp_path / "page.html")
    found = compare_searches(command, line="compare", console=Console(width=80, file=output))
    printed = output.getvalue()
    assert "…" not in printed
    assert all(len(line) <= 80 for line in printed.splitlines() if line[:1] in "┃│┏└")
    words = set("".join(c if c.isalnum() or c in "._" else " " for c in printed).split())
    for group in found.groups:
        for word in group.label.replace(",", "").split():
            assert word in words
    assert "candidates to 60.00 %" in printed


def test_the_page_draws_every_front_and_says_what_it_compares(tmp_path: Path, compare: Compare, browser_page: Any) -> None:
    sizes = [100_000, 150_000, 200_000]
    evolution = [write_search(tmp_path / f"e{s}", [0.6, 0.8, 0.9 + s / 100], params=sizes, seed=s) for s in range(3)]
    random = [write_search(tmp_path / f"r{s}", [0.6, 0.7, 0.8], params=sizes, seed=s, algorithm="random") for s in range(2)]
    compare(*evolution, *random)
    for width in (400, 1280):
        browser_page.set_viewport_size({"width": width, "height": 900})
        browser_page.goto((tmp_path / "page.html").as_uri())
        assert browser_page.evaluate("document.documentElement.scrollWidth") <= width
        assert browser_page.locator("#fronts .scatterlayer .point").count() == 5 * 3
        assert browser_page.locator("#progress .scatterlayer path.js-line").count() == 5 + 2
    text = browser_page.locator("body").inner_text()
    for words in ("digits: 5 searches side by side", "90.00 % to 92.00 %", "candidates to 80.00 %", "no wall time"):
        assert words in text


def test_a_real_search_is_compared_by_its_mlflow_run(
    finished_search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = json.loads((finished_search / "summary.json").read_text())["mlflow_run_id"]
    uri = f"sqlite:///{finished_search.parent / 'mlflow.db'}"
    other = write_search(tmp_path / "other", [0.1, 0.2], seed=1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    assert "digits: 2 searches side by side" in succeed("compare", run_id, str(other))
    assert (tmp_path / "compare.html").read_text().endswith("</html>\n")
    repeated = program("compare", run_id, str(finished_search))
    assert f"{run_id} and {finished_search} are the same search" in repeated.message


def test_what_cannot_be_compared_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write_search(tmp_path / "one", [0.5, 0.6])
    part = replace(DIGITS_RECIPE.finalists, search_images=100)
    fewer = replace(DIGITS_RECIPE.task.dataset, search_images=300)
    folders = {
        "other recipe": write_search(tmp_path / "recipe", [0.5], name="fashion-mnist"),
        "other split": write_search(tmp_path / "split", [0.5], dataset=fewer, seed=1),
        "other images": write_search(tmp_path / "images", [0.5], images="changed", algorithm="random"),
        "part of them": write_search(tmp_path / "part", [0.5], finalists=part, seed=1),
        "repetition": write_search(tmp_path / "repetition", [0.5, 0.6]),
        "all raced": write_search(tmp_path / "raced", [-0.5], seed=1),
    }
    unfinished, damaged = write_search(tmp_path / "unfinished", [0.5]), write_search(tmp_path / "damaged", [0.5])
    (unfinished / "candidates.parquet").unlink()
    (damaged / "candidates.parquet").write_bytes(b"PAR1")
    for arguments, words in [
        ([], "give two or more searches"),
        ([one], "give two or more searches"),
        ([one, tmp_path / "nowhere"], "nowhere is neither an output folder of a search nor an MLflow run id"),
        ([one, tmp_path], "is no output folder of a search"),
        ([one, unfinished], "is not finished; continue it with --resume first"),
        ([one, damaged], "candidates.parquet is damaged"),
        ([one, folders["other recipe"]], "one is of recipe digits, the other of fashion-mnist"),
        ([one, folders["other split"]], "dataset.search_images is 397 in one and 300 in the other"),
        ([one, folders["other images"]], "split seed 0 divided other images in one than in the other"),
        ([one, folders["part of them"]], "scored its candidates on"),
        ([one, folders["repetition"]], "the same settings and seed 0: a repetition; leave one out"),
        ([one, folders["all raced"]], "has no candidate that was scored on all images"),
        ([one, one], "are the same search; give each once"),
        ([one, unfinished, "--output", tmp_path], "is no page; name a file that ends in .html"),
        ([one, unfinished, "--scroe", "1"], "did you mean --score?"),
    ]:
        with pytest.raises(SystemExit) as left:
            cli.compare([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert printed.out == ""
        assert words in one_line(left.value.code, printed.err)
    assert not list(tmp_path.glob("*.html"))
