"""One row per candidate: what tables, tracker and report read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from raysearch.cost import Cost
from raysearch.search.protocol import Failure, Proposal, Result

CANDIDATES = "candidates.parquet"
"""File of a search's table in its output folder."""

SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("id", pa.string()),
        ("generation", pa.int64()),
        ("origin", pa.string()),
        ("parents", pa.list_(pa.string())),
        ("arch", pa.string()),  # JSON
        ("status", pa.string()),  # "scored", "raced", "slow" or "failed"
        ("reason", pa.string()),  # of a failure
        ("score", pa.float64()),
        ("loss", pa.float64()),
        ("params", pa.int64()),
        ("macs", pa.int64()),
        ("images_seen", pa.int64()),
        ("latency_ms", pa.float64()),  # measured
        ("predicted_latency_ms", pa.float64()),
        ("seconds", pa.float64()),
    ]
)
"""Columns of :data:`CANDIDATES`, one row per candidate in the order asked."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A proposal with its outcome."""

    proposal: Proposal
    cost: Cost
    outcome: Result | Failure

    @property
    def result(self) -> Result | None:
        """The result; None for a failure."""
        return self.outcome if isinstance(self.outcome, Result) else None

    @property
    def status(self) -> Literal["scored", "raced", "slow", "failed"]:
        """What became of it; only scored candidates compete."""
        if self.result is None:
            return "failed"
        return self.result.excluded or "scored"

    def row(self) -> dict[str, Any]:
        """The columns of :data:`SCHEMA`."""
        result = self.result
        return {
            "index": self.proposal.index,
            "id": self.proposal.arch.id,
            "generation": self.proposal.generation,
            "origin": self.proposal.origin,
            "parents": list(self.proposal.parents),
            "arch": self.proposal.arch.to_json(),
            "status": self.status,
            "reason": self.outcome.reason if isinstance(self.outcome, Failure) else None,
            "score": result.score if result else None,
            "loss": result.loss if result else None,
            "params": self.cost.params,
            "macs": self.cost.macs,
            "images_seen": result.images_seen if result else 0,
            "latency_ms": result.latency_ms if result else None,
            "predicted_latency_ms": self.cost.latency_ms,
            "seconds": result.seconds if result else 0.0,
        }


def write_candidates(path: Path, candidates: Sequence[Candidate]) -> None:
    """Write the table to ``path``, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    pq.write_table(pa.Table.from_pylist([c.row() for c in candidates], schema=SCHEMA), temporary)
    temporary.replace(path)
