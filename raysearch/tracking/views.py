"""What MLflow's UI shows when it opens a search: columns, order and charts, stored as a view that an address names.

The format is that of MLflow's own "Share" button, read from its UI of version 3.17: it is not documented. A UI that does not
know it shows its usual page.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from raysearch.search.candidate import Candidate
from raysearch.search.front import spread
from raysearch.store.palette import CHAMPION, FRONT, between
from raysearch.tracking.child_run import ROLE, SEARCH_ID

VIEW = "mlflow.sharedViewState."
"""What begins the name of the experiment's tag that holds a view."""


PAGE = 100
"""Runs that MLflow's UI loads at once: what its charts show when it opens."""
OF_FRONT = 24
"""How many of the front are among them at most."""
SHOWN = "raysearch.shown"
"""Tag on the runs that the view of a finished search opens on."""
RUN_COLOR = "mlflow.runColor"
"""Tag in which MLflow keeps the colour of a run in its charts."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A candidate that the view of a finished search opens on."""

    key: str
    """Id of its architecture."""
    name: str
    """Of its run: what charts show under the pointer."""
    color: str

    def to_dict(self) -> dict[str, str]:
        """Arguments of the constructor: JSON values."""
        return asdict(self)


def shown(candidates: Sequence[Candidate], *, front: Sequence[str], champion: str) -> list[Shown]:
    """The champion, the front, and of all other candidates with a score so many that a page is full, evenly in the order asked.

    The best of a search often tie, so the hundred best would be one row of dots. Named and coloured: champion and front by what
    they are, the others darker the later they were asked. ``front`` and ``champion``: ids of architectures, the front's in the
    order in which it runs.
    """
    scored = {c.proposal.arch.id: c for c in candidates if c.status == "scored"}
    chosen = [champion, *spread([key for key in front if key in scored and key != champion], OF_FRONT)]
    chosen += spread([key for key in scored if key not in chosen], PAGE - len(chosen))
    last = max((c.proposal.generation for c in scored.values()), default=0)
    found: list[Shown] = []
    for key in chosen:
        if key == champion:
            found.append(Shown(key, f"champion {key}", CHAMPION))
        elif key in front:
            found.append(Shown(key, f"front {key}", FRONT))
        else:
            found.append(Shown(key, key, between(scored[key].proposal.generation / max(1, last))))
    return found


def view_key(search_id: str) -> str:
    """Name of a search's view in addresses."""
    return f"raysearch-{search_id}"


class Axes:
    """Those of the wished parameters that the parallel chart can have as axes without hiding runs that have a score.

    The chart (MLflow 3.17, as its code reads) leaves out every run that lacks one of its axes, as one of a block that this run
    does not have. Of an axis that mixes numbers and words it shows the runs of the more frequent kind, and only 30 words.
    """

    def __init__(self, wished: Sequence[str]) -> None:
        self._numeric: dict[str, bool | None] = dict.fromkeys(wished)
        """Whether an axis is one of numbers; None as long as there is no run."""

    @property
    def names(self) -> list[str]:
        """In the order wished."""
        return list(self._numeric)

    def admit(self, params: Mapping[str, str]) -> bool:
        """Give up what would hide the run with these parameters. Returns whether that was anything."""
        fitting: dict[str, bool | None] = {}
        for name, numeric in self._numeric.items():
            if name in params and numeric in (None, _is_number(params[name])):
                fitting[name] = _is_number(params[name])
        changed = len(fitting) < len(self._numeric)
        self._numeric = fitting
        return changed


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def search_view(search_id: str, name: str, *, params: Sequence[str], axes: Sequence[str], finished: bool) -> str:
    """The view of one search: its candidates, with charts of score, size and architecture.

    Of a search in progress it shows the newest candidates first, of a finished one those that are :class:`Shown`, best first:
    MLflow loads :data:`PAGE` runs at once, and the best of a search often have one and the same score.

    Args:
        search_id: of the search.
        name: what the UI's list of views calls it.
        params: names of candidates' parameters that are columns of the table.
        axes: those of them that are axes of the parallel chart.
        finished: whether the candidates that are shown are chosen.

    """
    order = "metrics.`score`" if finished else "attributes.start_time"
    chosen = f" and tags.`{SHOWN}` = 'true'" if finished else ""
    charts = [
        _scatter("score-params", "Score against parameters", ("params", "METRIC"), ("score", "METRIC")),
        _scatter("score-macs", "Score against MACs", ("macs", "METRIC"), ("score", "METRIC")),
        _parallel("architecture", "Architecture and score", axes),
        _scatter("score-index", "Score in the order asked", ("index", "PARAM"), ("score", "METRIC")),
    ]
    columns = [
        "metrics.`score`", "metrics.`params`", "metrics.`macs`", "metrics.`latency_ms`",
        "params.`generation`", "params.`origin`", *(f"params.`{name}`" for name in params),
    ]  # fmt: skip
    state = {
        "searchFilter": f"tags.`{ROLE}` = 'candidate' and tags.`{SEARCH_ID}` = '{search_id}'{chosen}",
        "orderByKey": order,
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
    return {**chart, "runsCountToCompare": PAGE, "deleted": False, "isGenerated": False, **values}


def _scatter(uuid: str, title: str, x: tuple[str, str], y: tuple[str, str]) -> dict[str, Any]:
    axes = [{"key": key, "type": kind} for key, kind in (x, y)]
    return _chart(uuid, "SCATTER", title, xaxis=axes[0], yaxis=axes[1])


def _parallel(uuid: str, title: str, axes: Sequence[str]) -> dict[str, Any]:
    return _chart(uuid, "PARALLEL", title, selectedParams=list(axes), selectedMetrics=["params", "score"], showAllRuns=True)
