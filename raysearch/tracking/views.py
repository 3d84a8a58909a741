"""What MLflow's UI shows when it opens a search: columns, order and charts, stored as a view that an address names.

The format is that of MLflow's own "Share" button, read from its UI of version 3.17: it is not documented. A UI that does not
know it shows its usual page.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from raysearch.tracking.child_run import ROLE, SEARCH_ID

VIEW = "mlflow.sharedViewState."
"""What begins the name of the experiment's tag that holds a view."""


def view_key(search_id: str) -> str:
    """Name of a search's view in addresses."""
    return f"raysearch-{search_id}"


def search_view(search_id: str, name: str, *, params: Sequence[str]) -> str:
    """The view of one search: its candidates, best first, with charts of score, size and architecture.

    Args:
        search_id: of the search.
        name: what the UI's list of views calls it.
        params: names of candidates' parameters, in the order of the axes.

    """
    charts = [
        _scatter("score-params", "Score against parameters", ("params", "METRIC"), ("score", "METRIC")),
        _scatter("score-macs", "Score against MACs", ("macs", "METRIC"), ("score", "METRIC")),
        _parallel("architecture", "Architecture and score", params),
        _scatter("score-index", "Score in the order asked", ("index", "PARAM"), ("score", "METRIC")),
    ]
    columns = [
        "metrics.`score`", "metrics.`params`", "metrics.`macs`", "metrics.`latency_ms`",
        "params.`generation`", "params.`origin`", *(f"params.`{name}`" for name in params),
    ]  # fmt: skip
    state = {
        "searchFilter": f"tags.`{ROLE}` = 'candidate' and tags.`{SEARCH_ID}` = '{search_id}'",
        "orderByKey": "metrics.`score`",
        "orderByAsc": False,
        "selectedColumns": columns,
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": charts,
        "compareRunSections": [_SECTION],
        "isAccordionReordered": True,
        "hideEmptyCharts": True,
    }
    now = time.time_ns() // 1_000_000
    return json.dumps({"name": name, "createdAt": now, "updatedAt": now, "state": json.dumps(state)})


_SECTION = {
    "uuid": "raysearch-search", "name": "Search", "display": True, "isReordered": True, "deleted": False, "isGenerated": False,
    "columns": 2, "cardHeight": 400,
}  # fmt: skip


def _chart(uuid: str, kind: str, title: str, **values: object) -> dict[str, Any]:
    chart = {"uuid": f"raysearch-{uuid}", "type": kind, "displayName": title, "metricSectionId": _SECTION["uuid"]}
    return {**chart, "runsCountToCompare": 100, "deleted": False, "isGenerated": False, **values}


def _scatter(uuid: str, title: str, x: tuple[str, str], y: tuple[str, str]) -> dict[str, Any]:
    axes = [{"key": key, "type": kind} for key, kind in (x, y)]
    return _chart(uuid, "SCATTER", title, xaxis=axes[0], yaxis=axes[1])


def _parallel(uuid: str, title: str, params: Sequence[str]) -> dict[str, Any]:
    return _chart(uuid, "PARALLEL", title, selectedParams=list(params), selectedMetrics=["params", "score"], showAllRuns=True)
