"""A candidate: what was proposed, what it costs and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from raysearch.search.protocol import Failure, Proposal, Result
from raysearch.space.cost import Cost

Status = Literal["scored", "raced", "slow", "failed"]
"""What became of a candidate; only scored ones compete."""


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
    def status(self) -> Status:
        """What became of it."""
        if self.result is None:
            return "failed"
        return self.result.excluded or "scored"
