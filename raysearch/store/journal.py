"""What was scored, on disk before anybody hears of it: a killed search scores nothing twice."""

from __future__ import annotations

import base64
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raysearch.search.protocol import Failure, Result
from raysearch.store.lines import JsonLines

Key = tuple[str, str]
"""Split and architecture id."""


def outcome_to_dict(outcome: Result | Failure) -> dict[str, Any]:
    """An outcome as JSON values."""
    if isinstance(outcome, Failure):
        return {"reason": outcome.reason}
    return {**asdict(outcome), "correct": base64.b64encode(outcome.correct).decode()}


def outcome_from_dict(values: dict[str, Any]) -> Result | Failure:
    """Inverse of :func:`outcome_to_dict`."""
    if "reason" in values:
        return Failure(values["reason"])
    decoded: dict[str, Any] = {**values, "correct": base64.b64decode(values["correct"])}
    return Result(**decoded)


class Journal:
    """Outcomes by split and architecture, one JSON line each; the first line names the weights that were scored.

    Args:
        path: the file; the first outcome makes it. A line that a crash cut short is dropped.
        weights: digest of the supernet's weights. Raises ValueError when the file holds the scores of other weights.

    """

    def __init__(self, path: Path, *, weights: str) -> None:
        remedy = "remove that line to score its candidate again"
        self._lines = JsonLines(path, _entry, header={"weights": weights}, remedy=remedy)
        if self._lines.header.get("weights") != weights:
            raise ValueError(f"{path} holds scores of other weights than the supernet's; choose another output folder")
        self.outcomes: dict[Key, Result | Failure] = dict(self._lines.rows)

    def append(self, key: Key, outcome: Result | Failure) -> None:
        """Record an outcome; on disk when this returns."""
        split, arch_id = key
        self._lines.append({"split": split, "id": arch_id, "outcome": outcome_to_dict(outcome)})
        self.outcomes[key] = outcome


def _entry(line: dict[str, Any]) -> tuple[Key, Result | Failure]:
    return (line["split"], line["id"]), outcome_from_dict(line["outcome"])
