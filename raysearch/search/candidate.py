"""A candidate: what was proposed, what it costs and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from raysearch.search.protocol import Failure, Proposal, Result
from raysearch.space.cost import Cost


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
        """The columns of :data:`~raysearch.store.candidates.SCHEMA`."""
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
            "images_seen": result.items_seen if result else 0,
            "latency_ms": result.latency_ms if result else None,
            "predicted_latency_ms": self.cost.latency_ms,
            "seconds": result.seconds if result else 0.0,
        }
