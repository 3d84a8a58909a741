"""Random search: the baseline that every other algorithm must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, TypeVar

from raysearch.bounds import Count, check_numbers
from raysearch.search.ledger import Ledger
from raysearch.search.protocol import Failure, Proposal, Result, SearchAlgorithm
from raysearch.search.settings import checked_initial, require_same_settings, search_settings
from raysearch.space import Architecture
from raysearch.space.problem import SearchProblem

A = TypeVar("A", bound=Architecture)


@dataclass(frozen=True, slots=True)
class RandomConfig:
    """Settings of :class:`RandomSearch`."""

    candidates: Count = 1000
    """How many candidates are scored."""
    batch: Count = 50
    """How many candidates may be waiting for their result at once."""

    def __post_init__(self) -> None:
        """Raises UserError for a count below one."""
        check_numbers(self)

    @property
    def generation_size(self) -> int:
        """Candidates of one generation: those that may wait at once."""
        return self.batch


class RandomSearch(SearchAlgorithm, Generic[A]):
    """Distinct random architectures of the band; results change nothing.

    A candidate's generation is its batch of :attr:`RandomConfig.batch`. There is no barrier between batches: one result makes
    room for one more candidate.

    Args:
        problem: the space and its budget.
        config: sizes.
        seed: decides every candidate.
        initial: architectures that open the first batch, as an earlier search's best.

    Raises:
        InfeasibleError: no subnet of the band can be found.
        UserError: an initial architecture is outside the space or the band, or there are more than a batch holds.

    """

    def __init__(
        self, problem: SearchProblem[A], config: RandomConfig | None = None, *, seed: int, initial: Sequence[A] = ()
    ) -> None:
        problem.check()
        self.problem = problem
        self.config = config or RandomConfig()
        self.seed = seed
        self.initial = checked_initial(initial, problem, places=min(self.config.batch, self.config.candidates))
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
        """The outcome of an asked candidate, in any order. Raises UserError for any other."""
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
        """Continue where ``state`` was taken. Raises UserError when it comes from a search of other settings."""
        require_same_settings(self._settings(), state["settings"])
        self._ledger = Ledger.from_state_dict(self.problem.space.architecture, state)

    def _settings(self) -> dict[str, Any]:
        return search_settings("random", self.config, self.problem, seed=self.seed, initial=self.initial)

    def _plan_batch(self) -> None:
        start = len(self._ledger)
        generation = start // self.config.generation_size
        if generation == 0:
            for arch in self.initial:
                self._ledger.plan(arch, generation=0, origin="seed")
        for i in range(min(start + self.config.batch, self.config.candidates) - len(self._ledger)):
            arch = self.problem.sample(Random(f"{self.seed}/random/{generation}/{i}"), self._ledger)
            if arch is None:
                return
            self._ledger.plan(arch, generation=generation, origin="random")
