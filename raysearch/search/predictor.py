"""Predictor-assisted evolution: a regressor learns from the real scores and picks whom to score next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from raysearch.bounds import Count, CountOrNone, NotNegative, Share, at_least, check_numbers
from raysearch.search.front import Objective
from raysearch.search.generational import GenerationalSearch
from raysearch.search.regressor import Regressor, fitted
from raysearch.search.settings import redraw_rates
from raysearch.space import Architecture

A = TypeVar("A", bound=Architecture)


@dataclass(frozen=True, slots=True)
class PredictorConfig:
    """Settings of :class:`PredictorEvolution`."""

    population: Count = 25
    """Candidates per generation: so many are scored between two fits of the regressor."""
    generations: Count = 40
    """Generations, the random first one included."""
    ahead: CountOrNone = 0
    """Generations that are planned before their predecessor's results are there, so that evaluators do not wait for the slowest
    of each: they learn from those before. 1, with a population of at least the evaluators, keeps these busy."""
    regressor: Literal["gp", "ridge", "forest"] = "gp"
    """What predicts: a Gaussian process, a Bayesian linear model, or extremely randomised trees."""
    explore: Share = 0.1
    """Share of random candidates in each generation after the first."""
    optimism: NotNegative = 1.0
    """How many standard deviations of the prediction count in a candidate's favour."""
    parents: Count = 20
    """How many of the best candidates ever scored the inner evolution starts from."""
    inner_population: Count = 100
    """Children per generation of the inner evolution, and how many of the best predicted survive it."""
    inner_generations: Count = 8
    """Generations of the inner evolution, which scores by prediction alone."""
    redraws: NotNegative = 2.0
    """How many decisions a mutation redraws on average."""
    memory: Annotated[int, at_least(2)] = 1000
    """The regressor learns from the results of so many of the latest candidates: this bounds the time of a fit."""

    def __post_init__(self) -> None:
        """Raises UserError for a count that makes no search."""
        check_numbers(self)

    @property
    def generation_size(self) -> int:
        """Candidates of one generation."""
        return self.population


class PredictorEvolution(GenerationalSearch[A, PredictorConfig]):
    """Generations of the most promising candidates that an evolution inside a regressor finds.

    After each generation a regressor is fitted to the scores told so far, on the space's own features and the logarithms of
    parameters and multiply-accumulates. An inner evolution, which scores nothing, mutates and crosses the best candidates and
    keeps those of the best prediction; the best new ones are proposed (origin ``predicted``), and random ones in the places
    kept for exploration. Failures and excluded candidates teach nothing.

    Fits use one thread and are the same on machines alike; elsewhere their last digits may differ, so predictions are rounded
    before they decide.

    Arguments and errors are those of :class:`~raysearch.search.generational.GenerationalSearch`.
    """

    algorithm = "predictor"

    @staticmethod
    def defaults() -> PredictorConfig:
        """The settings of a search that names none."""
        return PredictorConfig()

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What a result must hold."""
        return ("score",)

    @property
    def ahead(self) -> int:
        """As the settings say."""
        return self.config.ahead

    @property
    def threshold(self) -> None:
        """None: the regressor learns from bad scores too."""
        return None

    def _select(self) -> None:
        self._parents = self._best_of_contenders(self.config.parents)

    def _lessons(self) -> list[tuple[tuple[float, ...], float]]:
        """Features and score of the latest results."""
        latest = range(max(0, self._known - self.config.memory), self._known)
        return [(self._features(self._ledger.arch(index)), result.score) for index, result in self._ledger.competing(latest)]

    def _features(self, arch: A) -> tuple[float, ...]:
        cost = self.problem.cost(arch)
        return *self.problem.space.features(arch), math.log(max(cost.params, 1)), math.log(max(cost.macs, 1))

    def _plan_offspring(self) -> None:
        lessons = self._lessons()
        if len(lessons) < 2:
            return
        regressor = fitted(self.config.regressor, lessons, seed=self._rng("fit").randrange(2**31))
        for arch in self._evolved(regressor)[: self.config.population - round(self.config.explore * self.config.population)]:
            self._ledger.plan(arch, generation=self._generation, origin="predicted")

    def _evolved(self, regressor: Regressor) -> list[A]:
        """New architectures of the band, those of the best prediction first."""
        parents: Sequence[A] = self.parents
        rates = redraw_rates(self.problem.space, self.config.redraws)
        promise: dict[A, float] = {}  # of new architectures only
        for inner in range(self.config.inner_generations):
            children: dict[A, None] = {}
            for i in range(self.config.inner_population):
                rng = self._rng("inner", inner, i)
                one, two = rng.choice(parents), rng.choice(parents)
                child = self.problem.space.crossover(one, two, rng) if rng.random() < 0.5 else one
                child = self.problem.space.mutate(child, rng, rates)
                if child not in promise and self._is_new(child):
                    children[child] = None
            if children:
                mean, deviation = regressor([self._features(child) for child in children])
                for child, m, d in zip(children, mean, deviation, strict=True):
                    promise[child] = round(m + self.config.optimism * d, 9)
            ranked = sorted(promise, key=lambda arch: (-promise[arch], arch.id))[: self.config.inner_population]
            promise = {arch: promise[arch] for arch in ranked}
            parents = ranked or parents
        return list(promise)
