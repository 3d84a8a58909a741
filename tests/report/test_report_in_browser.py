"""A report as a browser shows it: pictures with their points, architectures under the pointer, no width wasted or missing."""

import json
from dataclasses import replace

import pytest
from finished_search import finish, predictions_of, say

from raysearch.report import write_report
from raysearch.store.candidates import write_candidates
from raysearch.store.summary import Summary


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    candidates = finish(folder, generations=6, population=50, latency=True)
    raced = [
        replace(c, outcome=replace(c.result, items_seen=100, excluded="raced")) if c.proposal.index % 50 == 49 else c
        for c in candidates
    ]
    write_candidates(folder / "candidates.parquet", raced)
    say(folder, predictions_of(25, 800))
    return write_report(folder), candidates


def test_every_picture_is_drawn(report, browser_page):
    path, candidates = report
    browser_page.goto(path.as_uri())
    for name in ("front", "generations", "training", "racing", "latency"):
        assert browser_page.locator(f"#{name} svg.main-svg").count() > 0
    assert browser_page.locator("#front .scatterlayer .trace").first.locator(".point").count() == len(candidates) - 6
    assert browser_page.locator("#latency .scatterlayer .trace").first.locator(".point").count() == len(candidates) - 6
    assert browser_page.locator("#generations .scatterlayer path.js-line").count() == 5
    assert browser_page.locator("#training .scatterlayer path.js-line").count() == 2
    assert browser_page.locator("#racing .barlayer .point path").count() == 12
    assert browser_page.locator("#common td[title]").count() > 10


def test_pointing_at_the_front_shows_the_architecture(report, browser_page):
    path, candidates = report
    browser_page.goto(path.as_uri())
    points = browser_page.locator("#front .scatterlayer .trace").nth(1).locator(".point")
    points.last.scroll_into_view_if_needed()
    box = points.last.bounding_box()
    browser_page.mouse.move(box["x"] + box["width"] / 2 - 2, box["y"] + box["height"] / 2)
    browser_page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    shown = browser_page.locator("#front .hoverlayer .hovertext")
    shown.first.wait_for()
    text = shown.first.text_content()
    found = [c for c in candidates if c.proposal.arch.id in text]
    assert len(found) == 1
    arch = found[0].proposal.arch
    assert f"embed_dim: {arch.embed_dim}" in text
    assert f"num_heads: {' '.join(map(str, arch.num_heads))}" in text


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_window(report, browser_page, width):
    path, _ = report
    browser_page.set_viewport_size({"width": width, "height": 900})
    browser_page.goto(path.as_uri())
    assert browser_page.evaluate("document.documentElement.scrollWidth") <= width
    wide = (
        "[...document.querySelectorAll('figure svg.main-svg')].filter(s => s.getBoundingClientRect().right > innerWidth).length"
    )
    assert browser_page.evaluate(wide) == 0


def test_no_column_of_a_table_is_out_of_reach_on_a_phone(report, browser_page):
    path, _ = report
    browser_page.set_viewport_size({"width": 400, "height": 900})
    browser_page.goto(path.as_uri())
    reached = """frame => {
        frame.scrollLeft = 1e6;
        const last = frame.querySelector('tr').lastElementChild.getBoundingClientRect();
        const first = frame.querySelector('tr').firstElementChild.getBoundingClientRect();
        return [last.right <= innerWidth, first.left >= 0, frame.scrollWidth > frame.clientWidth];
    }"""
    frames = [frame.evaluate(reached) for frame in browser_page.locator(".scroll").all()]
    assert len(frames) >= 5
    assert all(last and first for last, first, _ in frames)  # the first column stays in sight
    assert any(wide for _, _, wide in frames)


@pytest.mark.parametrize("width", [400, 700])
def test_on_paper_nothing_is_cut(report, browser_page, width):
    path, _ = report
    browser_page.set_viewport_size({"width": width, "height": 900})
    browser_page.emulate_media(media="print")
    browser_page.goto(path.as_uri())
    parts = "[...document.querySelectorAll('table, figure, figure svg.main-svg')].map(part => part.getBoundingClientRect())"
    cut = f"{parts}.filter(box => box.left < 0 || box.right > innerWidth).length"
    assert browser_page.evaluate(cut) == 0


def test_pictures_of_mistakes_are_in_the_page_itself(report, browser_page):
    path, _ = report
    browser_page.goto(path.as_uri())
    pictures = browser_page.locator(".mistakes img")
    assert pictures.count() == 12
    assert pictures.evaluate_all("all => all.every(picture => picture.complete && picture.naturalWidth === 8)")


def test_a_search_in_progress_can_be_looked_at(report, browser_page, tmp_path):
    path, candidates = report
    summary = json.loads((path.parent / "summary.json").read_text())
    del summary["networks"], summary["finished"]
    summary |= {"written": "2026-11-22T12:00:00+00:00"}
    summary["progress"] = {"generation": 3, "generations": 6, "candidates": 100, "total": 300}
    browser_page.goto(write_report(tmp_path, Summary.from_dict(summary), candidates=candidates[:100]).as_uri())
    assert browser_page.locator("h1").text_content() == "digits: in progress"
    assert browser_page.locator("#front .scatterlayer .trace").first.locator(".point").count() == 100
    told = browser_page.locator("body").inner_text()
    assert "This is an interim report: the search goes on, no champion is chosen" in told
    assert "The best so far is the highest of 100 scores on the same 397 search images" in told
