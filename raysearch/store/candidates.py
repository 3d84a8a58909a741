"""The table of a search's candidates: one row each, what report, comparison and warm start read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from raysearch.search.candidate import Candidate
from raysearch.search.front import order
from raysearch.search.protocol import Failure
from raysearch.store.files import written_whole

R = TypeVar("R", bound=Mapping[str, Any])

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
        ("images_seen", pa.int64()),  # items, whatever they are
        ("latency_ms", pa.float64()),  # measured
        ("predicted_latency_ms", pa.float64()),
        ("seconds", pa.float64()),
    ]
)
"""Columns of :data:`CANDIDATES`, one row per candidate in the order asked."""


def write_candidates(path: Path, candidates: Sequence[Candidate]) -> None:
    """Write the table to ``path``, durably, whole or not at all."""
    with written_whole(path) as temporary:
        pq.write_table(pa.Table.from_pylist([row_of(c) for c in candidates], schema=SCHEMA), temporary)


def row_of(candidate: Candidate) -> dict[str, Any]:
    """The columns of :data:`SCHEMA` of one candidate."""
    proposal, outcome, result = candidate.proposal, candidate.outcome, candidate.result
    return {
        "index": proposal.index,
        "id": proposal.arch.id,
        "generation": proposal.generation,
        "origin": proposal.origin,
        "parents": list(proposal.parents),
        "arch": proposal.arch.to_json(),
        "status": candidate.status,
        "reason": outcome.reason if isinstance(outcome, Failure) else None,
        "score": result.score if result else None,
        "loss": result.loss if result else None,
        "params": candidate.cost.params,
        "macs": candidate.cost.macs,
        "images_seen": result.items_seen if result else 0,
        "latency_ms": result.latency_ms if result else None,
        "predicted_latency_ms": candidate.cost.latency_ms,
        "seconds": result.seconds if result else 0.0,
    }


def best_rows(rows: Iterable[R]) -> list[R]:
    """The rows that compete, best first: scored and not excluded, in the order of all candidates."""
    competing = [row for row in rows if row["status"] == "scored"]
    return sorted(competing, key=lambda row: order(row["score"], row["loss"], row["params"], row["index"]))
