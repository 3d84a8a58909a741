"""A report claims what it can show: intervals, chance, classes, mistakes as pictures, and where the champion stands."""

from __future__ import annotations

import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished_search import candidates_of, finish, leave, predictions_of, say
from page_reader import Page, figures
from plotly.offline import get_plotlyjs
from rich.console import Console
from scipy.stats import binomtest

from raysearch.report import closing_table, write_report
from raysearch.report.classes import Classes
from raysearch.report.pictures import drawn
from raysearch.search import Candidate
from raysearch.space.cost import Cost
from raysearch.statistics import share_interval
from raysearch.store.candidates import CandidateRow
from raysearch.store.predictions import Predictions
from raysearch.store.summary import Summary


def words_of(page: Page) -> str:
    return " ".join(" ".join(page.text).split())


def picture_of(html: str, name: str) -> dict[str, Any]:
    return figures(html)[name]


@pytest.mark.parametrize(("right", "of"), [(0, 5), (5, 5), (1, 1), (195, 200), (393, 397), (5000, 10_000)])
def test_intervals_are_the_exact_ones(right: int, of: int) -> None:
    exact = binomtest(right, of).proportion_ci(method="exact")
    found = share_interval(right, of)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-9)


# --- classes ----------------------------------------------------------------------------------------------------------


def test_classes_are_counted_beside_chance_and_the_largest_class() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2])
    predicted = np.array([0, 0, 0, 0, 1, 2, 1, 1, 0, 0])
    found = Classes.of(Predictions(labels, predicted, np.full(10, 0.95, np.float32), classes=("cat", "dog", "owl", "elk")))
    assert (found.chance, found.majority, found.majority_name) == (0.25, 0.6, "cat")
    assert found.balanced == pytest.approx((4 / 6 + 2 / 3 + 0) / 3)  # of the classes that have test images
    told = [(row.name, row.images, row.right, row.accuracy, row.interval) for row in found.rows]
    assert told[0] == ("cat", 6, 4, "66.7 %", "22.3 to 95.7")
    assert told[3] == ("elk", 0, 0, "–", "")  # noqa: RUF001
    assert found.matrix is not None
    assert found.matrix.counts == [[4, 1, 1, 0], [1, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert (found.wrong, found.sure) == (4, 4)
    assert [(pair.true, pair.predicted, pair.images, pair.of) for pair in found.pairs] == [
        ("cat", "dog", 1, 6), ("cat", "owl", 1, 6), ("dog", "cat", 1, 3), ("owl", "cat", 1, 1)
    ]  # fmt: skip


def test_a_champion_without_mistakes_and_classes_by_the_ten_thousand_are_told() -> None:
    labels = np.arange(20_000)
    found = Classes.of(Predictions(labels, labels, np.ones(20_000, np.float32)))
    assert (found.count, found.wrong, found.pairs, found.mistakes) == (20_000, 0, [], [])


def test_the_page_shows_classes_confusions_and_the_surest_mistakes_as_pictures(tmp_path: Path) -> None:
    finish(tmp_path, generations=2, population=10)
    said = replace(predictions_of(10, 400), classes=tuple("0123456789"), names=[f"digits/{i}.png" for i in range(400)])
    say(tmp_path, said)
    html = write_report(tmp_path).read_text()
    page = Page(html)
    right = [int(((said.labels == c) & (said.predicted == c)).sum()) for c in range(10)]
    images = [int((said.labels == c).sum()) for c in range(10)]
    rows = {row[0]: row[1:] for row in page.rows if row}
    for c in range(10):
        assert [str(c), str(images[c]), str(right[c])] in [row[:3] for row in page.rows]
    largest = int(np.argmax(images))
    assert rows[f"always {largest}"] == [f"{100 * images[largest] / 400:.2f} %"]
    assert rows["chance, 1 of 10 classes"] == ["10.00 %"]
    assert html.count('<img src="data:image/png;base64,') == 12
    surest = said.confident_mistakes(1)[0]
    assert (
        f'alt="digits/{surest}.png: {said.labels[surest]}, taken for {said.predicted[surest]} with '
        f'{said.confidence[surest]:.0%}"'.replace('%"', ' %"')
        in html
    )
    assert page.fetched == []
    assert "id=confusion" in html


def test_a_thousand_classes_do_not_blow_the_page(tmp_path: Path) -> None:
    finish(tmp_path, generations=1, population=10)
    say(tmp_path, predictions_of(1000, 20_000))
    html = write_report(tmp_path).read_text()
    page = Page(html)
    assert len(html) < 1.1 * len(get_plotlyjs())
    assert "confusion" not in page.ids
    assert len([row for row in page.rows if row and row[0].startswith("n0")]) <= 20 + 20
    assert "the 15 worst and the 5 best of 1,000" in words_of(page)
    assert "The 20 most frequent confusions among 1,000 classes" in words_of(page)


def test_names_of_any_form_are_shown_as_text(tmp_path: Path) -> None:
    finish(tmp_path, generations=1, population=10)
    latin = os.fsdecode(b"caf\xe9")
    evil = ("<script>alert(1)</script>", latin, "\"quoted\" & 'so'", "x" * 255)
    say(tmp_path, replace(predictions_of(4, 200, right=0.3), classes=evil, names=["<img src=x>"] * 200))
    html = write_report(tmp_path).read_text(encoding="utf-8")
    page = Page(html)
    first = [row[0] for row in page.rows if row]
    assert {"<script>alert(1)</script>", "caf\N{REPLACEMENT CHARACTER}", "\"quoted\" & 'so'", "x" * 255} <= set(first)
    assert page.fetched == []
    assert "<script>alert" not in html


def test_a_search_without_predictions_has_no_such_sections(tmp_path: Path) -> None:
    finish(tmp_path, generations=1, population=10)
    page = Page(write_report(tmp_path).read_text())
    assert "Accuracy by class" not in words_of(page)
    assert "chance, 1 of" not in words_of(page)


# --- where the champion stands ----------------------------------------------------------------------------------------


def tied(scores: list[float], params: list[int]) -> list[Candidate]:
    """Candidates of these scores and sizes."""
    found: list[Candidate] = []
    for c, score, size in zip(candidates_of(generations=1, population=len(scores)), scores, params, strict=True):
        assert c.result is not None
        result = replace(c.result, score=score, params=size, loss=1 - score)
        found.append(replace(c, cost=Cost(size, c.cost.macs), outcome=result))
    return found


def told_of_champion(folder: Path, candidates: list[Candidate], champion: Candidate) -> tuple[str, str]:
    leave(folder, candidates)
    summary = json.loads((folder / "summary.json").read_text())
    assert champion.result is not None
    summary["networks"]["champion"] |= {
        "id": champion.proposal.arch.id, "score": champion.result.score, "params": champion.cost.params
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    html = write_report(folder).read_text()
    return words_of(Page(html)), html


def test_a_champion_off_the_front_is_drawn_there_and_explained(tmp_path: Path) -> None:
    best = 395 / 397
    candidates = tied([best, best, 393 / 397, 0.8], [180_458, 87_000, 60_000, 50_000])
    text, html = told_of_champion(tmp_path, candidates, candidates[0])
    assert (
        "The champion (star) is not on the front: it has 180,458 parameters, and 1 network has at least its search score "
        f"(99.50 %) with fewer; the smallest of them, {candidates[1].proposal.arch.id}, has 87,000 parameters, 2.1 times fewer"
    ) in text
    assert "2 networks on the front have fewer parameters and a search score within the champion's 95 % interval" in text
    star = picture_of(html, "front")["champion"]
    assert (star["x"], star["y"]) == ([180_458], [best])
    sure = share_interval(395, 397)
    assert [*star["error_y"]["arrayminus"], *star["error_y"]["array"]] == pytest.approx([best - sure.low, sure.high - best])


def test_a_champion_chosen_on_other_images_is_said_to_be_so_and_marked_among_the_finalists(tmp_path: Path) -> None:
    best = 395 / 397
    candidates = tied([best, best, 393 / 397, 0.8], [90_000, 60_000, 70_000, 50_000])
    leave(tmp_path, candidates)
    summary = json.loads((tmp_path / "summary.json").read_text())
    ids = [c.proposal.arch.id for c in candidates]
    interval = {"value": 0.98, "low": 0.95, "high": 0.995}
    summary["networks"]["champion"] |= {
        "id": ids[2], "params": 70_000, "test_interval": interval, "score_interval": interval, "test_score": 0.98
    }  # fmt: skip
    summary["networks"] |= {
        "over_largest": {"value": 0.0, "low": -0.01, "high": 0.01}, "over_random": {"value": 0.02, "low": 0.01, "high": 0.03}
    }  # fmt: skip
    summary["networks"]["random"] |= {"within": 0.05, "score_interval": interval, "test_interval": interval}
    row = {"score_in_search": 0.99, "score": 0.98, "params": 60_000, "macs": 1_000_000, "behind_champion": 0.0, "p_value": 0.4}
    summary["finalists"] = {
        "images": 150, "images_in_search": 397, "selection_bias": 0.01, "beaten": 0, "others": 1, "best": ids[0],
        "choose": "cheapest", "quantity": "params",
        "rows": [{**row, "id": ids[0], "rank_in_search": 1}, {**row, "id": ids[2], "rank_in_search": 3}],
    }  # fmt: skip
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    page = Page(write_report(tmp_path).read_text())
    text = words_of(page)
    assert (
        "It was not chosen by this picture's scores: it has the fewest parameters of all finalists that the best of the search "
        "does not beat on 150 images on which nobody had been chosen."
    ) in text
    roles = {row[0]: row[1] for row in page.rows if row and row[0] in ids}
    assert roles == {ids[0]: "best of the search", ids[2]: "champion"}


def test_a_champion_on_the_front_is_said_to_be_there(tmp_path: Path) -> None:
    candidates = tied([0.99, 0.7, 0.6], [180_000, 90_000, 80_000])
    text, _ = told_of_champion(tmp_path, candidates, candidates[0])
    assert "The champion (star) is on the front: nothing has a higher search score with as few parameters." in text
    assert "No network on the front has fewer parameters and a search score within the champion's 95 % interval" in text


def test_a_champion_that_ties_with_a_network_of_the_front_is_on_it(tmp_path: Path) -> None:
    candidates = tied([0.99, 0.99, 0.7, 0.6], [180_000, 180_000, 90_000, 80_000])
    for champion in candidates[:2]:  # the front names the one that was asked first
        text, _ = told_of_champion(tmp_path, candidates, champion)
        assert "The champion (star) is on the front: nothing has a higher search score with as few parameters." in text
    text, _ = told_of_champion(tmp_path, tied([0.98, 0.99, 0.7], [180_000, 180_000, 90_000]), candidates[0])
    assert "not on the front: another network has a higher search score with as few parameters." in text


def test_candidates_of_one_place_are_one_point_with_their_number(tmp_path: Path) -> None:
    candidates = tied([0.9] * 9 + [0.8, 0.7], [100_000] * 9 + [90_000, 80_000])
    _, html = told_of_champion(tmp_path, candidates, candidates[0])
    traces = picture_of(html, "front")
    point = traces["candidate"]["y"].index(0.9)
    assert len(traces["candidate"]["y"]) == 3
    assert traces["candidate"]["marker"]["size"][point] == 3 * 8.0  # nine times the area
    assert "9 candidates of this score and size" in traces["candidate"]["text"][point]
    bars = traces["candidates by score"]
    assert dict(zip(bars["y"], bars["x"], strict=True)) == {0.9: 9, 0.8: 1, 0.7: 1}


def test_of_very_many_candidates_an_even_sample_is_drawn() -> None:
    (row,) = (CandidateRow.of(c) for c in candidates_of(generations=1, population=1))
    rows = [replace(row, index=i, score=i / 12_000, params=1000 + i) for i in range(12_000)]
    groups = drawn(rows, "params")
    assert len(groups) == 5000
    assert (groups[0][0].index, groups[-1][0].index) == (0, 11_999)


# --- what else is said ------------------------------------------------------------------------------------------------


def test_under_a_latency_limit_tables_have_milliseconds(tmp_path: Path) -> None:
    candidates = finish(tmp_path, generations=2, population=10, latency=True)
    summary = json.loads((tmp_path / "summary.json").read_text())
    summary["networks"]["champion"]["latency_ms"] = 1.234
    summary["networks"]["random"]["latency_ms"] = 1.5
    champion = candidates[0].proposal.arch.id
    row = {"id": champion, "rank_in_search": 1, "score_in_search": 0.99, "score": 0.98, "params": 60_000, "macs": 1_000_000}
    rows = [{**row, "behind_champion": 0.0, "p_value": 1.0}]
    summary["finalists"] = {
        "images": 397, "images_in_search": 200, "selection_bias": 0.01, "beaten": 0, "others": 0, "rows": rows
    }  # fmt: skip
    summary["latency"] = {
        "device": "cpu", "batch_size": 1, "precision": "float32", "fitted": 24, "held_out": 8, "median_error": 0.02,
        "largest_error": 0.05, "champion_ms": 1.234, "champion_predicted_ms": 1.2, "slow": 3,
    }  # fmt: skip
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    printed = io.StringIO()
    Console(file=printed, width=80).print(closing_table(Summary.from_dict(summary)))
    assert re.search(r"│ champion .* 1\.23 ms │", printed.getvalue())
    assert "…" not in printed.getvalue()
    page = Page(write_report(tmp_path).read_text())
    last = {row[0]: row[-1] for row in page.rows if row}
    assert (last["champion"], last["random, median of 25"]) == ("1.23 ms", "1.5 ms")
    assert last["smallest subnet"] == "–"  # noqa: RUF001
    assert candidates[0].result is not None
    assert candidates[0].result.latency_ms is not None
    assert last[champion] == f"{candidates[0].result.latency_ms:.3g} ms"


def test_every_table_and_picture_has_a_name_for_those_who_do_not_see_it(tmp_path: Path) -> None:
    finish(tmp_path, generations=3, population=50)
    say(tmp_path, predictions_of(10, 400))
    html = write_report(tmp_path).read_text().partition("</script>")[2]
    assert html.count("<table") == len(re.findall(r'role=region aria-label="[^"]+"><table', html)) > 5
    assert all(re.search(r'aria-label="[^"]+"', tag) for tag in re.findall("<figure[^>]*>", html))
    assert all('alt="' in tag for tag in re.findall("<img[^>]*>", html))
