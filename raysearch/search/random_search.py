"""Random search: the baseline that every other algorithm must beat."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Generic, TypeVar

from raysearch.search.ledger import Ledger, require_same_settings
from raysearch.search.problem import SearchProblem
from raysearch.search.protocol import Failure, Proposal, Result, SearchAlgorithm
from raysearch.space import Architecture

A = TypeVar("A", bound=Architecture)


@dataclass(frozen=True, slots=True)
class RandomConfig:
    """Settings of :class:`RandomSearch`."""

    candidates: int = 1000
    """How many candidates are scored."""
    batch: int = 50
    """How many candidates may be waiting for their result at once."""

    def __post_init__(self) -> None:
        """Raises ValueError for a count below one."""
        for name in ("candidates", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is at least 1")


class RandomSearch(SearchAlgorithm, Generic[A]):
    """Distinct random architectures of the band; results change nothing.

    A candidate's generation is its batch of :attr:`RandomConfig.batch`. There is no barrier between batches: one result makes
    room for one more candidate.

    Raises:
        InfeasibleError: no subnet of the band can be found.

    """

    def __init__(self, problem: SearchProblem[A], config: RandomConfig | None = None, *, seed: int) -> None:
        problem.check()
        self.problem = problem
        self.config = config or RandomConfig()
        self.seed = seed
        self._ledger = Ledger(problem.space.architecture)
        self._plan_batch()

    def ask(self) -> A | None:
        """The next candidate; None while a whole batch awaits its results, and when :attr:`finished`."""
        if self._ledger.pending >= self.config.batch:
            return None
        arch = self._ledger.ask()
        if arch is not None and self._ledger.asked == len(self._ledger):
            self._plan_batch()  # now, not at the next call: finished must know whether anything is left
        return arch

    def tell(self, arch: Architecture, outcome: Result | Failure) -> None:
        """The outcome of an asked candidate, in any order. Raises ValueError for any other."""
        self._ledger.tell(arch, outcome)

    def proposal(self, arch: Architecture) -> Proposal:
        """Where an asked candidate comes from. Raises KeyError for one that was never asked."""
        return self._ledger.proposal(arch)

    @property
    def threshold(self) -> None:
        """None: random candidates stand for themselves."""
        return None

    @property
    def finished(self) -> bool:
        """True when all candidates are told, or those of the band are used up."""
        return self._ledger.settled

    @property
    def total(self) -> int:
        """How many candidates the search asks at most."""
        return min(self.config.candidates, self.problem.size)

    def state_dict(self) -> dict[str, Any]:
        """Settings, candidates and outcomes as JSON values."""
        return {"settings": self._settings(), **self._ledger.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken. Raises ValueError when it comes from a search of other settings."""
        require_same_settings(self._settings(), state["settings"])
        self._ledger = Ledger.from_state_dict(self.problem.space.architecture, state)

    def _settings(self) -> dict[str, Any]:
        return {
            "algorithm": "random",
            **asdict(self.config),
            "seed": self.seed,
            "space": self.problem.space.to_dict(),
            "constraint": asdict(self.problem.constraint),
        }

    def _plan_batch(self) -> None:
        start = len(self._ledger)
        generation = start // self.config.batch
        for i in range(min(self.config.batch, self.config.candidates - start)):
            arch = self.problem.sample(Random(f"{self.seed}/random/{generation}/{i}"), self._ledger)
            if arch is None:
                return
            self._ledger.plan(arch, generation=generation, origin="random")
