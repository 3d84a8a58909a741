"""The table of a search's candidates: one row each, what report, comparison and warm start read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raysearch.search.candidate import Candidate
from raysearch.store.files import written_whole

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


def write_candidates(path: Path, candidates: Sequence[Candidate]) -> None:
    """Write the table to ``path``, durably, whole or not at all."""
    with written_whole(path) as temporary:
        pq.write_table(pa.Table.from_pylist([c.row() for c in candidates], schema=SCHEMA), temporary)
