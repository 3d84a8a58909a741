"""What was scored, on disk before anybody hears of it: a killed search scores nothing twice."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

from raysearch.search.protocol import Failure, Result, outcome_from_dict, outcome_to_dict

Key = tuple[str, str]
"""Split and architecture id."""


class Journal:
    """Outcomes by split and architecture, one JSON line each; the first line names the weights that were scored.

    Args:
        path: the file; it is made when missing, and a line that a crash cut short is dropped.
        weights: digest of the supernet's weights. Raises ValueError when the file holds the scores of other weights.
        calibration: digest of the calibration inputs, for families that need them; as for the weights.

    """

    def __init__(self, path: Path, *, weights: str, calibration: str | None = None) -> None:
        self.outcomes: dict[Key, Result | Failure] = {}
        header = {"weights": weights, **({} if calibration is None else {"calibration": calibration})}
        whole = b""
        if path.exists():
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            self._load(path, whole.decode(), header)
        self._file = path.open("ab")
        self._file.truncate(len(whole))
        if not whole:
            self._write(header)

    def _load(self, path: Path, text: str, header: dict[str, str]) -> None:
        scored: dict[str, Any] = header
        for number, line in enumerate(text.splitlines(), start=1):
            try:
                entry = cast(dict[str, Any], json.loads(line))
                if number == 1:
                    scored = {"weights": entry["weights"], **entry}
                else:
                    self.outcomes[entry["split"], entry["id"]] = outcome_from_dict(entry["outcome"])
            except (KeyError, TypeError, ValueError):
                raise ValueError(f"{path} line {number} is damaged; remove that line to score its candidate again") from None
            if scored["weights"] != header["weights"]:
                raise ValueError(f"{path} holds scores of other weights than the supernet's; choose another output folder")
            if scored.get("calibration") != header.get("calibration"):
                raise ValueError(f"{path} holds scores after another calibration; choose another output folder")

    def append(self, key: Key, outcome: Result | Failure) -> None:
        """Record an outcome; on disk when this returns."""
        split, arch_id = key
        self._write({"split": split, "id": arch_id, "outcome": outcome_to_dict(outcome)})
        self.outcomes[key] = outcome

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
