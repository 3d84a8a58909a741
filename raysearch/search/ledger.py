"""The books of a search: what was planned, asked and told, and all of it as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Generic, Literal, TypeVar

from raysearch.errors import UserError
from raysearch.search.protocol import Failure, Proposal, Result, outcome_from_dict, outcome_to_dict
from raysearch.space import Architecture

A = TypeVar("A", bound=Architecture)


class Ledger(Generic[A]):
    """Candidates in the order planned, how many of them were asked, and their outcomes.

    Every algorithm keeps one. Each operation takes the same time however long the history is.
    """

    def __init__(self, architecture: type[A]) -> None:
        self._architecture = architecture
        self._archs: list[A] = []
        self._proposals: list[Proposal] = []
        self._index: dict[Architecture, int] = {}
        self._outcomes: dict[int, Result | Failure] = {}
        self._asked = 0

    def __contains__(self, arch: object) -> bool:
        """Whether ``arch`` was ever planned."""
        return arch in self._index

    def __len__(self) -> int:
        """How many candidates were planned."""
        return len(self._archs)

    @property
    def asked(self) -> int:
        """How many candidates were asked."""
        return self._asked

    @property
    def pending(self) -> int:
        """How many candidates were asked and not told yet."""
        return self._asked - len(self._outcomes)

    @property
    def settled(self) -> bool:
        """True when every planned candidate was asked and told."""
        return len(self._outcomes) == len(self._archs)

    def plan(
        self,
        arch: A,
        *,
        generation: int,
        origin: Literal["random", "mutation", "crossover", "predicted", "seed"],
        parents: Sequence[Architecture] = (),
    ) -> None:
        """Append a candidate that was never planned before."""
        assert arch not in self._index, f"{arch} is planned twice"
        index = len(self._archs)
        self._index[arch] = index
        self._archs.append(arch)
        self._proposals.append(Proposal(arch, index, generation, origin, tuple(p.id for p in parents)))

    def ask(self) -> A | None:
        """The next planned candidate; None when all were asked."""
        if self._asked == len(self._archs):
            return None
        self._asked += 1
        return self._archs[self._asked - 1]

    def tell(self, arch: Architecture, outcome: Result | Failure) -> None:
        """Record an outcome. Raises UserError for a candidate not asked or told before, and for a score that is not finite."""
        index = self._index.get(arch, self._asked)
        if index >= self._asked:
            raise UserError(f"told about {arch}, which was never asked")
        if index in self._outcomes:
            raise UserError(f"candidate {index} ({arch.id}) was told before")
        if isinstance(outcome, Result):
            if not math.isfinite(outcome.score):
                raise UserError(f"candidate {index} ({arch.id}) has score {outcome.score}; tell a Failure instead")
            # Outcomes by item would be most of the state, and no decision of an algorithm reads them.
            outcome = replace(outcome, outcomes=b"", seconds=0.0)
        self._outcomes[index] = outcome

    def proposal(self, arch: Architecture) -> Proposal:
        """Where an asked candidate comes from. Raises KeyError for one that was never asked."""
        index = self._index[arch]
        if index >= self._asked:
            raise KeyError(arch)
        return self._proposals[index]

    def proposal_at(self, index: int) -> Proposal:
        """Where the candidate at ``index`` of the order planned comes from."""
        return self._proposals[index]

    def arch(self, index: int) -> A:
        """The candidate at ``index`` of the order planned."""
        return self._archs[index]

    def outcome(self, index: int) -> Result | Failure | None:
        """What was told about the candidate at ``index``; None before that."""
        return self._outcomes.get(index)

    def competing(self, indices: Iterable[int]) -> list[tuple[int, Result]]:
        """Those of ``indices`` whose results may have offspring; not failures, excluded ones and those not told yet."""
        outcomes = ((index, self._outcomes.get(index)) for index in indices)
        return [(index, outcome) for index, outcome in outcomes if isinstance(outcome, Result) and outcome.competes]

    def state_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "asked": self._asked,
            "candidates": [
                [p.arch.to_dict(), p.generation, p.origin, list(p.parents), told and outcome_to_dict(told)]
                for p in self._proposals
                for told in [self._outcomes.get(p.index)]
            ],
        }

    @classmethod
    def from_state_dict(cls, architecture: type[A], state: dict[str, Any]) -> Ledger[A]:
        """Inverse of :meth:`state_dict`."""
        ledger = cls(architecture)
        for index, (values, generation, origin, parents, outcome) in enumerate(state["candidates"]):
            arch = architecture.from_dict(values)
            ledger._index[arch] = index
            ledger._archs.append(arch)
            ledger._proposals.append(Proposal(arch, index, generation, origin, tuple(parents)))
            if outcome is not None:
                ledger._outcomes[index] = outcome_from_dict(outcome)
        ledger._asked = state["asked"]
        return ledger
