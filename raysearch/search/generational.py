"""What searches in generations share: a generation is told whole before one that learns from it is planned: a barrier."""

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
    is planned when the last outcome of the one before is told; until then :meth:`ask` returns None. With :attr:`ahead`, of the
    one that many before it: the evaluators have the others to do meanwhile, and what a generation learns from is still decided
    by its number alone. A space that holds fewer subnets than asked for ends the search early.

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
        self._starts = [0]  # index of each generation's first candidate
        self._taken = 0  # generations that were learnt from, the first ones
        self._exhausted = False  # nothing new is left in the band
        self._parents: list[int] = []  # indices, best first
        for arch in self.initial:
            self._ledger.plan(arch, generation=0, origin="seed")
        self._fill()
        self._advance()

    @staticmethod
    @abstractmethod
    def defaults() -> C:
        """The settings of a search that names none."""

    @property
    @abstractmethod
    def objectives(self) -> tuple[Objective, ...]:
        """What a result must hold."""

    @property
    def ahead(self) -> int:
        """Generations that are planned before the results of the one that follows them in learning are there."""
        return 0

    # --- the protocol ---

    def ask(self) -> A | None:
        """The next candidate; None until the whole generation is told, and when :attr:`finished`."""
        return self._ledger.ask()

    def tell(self, arch: Architecture, outcome: Result | Failure) -> None:
        """The outcome of an asked candidate, in any order within what was planned.

        Raises UserError for any other, and for a result that lacks an objective, as a latency that was not measured.
        """
        if isinstance(outcome, Result) and outcome.competes:
            # Not of this candidate: one without a prediction is of a problem without predictions.
            cost = self.problem.cost(self._ledger.arch(0))
            objective_values(outcome, cost, self.objectives)
        self._ledger.tell(arch, outcome)
        self._advance()

    def _advance(self) -> None:
        """Learn from generations that are told, and plan others, as far as results are there.

        In turns: what a generation is made from must not depend on what else happens to be told by then.
        """
        while True:
            due = self._taken if self._planned_all else self._generation - self.ahead
            if due >= self._taken:
                if due > self._generation or not self._told(due):
                    return
                self._taken += 1
                self._select()
            if not self._planned_all:
                self._plan_next()

    @property
    def _planned_all(self) -> bool:
        return self._exhausted or self._generation + 1 >= self.config.generations

    def _told(self, generation: int) -> bool:
        # The last one first: told in order, it decides at once.
        return all(self._ledger.outcome(index) is not None for index in reversed(self._of(generation)))

    def _of(self, generation: int) -> range:
        """Indices of a generation's candidates."""
        return range(*[*self._starts, len(self._ledger)][generation : generation + 2])

    def _plan_next(self) -> None:
        self._starts.append(len(self._ledger))
        if self._parents:
            self._plan_offspring()
        self._fill()
        if not self._of(self._generation):
            self._starts.pop()
            self._exhausted = True

    @property
    def _generation(self) -> int:
        """Number of the newest one."""
        return len(self._starts) - 1

    @property
    def _known(self) -> int:
        """How many candidates were learnt from, the first ones."""
        return [*self._starts, len(self._ledger)][self._taken]

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
            "taken": self._taken,
            "exhausted": self._exhausted,
            "parents": list(self._parents),
            **self._ledger.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken. Raises UserError when it comes from a search of other settings."""
        require_same_settings(self._settings(), state["settings"])
        self._ledger = Ledger.from_state_dict(self.problem.space.architecture, state)
        of = [self._ledger.proposal_at(index).generation for index in range(len(self._ledger))]
        self._starts = [of.index(generation) for generation in range(state["generation"] + 1)]
        self._taken = state.get("taken", state["generation"])  # earlier versions learnt from all before the newest
        self._exhausted = state.get("exhausted", False)
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
        return self._ledger.competing((*self._parents, *self._of(self._taken - 1)))

    def _best_of_contenders(self, count: int) -> list[int]:
        best = sorted(self._contenders(), key=lambda told: preference(told[1], index=told[0]))
        return [index for index, _ in best[:count]]

    def _rng(self, purpose: str, *step: int) -> Random:
        return Random("/".join(map(str, (self.seed, purpose, self._generation, *step))))

    def _is_new(self, arch: A) -> bool:
        return arch not in self._ledger and self.problem.in_band(arch)

    def _fill(self) -> None:
        """Random candidates until the generation is whole or the band is used up."""
        for i in range(self.config.population - (len(self._ledger) - self._starts[-1])):
            arch = self.problem.sample(self._rng("random", i), self._ledger)
            if arch is None:
                return
            self._ledger.plan(arch, generation=self._generation, origin="random")
