"""What was scored, on disk before anybody hears of it: a killed search scores nothing twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raysearch.errors import UserError
from raysearch.search.protocol import Failure, Result, outcome_from_dict, outcome_to_dict
from raysearch.store.lines import JsonLines

Key = tuple[str, str]
"""Split and architecture id."""


class Journal:
    """Outcomes by split and architecture, one JSON line each; the first line names the weights that were scored.

    Args:
        path: the file; the first outcome makes it. A line that a crash cut short is dropped.
        weights: digest of the supernet's weights. Raises UserError when the file holds the scores of other weights.
        calibration: digest of the calibration inputs, for families that need them; as for the weights.

    """

    def __init__(self, path: Path, *, weights: str, calibration: str | None = None) -> None:
        remedy = "remove that line to score its candidate again"
        header = {"weights": weights, **({} if calibration is None else {"calibration": calibration})}
        self._lines = JsonLines(path, _entry, header=header, remedy=remedy)
        if self._lines.header.get("weights") != weights:
            raise UserError(f"{path} holds scores of other weights than the supernet's; choose another output folder")
        if self._lines.header.get("calibration") != calibration:
            raise UserError(f"{path} holds scores after another calibration; choose another output folder")
        self.outcomes: dict[Key, Result | Failure] = dict(self._lines.rows)

    def append(self, key: Key, outcome: Result | Failure) -> None:
        """Record an outcome; on disk when this returns."""
        split, arch_id = key
        self._lines.append({"split": split, "id": arch_id, "outcome": outcome_to_dict(outcome)})
        self.outcomes[key] = outcome


def _entry(line: dict[str, Any]) -> tuple[Key, Result | Failure]:
    return (line["split"], line["id"]), outcome_from_dict(line["outcome"])
