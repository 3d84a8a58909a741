"""A report tells what the folder holds, in one file that needs nothing else."""

import io
import json
import re
from html.parser import HTMLParser

import pytest
from finished_search import finish
from plotly.offline import get_plotlyjs
from rich.console import Console

from raysearch.report import closing_table, write_report
from raysearch.search import pareto_front


class Page(HTMLParser):
    """Text, element ids, table rows and everything that a browser would fetch."""

    VOID = ("meta", "link", "img", "br", "hr", "input")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open, self.ids, self.fetched, self.text, self.rows = [], set(), [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids.add(values.get("id"))
        if url := values.get("src") or (tag == "link" and values.get("href")):
            self.fetched.append(url)
        if tag == "tr":
            self.rows.append([])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "td":
            self.rows[-1].append(data)
        if not {"script", "style"} & set(self.open):
            self.text.append(data)


def figures(html: str) -> dict[str, dict[str, dict]]:
    """Traces of each picture by name, as plotly.js gets them."""
    calls = re.finditer(r'Plotly\.newPlot\(\s*"(\w+)",\s*(\[)', html)
    decoder = json.JSONDecoder()
    return {call[1]: {t.get("name", ""): t for t in decoder.raw_decode(html, call.start(2))[0]} for call in calls}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    candidates = finish(folder, generations=4, population=10, failures=2)
    path = write_report(folder)
    assert path == folder / "report.html"
    return candidates, path.read_text(encoding="utf-8")


def test_the_page_is_one_sound_file_with_all_pictures(finished):
    _, html = finished
    page = Page(html)
    assert page.fetched == []
    assert {"front", "generations", "training"} <= page.ids
    assert set(figures(html)) == {"front", "generations", "training"}
    assert len(html) < 1.2 * len(get_plotlyjs())  # the library is in it once


def test_every_scored_candidate_is_a_point_with_its_architecture(finished):
    candidates, html = finished
    traces = figures(html)["front"]
    points = traces["candidate"]["text"]
    scored = [c for c in candidates if c.result]
    assert len(points) == len(scored) == 38
    for c, text in zip(scored, points, strict=True):
        assert c.proposal.arch.id in text
        assert f"embed_dim: {c.proposal.arch.embed_dim}" in text
        assert f"generation {c.proposal.generation}, {c.proposal.origin}" in text
    front = [c.proposal.arch.id for c in pareto_front(candidates)]
    assert [re.search("<b>(.*?)</b>", text)[1] for text in traces["Pareto front"]["text"]] == front
    assert traces["champion"]["text"] == [text for text in points if front[-1] in text]


def test_progress_shows_median_and_best_of_each_generation(finished):
    candidates, html = finished
    traces = figures(html)["generations"]
    best = [max(c.result.score for c in candidates if c.result and c.proposal.generation == g) for g in range(4)]
    assert traces["best of the generation"]["y"] == pytest.approx(best)
    assert traces["best so far"]["y"] == pytest.approx([max(best[: g + 1]) for g in range(4)])
    assert all(m < b for m, b in zip(traces["median"]["y"], best, strict=True))


def test_the_words_are_those_of_the_summary(finished):
    _, html = finished
    page = Page(html)
    text = " ".join(page.text)
    for fact in ("98.75 %", "the best of 38 subnets", "2 × evaluator lost", "digits --note '<&>'", "torch 2.14.1", "f" * 32):  # noqa: RUF001
        assert fact in text
    assert ["largest subnet", "99.00 %", "98.00 %", "216,394", "1.23 M"] in page.rows
    assert ["smallest subnet", "–", "–", "10,250", "9,000"] in page.rows  # noqa: RUF001
    assert ["random, median of 25", "96.50 %", "96.01 %", "64,000", "2.50 G"] in page.rows


def test_a_short_search_with_a_given_supernet_has_a_report(tmp_path):
    finish(tmp_path, generations=1, population=1)
    summary = json.loads((tmp_path / "summary.json").read_text())
    del summary["networks"]["random"]
    summary["training"] = {"epochs": 0, "history": []}
    (tmp_path / "summary.json").unlink()  # it is written when the report is there
    html = write_report(tmp_path, summary).read_text(encoding="utf-8")
    assert set(figures(html)) == {"front", "generations"}
    assert "random, median" not in html


def test_the_terminal_gets_the_same_table(tmp_path):
    finish(tmp_path, generations=1, population=3)
    output = io.StringIO()
    Console(width=100, file=output).print(closing_table(json.loads((tmp_path / "summary.json").read_text())))
    assert re.search(r"champion .* 98\.75 %", output.getvalue())
    assert re.search(r"random, median of 25 .* 96\.50 % .* 96\.01 % .* 64,000 .* 2\.50 G", output.getvalue())
    assert "50,000 <= params <= 80,000" in output.getvalue()


def test_a_folder_without_a_finished_search_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"summary\.json is missing: a report needs the folder of a finished search"):
        write_report(tmp_path)
    finish(tmp_path, generations=1, population=2)
    earlier = write_report(tmp_path).read_bytes()
    (tmp_path / "front.json").write_text("[{")
    with pytest.raises(ValueError, match=r"front\.json is damaged"):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == earlier
