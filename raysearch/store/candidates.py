"""The table of a search's candidates: one row each, what report, comparison, export and warm start read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from raysearch.errors import UserError
from raysearch.search.candidate import Candidate, Status
from raysearch.search.front import order
from raysearch.search.protocol import Failure, Origin
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
        ("status", pa.string()),
        ("reason", pa.string()),
        ("score", pa.float64()),
        ("loss", pa.float64()),
        ("params", pa.int64()),
        ("macs", pa.int64()),
        ("images_seen", pa.int64()),
        ("latency_ms", pa.float64()),
        ("predicted_latency_ms", pa.float64()),
        ("seconds", pa.float64()),
    ]
)
"""Columns of :data:`CANDIDATES`, one row per candidate in the order asked; :class:`CandidateRow` says what they hold."""


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """One candidate as the table keeps it: a field per column of :data:`SCHEMA`."""

    index: int
    """Place in the order asked, from 0."""
    id: str
    generation: int
    origin: Origin
    """How it was made."""
    arch: dict[str, Any]
    """The architecture as JSON values; text in the file."""
    status: Status
    score: float | None
    """On the items that it saw; None for a failure."""
    loss: float | None
    params: int
    macs: int
    images_seen: int
    """How many items were scored."""
    parents: tuple[str, ...] = ()
    """Ids of the architectures that it was made from."""
    reason: str | None = None
    """Of a failure."""
    latency_ms: float | None = None
    """Measured."""
    predicted_latency_ms: float | None = None
    seconds: float = 0.0
    """Time that the evaluator took."""

    @property
    def latency(self) -> float | None:
        """Milliseconds: measured, or else predicted; None where there are neither."""
        return self.predicted_latency_ms if self.latency_ms is None else self.latency_ms

    @classmethod
    def of(cls, candidate: Candidate) -> Self:
        """The row of a candidate."""
        proposal, result = candidate.proposal, candidate.result
        return cls(
            index=proposal.index,
            id=proposal.arch.id,
            generation=proposal.generation,
            origin=proposal.origin,
            arch=proposal.arch.to_dict(),
            status=candidate.status,
            score=result.score if result else None,
            loss=result.loss if result else None,
            params=candidate.cost.params,
            macs=candidate.cost.macs,
            images_seen=result.items_seen if result else 0,
            parents=proposal.parents,
            reason=candidate.outcome.reason if isinstance(candidate.outcome, Failure) else None,
            latency_ms=result.latency_ms if result else None,
            predicted_latency_ms=candidate.cost.latency_ms,
            seconds=result.seconds if result else 0.0,
        )

    def columns(self) -> dict[str, Any]:
        """The values of :data:`SCHEMA` in its order, the architecture as its own line of JSON."""
        values = {**asdict(self), "parents": list(self.parents)}
        values["arch"] = json.dumps(self.arch, sort_keys=True, separators=(",", ":"))
        return {name: values[name] for name in SCHEMA.names}


def write_candidates(path: Path, candidates: Sequence[Candidate]) -> None:
    """Write the table to ``path``, durably, whole or not at all."""
    rows = [CandidateRow.of(candidate).columns() for candidate in candidates]
    with written_whole(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary)


def read_candidates(path: Path) -> list[CandidateRow]:
    """The rows of :data:`CANDIDATES`, in the order asked.

    Raises UserError of one line, which names the file, when it is missing, damaged or no table of candidates.
    """
    if not path.exists():
        raise UserError(f"{path} is missing; restore it")
    try:
        table = pq.read_table(path)
        needed = [field.name for field in fields(CandidateRow) if field.default is MISSING]
        if missing := [name for name in needed if name not in table.column_names]:
            raise UserError(f"it has no column {missing[0]}")
        known = [field.name for field in fields(CandidateRow) if field.name in table.column_names]
        return [_row(values) for values in table.select(known).to_pylist()]
    except (OSError, TypeError, ValueError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or ["unreadable"])[0]
        raise UserError(f"{path} is damaged or no table of candidates: {reason}; restore it") from None


def _row(values: dict[str, Any]) -> CandidateRow:
    arch = json.loads(values["arch"])
    if not isinstance(arch, dict):
        raise UserError(f"candidate {values['index']} has the architecture {values['arch'][:60]}")
    told: dict[str, Any] = {**values, "arch": arch, "parents": tuple(values.get("parents") or ())}
    return CandidateRow(**told)


def best_rows(rows: Iterable[CandidateRow]) -> list[CandidateRow]:
    """The rows that compete, best first, as :func:`~raysearch.search.front.preference` sorts results."""
    keyed = [
        (order(row.score, row.loss, row.params, row.index), row)
        for row in rows
        if row.status == "scored" and row.score is not None
    ]
    return [row for _, row in sorted(keyed, key=lambda entry: entry[0])]
