"""What searches in generations share: one generation is told whole before the next is planned, so there is a barrier."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from raysearch.search.front import Objective, objective_values, preference
from raysearch.search.ledger import Ledger
from raysearch.search.protocol import Failure, Proposal, Result, SearchAlgorithm
from raysearch.search.settings import checked_initial, require_same_settings, search_settings
from raysearch.space import Architecture
from raysearch.space.problem import SearchProblem

A = TypeVar("A", bound=Architecture)


class GenerationalConfig(Protocol):
    """Sizes that every such search has."""

    @property
    def population(self) -> int:
        """Candidates per generation."""
        ...

    @property
    def generations(self) -> int:
        """Generations, the random first one included."""
        ...


C = TypeVar("C", bound=GenerationalConfig)


class GenerationalSearch(SearchAlgorithm, ABC, Generic[A, C]):
    """A search whose generations are made from what all earlier ones told.

    The initial architectures open the first generation; random ones take the places that offspring leave in any. A generation
    is planned when the last outcome of the one before is told; until then :meth:`ask` returns None. A space that holds fewer
    subnets than asked for ends the search early.

    An implementation says who survives (:meth:`_select`) and who is planned from them (:meth:`_plan_offspring`).

    Args:
        problem: the space and its budget.
        config: sizes and rates; :meth:`defaults` when not given.
        seed: with the outcomes, decides every candidate.
        initial: architectures that open the first generation, as an earlier search's best.

    Raises:
        InfeasibleError: no subnet of the band can be found.
        UserError: an initial architecture is outside the space or the band, or there are more than a generation holds.

    """

    algorithm: ClassVar[str]
    """Its name in the registry and in a stored state."""

    def __init__(
        self,
        problem: SearchProblem[A],
        config: C | None = None,
        *,
        seed: int,
        initial: Sequence[A] = (),
    ) -> None:
        problem.check()
        self.problem = problem
        self.config = self.defaults() if config is None else config
        self.seed = seed
        self.initial = checked_initial(initial, problem, places=self.config.population)
        self._ledger = Ledger(problem.space.architecture)
        self._generation = 0
        self._start = 0  # index of the generation's first candidate
        self._parents: list[int] = []  # indices, best first
        for arch in self.initial:
            self._ledger.plan(arch, generation=0, origin="seed")
        self._fill()

    @staticmethod
    @abstractmethod
    def defaults() -> C:
        """The settings of a search that names none."""

    @property
    @abstractmethod
    def objectives(self) -> tuple[Objective, ...]:
        """What a result must hold."""

    # --- the protocol ---

    def ask(self) -> A | None:
        """The next candidate; None until the whole generation is told, and when :attr:`finished`."""
        return self._ledger.ask()

    def tell(self, arch: Architecture, outcome: Result | Failure) -> None:
        """The outcome of an asked candidate, in any order within a generation.

        Raises UserError for any other, and for a result that lacks an objective, as a latency that was not measured.
        """
        if isinstance(outcome, Result) and outcome.competes:
            # Not of this candidate: one without a prediction is of a problem without predictions.
            cost = self.problem.cost(self._ledger.arch(0))
            objective_values(outcome, cost, self.objectives)
        self._ledger.tell(arch, outcome)
        if self._ledger.settled:
            self._select()
            if self._generation + 1 < self.config.generations:
                self._generation += 1
                self._start = len(self._ledger)
                if self._parents:
                    self._plan_offspring()
                self._fill()

    def proposal(self, arch: Architecture) -> Proposal:
        """Where an asked candidate comes from. Raises KeyError for one that was never asked."""
        return self._ledger.proposal(arch)

    @property
    def finished(self) -> bool:
        """True when all generations are told, or the space has nothing new to offer."""
        return self._ledger.settled

    @property
    def total(self) -> int:
        """How many candidates the search asks at most."""
        return min(self.config.population * self.config.generations, self.problem.size)

    @property
    def parents(self) -> tuple[A, ...]:
        """Those of whom the next generation is made, best first; never failures and excluded ones."""
        return tuple(self._ledger.arch(i) for i in self._parents)

    def state_dict(self) -> dict[str, Any]:
        """Settings, candidates and outcomes as JSON values; everything else follows from them."""
        return {
            "settings": self._settings(),
            "generation": self._generation,
            "start": self._start,
            "parents": list(self._parents),
            **self._ledger.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken. Raises UserError when it comes from a search of other settings."""
        require_same_settings(self._settings(), state["settings"])
        self._ledger = Ledger.from_state_dict(self.problem.space.architecture, state)
        self._generation = state["generation"]
        self._start = state["start"]
        self._parents = list(state["parents"])

    def _settings(self) -> dict[str, Any]:
        return search_settings(self.algorithm, self.config, self.problem, seed=self.seed, initial=self.initial)

    # --- a generation ---

    @abstractmethod
    def _select(self) -> None:
        """Set the parents: the generation just told competes with those so far (:meth:`_contenders`)."""

    @abstractmethod
    def _plan_offspring(self) -> None:
        """Plan up to a generation of new candidates; there is at least one parent."""

    def _contenders(self) -> list[tuple[int, Result]]:
        """The parents so far and those of the generation just told that compete, with their places in the order asked."""
        return self._ledger.competing((*self._parents, *range(self._start, len(self._ledger))))

    def _best_of_contenders(self, count: int) -> list[int]:
        best = sorted(self._contenders(), key=lambda told: preference(told[1], index=told[0]))
        return [index for index, _ in best[:count]]

    def _rng(self, purpose: str, *step: int) -> Random:
        return Random("/".join(map(str, (self.seed, purpose, self._generation, *step))))

    def _is_new(self, arch: A) -> bool:
        return arch not in self._ledger and self.problem.in_band(arch)

    def _fill(self) -> None:
        """Random candidates until the generation is whole or the band is used up."""
        for i in range(self.config.population - (len(self._ledger) - self._start)):
            arch = self.problem.sample(self._rng("random", i), self._ledger)
            if arch is None:
                return
            self._ledger.plan(arch, generation=self._generation, origin="random")
