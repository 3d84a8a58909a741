"""The metrics of a search and the dashboard that shows them: each names what the other has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import raysearch
from raysearch.distributed.metrics import METRICS, run_of

DASHBOARD: dict[str, Any] = json.loads((Path(raysearch.__file__).parents[1] / "cluster" / "grafana.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
EXPORTED = {about.exported(name): about for name, about in METRICS.items()}


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    named = {name for query in QUERIES for name in re.findall(r"\bray_\w+", query)}
    assert named == set(EXPORTED)
    (runs,) = (variable for variable in DASHBOARD["templating"]["list"] if variable["name"] == "run")
    (counted,) = re.findall(r"label_values\((\w+), run\)", runs["query"]["query"])
    assert counted in EXPORTED


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_asks_for_tags_that_its_metric_has(query: str) -> None:
    (name,) = re.findall(r"\bray_\w+", query)
    tags = {"run", *EXPORTED[name].tags}
    selected = set(re.findall(r"(\w+)=~?\"", query))
    grouped = {tag.strip() for group in re.findall(r"\bby \(([^)]*)\)", query) for tag in group.split(",")}
    assert "run" in selected
    assert selected | grouped <= tags
    if EXPORTED[name].kind == "counter":
        assert re.search(rf"(rate\(|sum by \([^)]*\) \(){name}", query)  # one process's count begins at zero


def test_panels_are_whole_and_none_covers_another() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert all(x < 24 for x, _ in cells)
    assert all(panel["title"] and panel["description"] and panel["type"] == "timeseries" for panel in panels)


def test_a_run_is_named_by_its_output_folder(tmp_path: Path) -> None:
    output = tmp_path / "digits-1"
    (output / "fine-tuned").mkdir(parents=True)
    (output / "config.json").touch()
    assert run_of(output / "journal.jsonl") == "digits-1"
    assert run_of(output / "fine-tuned" / "champion-training.safetensors") == "digits-1"
    assert run_of(tmp_path / "elsewhere" / "journal.jsonl") == "elsewhere"
