"""NSGA-II: the whole front of two to four objectives in one search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from raysearch.bounds import Count, NotNegative, Share, check_numbers
from raysearch.search.front import SCORE_AND_PARAMS, Objective, objective_values, preference, require_objectives
from raysearch.search.generational import GenerationalSearch
from raysearch.search.settings import redraw_rates
from raysearch.space import Architecture

A = TypeVar("A", bound=Architecture)


@dataclass(frozen=True, slots=True)
class NSGA2Config:
    """Settings of :class:`NSGA2`."""

    population: Count = 50
    """Candidates per generation, and how many of the best survive it."""
    generations: Count = 20
    """Generations, the random first one included."""
    objectives: tuple[Objective, ...] = SCORE_AND_PARAMS
    """What the front weighs, of score, params, macs and latency: two to four. Of four nearly all are on the front."""
    crossover: Share = 0.9
    """Share of the children that have two parents."""
    redraws: NotNegative = 2.0
    """How many decisions of a child are redrawn on average."""
    max_tries: Count = 20
    """Children tried per candidate before a random one takes its place."""

    def __post_init__(self) -> None:
        """Raises UserError for a count that makes no search and for objectives that make no front."""
        check_numbers(self)
        require_objectives(self.objectives)

    @property
    def generation_size(self) -> int:
        """Candidates of one generation."""
        return self.population


class NSGA2(GenerationalSearch[A, NSGA2Config]):
    """Generations that spread along the front (Deb et al. 2002, NSGA-II).

    Survivors and the generation just told are sorted into fronts, ties by crowding distance; the best ``population`` survive.
    A child's parents win binary tournaments. Every candidate is inside the problem's band before it is scored, so constrained
    domination is left with those excluded for a measured latency: like failures, they never survive.

    The front itself is :func:`~raysearch.search.front.pareto_front` of all candidates: it may hold more than survive.

    Arguments and errors are those of :class:`~raysearch.search.generational.GenerationalSearch`.
    """

    algorithm = "nsga2"

    @staticmethod
    def defaults() -> NSGA2Config:
        """The settings of a search that names none."""
        return NSGA2Config()

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What a result must hold."""
        return self.config.objectives

    @property
    def threshold(self) -> None:
        """None: a candidate of low score may be the smallest."""
        return None

    def _select(self) -> None:
        import moocore

        competing = self._contenders()
        if not competing:
            return
        points = [
            objective_values(result, self.problem.cost(self._ledger.arch(index)), self.config.objectives)
            for index, result in competing
        ]
        fronts: dict[int, list[int]] = {}
        for i, rank in enumerate(moocore.pareto_rank(points).tolist()):
            fronts.setdefault(rank, []).append(i)
        key: dict[int, tuple[Any, ...]] = {}
        for rank, members in fronts.items():
            for i, distance in zip(members, crowding_distances([points[i] for i in members]), strict=True):
                index, result = competing[i]
                key[index] = (rank, -distance, preference(result, index=index))
        self._parents = sorted(key, key=key.__getitem__)[: self.config.population]

    def _plan_offspring(self) -> None:
        parents, rates, planned = self.parents, redraw_rates(self.problem.space, self.config.redraws), 0
        for attempt in range(self.config.population * self.config.max_tries):
            rng = self._rng("child", attempt)
            one, two = _tournament(parents, rng), _tournament(parents, rng)
            crossed = one != two and rng.random() < self.config.crossover
            child = self.problem.space.crossover(one, two, rng) if crossed else one
            child = self.problem.space.mutate(child, rng, rates)
            if not self._is_new(child):
                continue
            self._ledger.plan(
                child,
                generation=self._generation,
                origin="crossover" if crossed else "mutation",
                parents=(one, two) if crossed else (one,),
            )
            planned += 1
            if planned == self.config.population:
                return


def _tournament(parents: Sequence[A], rng: Random) -> A:
    """The better of two drawn from ``parents``, best first."""
    return parents[min(rng.randrange(len(parents)), rng.randrange(len(parents)))]


def crowding_distances(points: Sequence[Sequence[float]]) -> list[float]:
    """How far each point's neighbours are apart, summed over objectives in units of their range; infinite at the ends."""
    distances = [0.0] * len(points)
    for objective in range(len(points[0])):
        order = sorted(range(len(points)), key=lambda i: points[i][objective])
        low, high = points[order[0]][objective], points[order[-1]][objective]
        distances[order[0]] = distances[order[-1]] = math.inf
        if high > low:
            for before, i, after in zip(order, order[1:], order[2:], strict=False):
                distances[i] += (points[after][objective] - points[before][objective]) / (high - low)
    return distances
