"""Regularised evolution: a queue of the latest candidates, of which the oldest leaves; evaluators never wait."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, TypeVar

from raysearch.bounds import Count, NotNegative, check_numbers
from raysearch.search.front import preference
from raysearch.search.ledger import Ledger
from raysearch.search.protocol import Failure, Proposal, Result, SearchAlgorithm
from raysearch.search.settings import checked_initial, redraw_rates, require_same_settings, search_settings
from raysearch.space import Architecture
from raysearch.space.problem import SearchProblem

A = TypeVar("A", bound=Architecture)

HOPELESS = 0.01
"""A rank that parents reach less often than this is beyond :attr:`AgeingEvolution.threshold`."""
OUT = (math.inf, math.inf, math.inf, -1)
"""Where in the order of the population stand those that cannot be parents: behind everybody else."""


@dataclass(frozen=True, slots=True)
class AgeingConfig:
    """Settings of :class:`AgeingEvolution`."""

    candidates: Count = 1000
    """How many candidates are scored."""
    population: Count = 100
    """How many of the latest candidates may be parents; the first so many are random."""
    sample: Count = 25
    """A parent is the best of so many drawn from the population."""
    look_ahead: Count = 50
    """How many candidates may be waiting for their result at once; at least the number of evaluators keeps all of them busy."""
    redraws: NotNegative = 2.0
    """How many decisions a mutation redraws on average."""
    max_tries: Count = 20
    """Mutations tried per candidate before a random one takes its place."""

    def __post_init__(self) -> None:
        """Raises UserError for a count that makes no search."""
        check_numbers(self)

    @property
    def generation_size(self) -> int:
        """Candidates of one generation: those that may wait at once."""
        return self.look_ahead


class AgeingEvolution(SearchAlgorithm, Generic[A]):
    """Steady-state evolution in which candidates leave by age, not by rank (Real et al. 2019, regularised evolution).

    Each candidate is a mutant of the best of a few that are drawn from the latest results. There is no barrier: candidate ``i``
    depends on the results of candidates up to ``i - look_ahead``, in the order asked and on no others, whatever else is told by
    then. So one more can be asked as soon as the oldest that waits is told, and the sequence is the same for any number of
    evaluators and any order of completion. A candidate's generation is its place divided by the look-ahead.

    Failures and excluded candidates, as those that racing stopped, take a place in the population like any others and lose
    every tournament: they are never parents, and the queue moves on with each candidate told, whatever became of it. Where a
    tournament meets none but such, another one is held. A space that holds fewer subnets than asked for ends the search early.

    Args:
        problem: the space and its budget.
        config: sizes and rates; the defaults of population and sample are the published ones.
        seed: with the outcomes, decides every candidate.
        initial: architectures that open the search, as an earlier search's best.

    Raises:
        InfeasibleError: no subnet of the band can be found.
        UserError: an initial architecture is outside the space or the band, or there are more than the population holds.

    """

    def __init__(
        self,
        problem: SearchProblem[A],
        config: AgeingConfig | None = None,
        *,
        seed: int,
        initial: Sequence[A] = (),
    ) -> None:
        problem.check()
        self.problem = problem
        self.config = config or AgeingConfig()
        self.seed = seed
        self.initial = checked_initial(initial, problem, places=min(self.config.population, self.config.candidates))
        self._rates = redraw_rates(problem.space, self.config.redraws)
        # All of a tournament's members are of worse rank than r with probability ((population - r) / population) ** sample.
        self._last_hope = math.ceil(self.config.population * (1 - HOPELESS ** (1 / self.config.sample)))
        self._ledger = Ledger(problem.space.architecture)
        self._population: deque[tuple[tuple[float, float, float, int], int]] = deque(maxlen=self.config.population)
        self._thresholds: list[int | None] = []  # of each planned candidate
        self._exhausted = False
        self._plan()

    # --- the protocol ---

    def ask(self) -> A | None:
        """The next candidate; None while a whole look-ahead awaits its results, and when :attr:`finished`."""
        return self._ledger.ask()

    def tell(self, arch: Architecture, outcome: Result | Failure) -> None:
        """The outcome of an asked candidate, in any order. Raises UserError for any other."""
        self._ledger.tell(arch, outcome)
        self._plan()

    def proposal(self, arch: Architecture) -> Proposal:
        """Where an asked candidate comes from. Raises KeyError for one that was never asked."""
        return self._ledger.proposal(arch)

    @property
    def threshold(self) -> A | None:
        """For the candidate asked last: one so far down the population that what is worse has practically no offspring.

        Decided when that candidate was planned, so it depends on the order of completion as little as the candidate does.
        None until the population is full, and while so few of it compete that every candidate may become a parent.
        """
        if self._ledger.asked == 0:
            return None
        index = self._thresholds[self._ledger.asked - 1]
        return None if index is None else self._ledger.arch(index)

    @property
    def finished(self) -> bool:
        """True when all candidates are told, or the space has nothing new to offer."""
        return self._ledger.settled  # what can be planned is planned at once

    @property
    def total(self) -> int:
        """How many candidates the search asks at most."""
        return min(self.config.candidates, self.problem.size)

    def state_dict(self) -> dict[str, Any]:
        """Settings, candidates and outcomes as JSON values."""
        return {
            "settings": self._settings(),
            "population": [index for _, index in self._population],
            "thresholds": list(self._thresholds),
            "exhausted": self._exhausted,
            **self._ledger.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken. Raises UserError when it comes from a search of other settings."""
        require_same_settings(self._settings(), state["settings"])
        self._ledger = Ledger.from_state_dict(self.problem.space.architecture, state)
        self._population.clear()
        for index in state["population"]:
            self._join(index)
        self._thresholds = list(state["thresholds"])
        self._exhausted = state["exhausted"]

    def _settings(self) -> dict[str, Any]:
        return search_settings("ageing", self.config, self.problem, seed=self.seed, initial=self.initial)

    # --- candidates ---

    def _plan(self) -> None:
        """Every candidate whose results are there, now: :attr:`finished` must know whether anything is left."""
        while not self._exhausted and (index := len(self._ledger)) < self.config.candidates:
            newest = index - self.config.look_ahead
            if newest >= 0:
                if self._ledger.outcome(newest) is None:
                    return
                self._join(newest)
            if index < len(self.initial):
                self._ledger.plan(self.initial[index], generation=self._generation(index), origin="seed")
            elif index < self.config.population or not self._plan_mutant(index):
                arch = self.problem.sample(Random(f"{self.seed}/random/{index}"), self._ledger)
                if arch is None:
                    self._exhausted = True
                    return
                self._ledger.plan(arch, generation=self._generation(index), origin="random")
            self._thresholds.append(self._find_threshold())

    def _find_threshold(self) -> int | None:
        if len(self._population) < self.config.population:
            return None
        key, index = sorted(self._population)[self._last_hope - 1]
        return index if key < OUT else None

    def _join(self, index: int) -> None:
        """The next of the queue; the oldest leaves a full one."""
        told = self._ledger.competing([index])
        self._population.append((preference(told[0][1], index=index) if told else (*OUT[:3], index), index))

    def _plan_mutant(self, index: int) -> bool:
        """Plan a new mutant of a tournament's winner. False when none of the tries is new and inside the band."""
        population = list(self._population)
        if not population:
            return False
        for attempt in range(self.config.max_tries):
            rng = Random(f"{self.seed}/mutation/{index}/{attempt}")
            key, winner = min(rng.choices(population, k=self.config.sample))
            if key >= OUT:
                continue
            parent = self._ledger.arch(winner)
            child = self.problem.space.mutate(parent, rng, self._rates)
            if child not in self._ledger and self.problem.in_band(child):
                self._ledger.plan(child, generation=self._generation(index), origin="mutation", parents=(parent,))
                return True
        return False

    def _generation(self, index: int) -> int:
        return index // self.config.generation_size
