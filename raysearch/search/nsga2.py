"""NSGA-II: the whole front of two or three objectives in one search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, TypeVar

from raysearch.search.front import SCORE_AND_PARAMS, Objective, objective_values, preference, require_objectives
from raysearch.search.ledger import Ledger
from raysearch.search.problem import SearchProblem
from raysearch.search.protocol import Direction, Failure, Proposal, Result, SearchAlgorithm
from raysearch.search.settings import checked_initial, redraw_rates, require_at_least, require_same_settings, search_settings
from raysearch.space import Architecture

A = TypeVar("A", bound=Architecture)


@dataclass(frozen=True, slots=True)
class NSGA2Config:
    """Settings of :class:`NSGA2`."""

    population: int = 50
    """Candidates per generation, and how many of the best survive it."""
    generations: int = 20
    """Generations, the random first one included."""
    objectives: tuple[Objective, ...] = SCORE_AND_PARAMS
    """What the front weighs, of score, params, macs and latency; two or three."""
    crossover: float = 0.9
    """Share of the children that have two parents."""
    redraws: float = 2.0
    """How many decisions of a child are redrawn on average."""
    max_tries: int = 20
    """Children tried per candidate before a random one takes its place."""

    def __post_init__(self) -> None:
        """Raises ValueError for a count that makes no search and for objectives that make no front."""
        require_at_least(self, 1, "population", "generations", "max_tries")
        require_at_least(self, 0, "redraws")
        if not 0 <= self.crossover <= 1:
            raise ValueError(f"crossover is {self.crossover}; it is a share of 0 to 1")
        require_objectives(self.objectives)


class NSGA2(SearchAlgorithm, Generic[A]):
    """Generations that spread along the front (Deb et al. 2002, NSGA-II).

    Survivors and the generation just told are sorted into fronts, ties by crowding distance; the best ``population`` survive.
    A child's parents win binary tournaments. Every candidate is inside the problem's band before it is scored, so constrained
    domination is left with those excluded for a measured latency: like failures, they never survive.

    A generation is planned when the last outcome of the one before is told; until then :meth:`ask` returns None. A space that
    holds fewer subnets than asked for ends the search early. The front itself is
    :func:`~raysearch.search.front.pareto_front` of all candidates: it may hold more than survive.

    Args:
        problem: the space and its budget.
        config: sizes and objectives.
        seed: with the outcomes, decides every candidate.
        direction: whether a higher or a lower score is better.
        initial: architectures that open the first generation, as an earlier search's front.

    Raises:
        InfeasibleError: no subnet of the band can be found.
        ValueError: an initial architecture is outside the space or the band, or there are more than a generation holds.

    """

    def __init__(
        self,
        problem: SearchProblem[A],
        config: NSGA2Config | None = None,
        *,
        seed: int,
        direction: Direction = "max",
        initial: Sequence[A] = (),
    ) -> None:
        problem.check()
        self.problem = problem
        self.config = config or NSGA2Config()
        self.seed = seed
        self.direction: Direction = direction
        self.initial = checked_initial(initial, problem, places=self.config.population)
        self._rates = redraw_rates(problem.space, self.config.redraws)
        self._ledger = Ledger(problem.space.architecture)
        self._generation = 0
        self._start = 0  # index of the generation's first candidate
        self._survivors: list[int] = []  # indices, best first
        for arch in self.initial:
            self._ledger.plan(arch, generation=0, origin="seed")
        self._fill()

    # --- the protocol ---

    def ask(self) -> A | None:
        """The next candidate; None until the whole generation is told, and when :attr:`finished`."""
        return self._ledger.ask()

    def tell(self, arch: Architecture, outcome: Result | Failure) -> None:
        """The outcome of an asked candidate, in any order within a generation.

        Raises ValueError for any other, and for a result without a latency where that is an objective.
        """
        if isinstance(outcome, Result) and outcome.excluded is None:
            # Not of this candidate: one without a prediction is of a problem without predictions.
            cost = self.problem.cost(self._ledger.arch(0))
            objective_values(outcome, cost, self.config.objectives, self.direction)
        self._ledger.tell(arch, outcome)
        if self._ledger.settled:
            self._select()
            if self._generation + 1 < self.config.generations:
                self._generation += 1
                self._start = len(self._ledger)
                self._plan_children()
                self._fill()

    def proposal(self, arch: Architecture) -> Proposal:
        """Where an asked candidate comes from. Raises KeyError for one that was never asked."""
        return self._ledger.proposal(arch)

    @property
    def threshold(self) -> None:
        """None: a candidate of low score may be the smallest."""
        return None

    @property
    def finished(self) -> bool:
        """True when all generations are told, or the space has nothing new to offer."""
        return self._ledger.settled

    @property
    def total(self) -> int:
        """How many candidates the search asks at most."""
        return min(self.config.population * self.config.generations, self.problem.size)

    @property
    def survivors(self) -> tuple[A, ...]:
        """Those of whom the next generation is made: by front, then least crowded first."""
        return tuple(self._ledger.arch(i) for i in self._survivors)

    def state_dict(self) -> dict[str, Any]:
        """Settings, candidates and outcomes as JSON values."""
        return {
            "settings": self._settings(),
            "generation": self._generation,
            "start": self._start,
            "survivors": list(self._survivors),
            **self._ledger.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken. Raises ValueError when it comes from a search of other settings."""
        require_same_settings(self._settings(), state["settings"])
        self._ledger = Ledger.from_state_dict(self.problem.space.architecture, state)
        self._generation = state["generation"]
        self._start = state["start"]
        self._survivors = list(state["survivors"])

    def _settings(self) -> dict[str, Any]:
        return search_settings(
            "nsga2", self.config, self.problem, seed=self.seed, initial=self.initial, direction=self.direction
        )

    # --- a generation ---

    def _select(self) -> None:
        """Let the generation just told compete with the survivors so far."""
        import moocore

        competing: list[tuple[int, Result]] = []
        for index in (*self._survivors, *range(self._start, len(self._ledger))):
            outcome = self._ledger.outcome(index)
            if isinstance(outcome, Result) and outcome.excluded is None:
                competing.append((index, outcome))
        if not competing:
            return
        points = [
            objective_values(result, self.problem.cost(self._ledger.arch(index)), self.config.objectives, self.direction)
            for index, result in competing
        ]
        fronts: dict[int, list[int]] = {}
        for i, rank in enumerate(moocore.pareto_rank(points).tolist()):
            fronts.setdefault(rank, []).append(i)
        key: dict[int, tuple[Any, ...]] = {}
        for rank, members in fronts.items():
            for i, distance in zip(members, crowding_distances([points[i] for i in members]), strict=True):
                index, result = competing[i]
                key[index] = (rank, -distance, preference(result, index=index, direction=self.direction))
        self._survivors = sorted(key, key=key.__getitem__)[: self.config.population]

    def _plan_children(self) -> None:
        if not self._survivors:
            return
        parents, planned = self.survivors, 0
        for attempt in range(self.config.population * self.config.max_tries):
            rng = Random(f"{self.seed}/child/{self._generation}/{attempt}")
            one, two = _tournament(parents, rng), _tournament(parents, rng)
            crossed = one != two and rng.random() < self.config.crossover
            child = self.problem.space.crossover(one, two, rng) if crossed else one
            child = self.problem.space.mutate(child, rng, self._rates)
            if child in self._ledger or not self.problem.in_band(child):
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

    def _fill(self) -> None:
        """Random candidates until the generation is whole or the band is used up."""
        for i in range(self.config.population - (len(self._ledger) - self._start)):
            arch = self.problem.sample(Random(f"{self.seed}/random/{self._generation}/{i}"), self._ledger)
            if arch is None:
                return
            self._ledger.plan(arch, generation=self._generation, origin="random")


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
