"""Predictor-assisted evolution: a regressor learns from the real scores and picks whom to score next."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, Literal, TypeVar

from raysearch.search.front import preference
from raysearch.search.ledger import Ledger
from raysearch.search.problem import SearchProblem
from raysearch.search.protocol import Direction, Failure, Proposal, Result, SearchAlgorithm
from raysearch.search.regressor import Regressor, fitted
from raysearch.search.settings import checked_initial, redraw_rates, require_at_least, require_same_settings, search_settings
from raysearch.space import Architecture

A = TypeVar("A", bound=Architecture)


@dataclass(frozen=True, slots=True)
class PredictorConfig:
    """Settings of :class:`PredictorEvolution`."""

    population: int = 25
    """Candidates per generation: so many are scored between two fits of the regressor."""
    generations: int = 40
    """Generations, the random first one included."""
    regressor: Literal["gp", "ridge", "forest"] = "gp"
    """What predicts: a Gaussian process, a Bayesian linear model, or extremely randomised trees."""
    explore: float = 0.1
    """Share of random candidates in each generation after the first."""
    optimism: float = 1.0
    """How many standard deviations of the prediction count in a candidate's favour."""
    parents: int = 20
    """How many of the best candidates ever scored the inner evolution starts from."""
    inner_population: int = 100
    """Children per generation of the inner evolution, and how many of the best predicted survive it."""
    inner_generations: int = 8
    """Generations of the inner evolution, which scores by prediction alone."""
    redraws: float = 2.0
    """How many decisions a mutation redraws on average."""
    memory: int = 1000
    """The regressor learns from so many of the latest results: this bounds the time of a fit."""

    def __post_init__(self) -> None:
        """Raises ValueError for a count that makes no search."""
        require_at_least(self, 1, "population", "generations", "parents", "inner_population", "inner_generations")
        require_at_least(self, 0, "optimism", "redraws")
        require_at_least(self, 2, "memory")
        if not 0 <= self.explore <= 1:
            raise ValueError(f"explore is {self.explore}; it is a share of 0 to 1")


class PredictorEvolution(SearchAlgorithm, Generic[A]):
    """Generations of the most promising candidates that an evolution inside a regressor finds.

    After each generation a regressor is fitted to the scores told so far, on the space's own features and the logarithms of
    parameters and multiply-accumulates. An inner evolution, which scores nothing, mutates and crosses the best candidates and
    keeps those of the best prediction; the best new ones are proposed (origin ``predicted``), and random ones in the places
    kept for exploration. Failures and excluded candidates teach nothing.

    A generation is planned when the last outcome of the one before is told; until then :meth:`ask` returns None. A space that
    holds fewer subnets than asked for ends the search early. Fits use one thread and are the same on machines alike; elsewhere
    their last digits may differ, so predictions are rounded before they decide.

    Args:
        problem: the space and its budget.
        config: sizes and the regressor.
        seed: with the outcomes, decides every candidate.
        direction: whether a higher or a lower score is better.
        initial: architectures that open the first generation, as an earlier search's best.

    Raises:
        InfeasibleError: no subnet of the band can be found.
        ValueError: an initial architecture is outside the space or the band, or there are more than a generation holds.

    """

    def __init__(
        self,
        problem: SearchProblem[A],
        config: PredictorConfig | None = None,
        *,
        seed: int,
        direction: Direction = "max",
        initial: Sequence[A] = (),
    ) -> None:
        problem.check()
        self.problem = problem
        self.config = config or PredictorConfig()
        self.seed = seed
        self.direction: Direction = direction
        self.initial = checked_initial(initial, problem, places=self.config.population)
        self._rates = redraw_rates(problem.space, self.config.redraws)
        self._ledger = Ledger(problem.space.architecture)
        self._generation = 0
        self._start = 0  # index of the generation's first candidate
        self._parents: list[int] = []  # indices of the best ever, best first
        self._lessons: list[tuple[tuple[float, ...], float]] = []  # the latest results: features and score, higher is better
        for arch in self.initial:
            self._ledger.plan(arch, generation=0, origin="seed")
        self._fill()

    # --- the protocol ---

    def ask(self) -> A | None:
        """The next candidate; None until the whole generation is told, and when :attr:`finished`."""
        return self._ledger.ask()

    def tell(self, arch: Architecture, outcome: Result | Failure) -> None:
        """The outcome of an asked candidate, in any order within a generation. Raises ValueError for any other."""
        self._ledger.tell(arch, outcome)
        if self._ledger.settled:
            self._rank()
            if self._generation + 1 < self.config.generations:
                self._learn(range(self._start, len(self._ledger)))
                self._generation += 1
                self._start = len(self._ledger)
                self._plan_predicted()
                self._fill()

    def proposal(self, arch: Architecture) -> Proposal:
        """Where an asked candidate comes from. Raises KeyError for one that was never asked."""
        return self._ledger.proposal(arch)

    @property
    def threshold(self) -> None:
        """None: the regressor learns from bad scores too."""
        return None

    @property
    def finished(self) -> bool:
        """True when all generations are told, or the space has nothing new to offer."""
        return self._ledger.settled

    @property
    def total(self) -> int:
        """How many candidates the search asks at most."""
        return min(self.config.population * self.config.generations, self.problem.size)

    def state_dict(self) -> dict[str, Any]:
        """Settings, candidates and outcomes as JSON values; the regressor follows from them."""
        return {
            "settings": self._settings(),
            "generation": self._generation,
            "start": self._start,
            "parents": list(self._parents),
            **self._ledger.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken. Raises ValueError when it comes from a search of other settings."""
        require_same_settings(self._settings(), state["settings"])
        self._ledger = Ledger.from_state_dict(self.problem.space.architecture, state)
        self._generation = state["generation"]
        self._start = state["start"]
        self._parents = list(state["parents"])
        self._lessons = []
        self._learn(range(self._start))

    def _settings(self) -> dict[str, Any]:
        return search_settings(
            "predictor", self.config, self.problem, seed=self.seed, initial=self.initial, direction=self.direction
        )

    # --- a generation ---

    def _rng(self, purpose: str, *step: int) -> Random:
        return Random("/".join(map(str, (self.seed, purpose, self._generation, *step))))

    def _competing(self, indices: Iterable[int]) -> list[tuple[int, Result]]:
        found: list[tuple[int, Result]] = []
        for index in indices:
            outcome = self._ledger.outcome(index)
            if isinstance(outcome, Result) and outcome.excluded is None:
                found.append((index, outcome))
        return found

    def _rank(self) -> None:
        """Let the generation just told compete with the parents so far."""
        competing = self._competing((*self._parents, *range(self._start, len(self._ledger))))
        ranked = [(preference(result, index=index, direction=self.direction), index) for index, result in competing]
        self._parents = [index for _, index in heapq.nsmallest(self.config.parents, ranked)]

    def _learn(self, indices: range) -> None:
        sign = 1 if self.direction == "max" else -1
        for index, result in self._competing(indices):
            self._lessons.append((self._features(self._ledger.arch(index)), sign * result.score))
        del self._lessons[: -self.config.memory]

    def _features(self, arch: A) -> tuple[float, ...]:
        cost = self.problem.cost(arch)
        return *self.problem.space.features(arch), math.log(max(cost.params, 1)), math.log(max(cost.macs, 1))

    def _plan_predicted(self) -> None:
        if len(self._lessons) < 2:
            return
        regressor = fitted(self.config.regressor, self._lessons, seed=self._rng("fit").randrange(2**31))
        for arch in self._evolved(regressor)[: self.config.population - round(self.config.explore * self.config.population)]:
            self._ledger.plan(arch, generation=self._generation, origin="predicted")

    def _evolved(self, regressor: Regressor) -> list[A]:
        """New architectures of the band, those of the best prediction first."""
        parents = [self._ledger.arch(i) for i in self._parents]
        promise: dict[A, float] = {}  # of new architectures only
        for inner in range(self.config.inner_generations):
            children: dict[A, None] = {}
            for i in range(self.config.inner_population):
                rng = self._rng("inner", inner, i)
                one, two = rng.choice(parents), rng.choice(parents)
                child = self.problem.space.crossover(one, two, rng) if rng.random() < 0.5 else one
                child = self.problem.space.mutate(child, rng, self._rates)
                if child not in self._ledger and child not in promise and self.problem.in_band(child):
                    children[child] = None
            if children:
                mean, deviation = regressor([self._features(child) for child in children])
                for child, m, d in zip(children, mean, deviation, strict=True):
                    promise[child] = round(m + self.config.optimism * d, 9)
            ranked = sorted(promise, key=lambda arch: (-promise[arch], arch.id))[: self.config.inner_population]
            promise = {arch: promise[arch] for arch in ranked}
            parents = ranked or parents
        return list(promise)

    def _fill(self) -> None:
        """Random candidates until the generation is whole or the band is used up."""
        for i in range(self.config.population - (len(self._ledger) - self._start)):
            arch = self.problem.sample(self._rng("random", i), self._ledger)
            if arch is None:
                return
            self._ledger.plan(arch, generation=self._generation, origin="random")
