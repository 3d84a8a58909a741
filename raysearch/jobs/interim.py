"""The report of a search that still runs: who opens it sees what is known, and a killed search leaves it behind."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from raysearch.jobs.plan import Plan
from raysearch.jobs.summary import known_so_far
from raysearch.report import write_report
from raysearch.search import Candidate
from raysearch.store.folder import OutputFolder
from raysearch.tracking import Tracker

EVERY = 20.0
"""Seconds between two reports at least."""
MOST = 0.01
"""Share of the time that reports may take. One took 0.1 s with 300 candidates, 0.3 s with 1,000 and 1.3 s with 3,000."""
EVERY_RECORDED = 300.0
"""Seconds between two that MLflow gets as well: each is 5 MB."""


class InterimReport:
    """Writes ``report.html`` while a search runs, not too often.

    Args:
        plan: of the search.
        folder: where the report goes.
        tracker: gets it as an artifact, less often.
        history: records of the supernet's epochs.
        generations: how many are planned.
        total: how many candidates are planned.

    """

    def __init__(
        self,
        plan: Plan,
        folder: OutputFolder,
        tracker: Tracker,
        *,
        history: Sequence[dict[str, Any]],
        generations: int,
        total: int,
    ) -> None:
        self._plan, self._folder, self._tracker, self._history = plan, folder, tracker, history
        self._generations, self._total = generations, total
        self._started = time.monotonic()
        self._next = float("-inf")
        """When another report may be written."""
        self._recorded = float("-inf")

    def write(self, candidates: Sequence[Candidate], *, generation: int) -> None:
        """Write what is known in ``generation``, counted from 1, unless the last report was just written."""
        now = time.monotonic()
        if now < self._next:
            return
        path = write_report(self._folder.path, self._summary(candidates, generation), candidates=candidates)
        done = time.monotonic()
        self._next = done + max(EVERY, (done - now) / MOST)
        if now - self._recorded >= EVERY_RECORDED:
            self._tracker.log_artifact(path)
            self._recorded = now

    def _summary(self, candidates: Sequence[Candidate], generation: int) -> dict[str, Any]:
        """Of the closing summary all that is known before the end."""
        known = known_so_far(self._plan, self._folder, self._tracker, candidates=candidates, history=self._history)
        seconds: dict[str, float] = known["seconds"]
        return {
            **known,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "progress": {
                "generation": generation,
                "generations": self._generations,
                "candidates": len(candidates),
                "total": self._total,
            },
            "seconds": {**seconds, "search": seconds.get("search", 0.0) + time.monotonic() - self._started},
        }
