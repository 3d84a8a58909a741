"""Evolution as Chen et al. (ICCV 2021) publish it: mutation and crossover of the ten best subnets ever seen."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from raysearch.bounds import Count, CountOrNone, check_numbers
from raysearch.errors import UserError
from raysearch.search.front import Objective
from raysearch.search.generational import GenerationalSearch
from raysearch.space import Architecture, MutationRates

A = TypeVar("A", bound=Architecture)


@dataclass(frozen=True, slots=True)
class EvolutionConfig:
    """Settings of :class:`Evolution`; the defaults are the published ones."""

    population: Count = 50
    """Candidates per generation."""
    generations: Count = 20
    """Generations, the random first one included."""
    parents: Count = 10
    """How many of the best candidates ever seen have offspring."""
    mutations: CountOrNone | None = None
    """Candidates per generation made by mutation; half of the population when not given."""
    crossovers: CountOrNone | None = None
    """Candidates per generation made by crossover; the other half when not given."""
    rates: Literal["code", "paper"] = "code"
    """Mutation probabilities of the published code (depth and net 0.4, blocks 0.2) or of its paper (0.2 and 0.4)."""
    max_tries: Count = 10
    """Attempts per mutation and per crossover, on average, before random candidates take the places that are left."""

    def __post_init__(self) -> None:
        """Raises UserError for a count that makes no search."""
        check_numbers(self)
        mutations, crossovers = self.shares
        if mutations + crossovers > self.population:
            raise UserError(
                f"{mutations} mutations and {crossovers} crossovers do not fit into a population of {self.population}"
            )

    @property
    def generation_size(self) -> int:
        """Candidates of one generation."""
        return self.population

    @property
    def shares(self) -> tuple[int, int]:
        """Mutations and crossovers per generation."""
        half = self.population // 2
        mutations = half if self.mutations is None else self.mutations
        return mutations, self.population - half if self.crossovers is None else self.crossovers

    @property
    def mutation_rates(self) -> MutationRates:
        """The probabilities that :attr:`rates` names."""
        return MutationRates.published_code() if self.rates == "code" else MutationRates.published_paper()


class Evolution(GenerationalSearch[A, EvolutionConfig]):
    """Generations of subnets, each made from the best ever seen (Chen et al., ICCV 2021, section 3.4, and their code).

    A generation holds mutations of random parents, crossovers of random pairs of parents of equal depth (of any depth where no
    two are equal), and random candidates in the places that are left. Every candidate is new and inside the band. All
    generations are ranked, the last one too.

    Arguments and errors are those of :class:`~raysearch.search.generational.GenerationalSearch`.
    """

    algorithm = "evolution"

    @staticmethod
    def defaults() -> EvolutionConfig:
        """The settings of a search that names none."""
        return EvolutionConfig()

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What a result must hold."""
        return ("score",)

    @property
    def threshold(self) -> A | None:
        """The last of the parents: what is worse than it has no offspring. None while there are fewer parents than wanted."""
        return self._ledger.arch(self._parents[-1]) if len(self._parents) == self.config.parents else None

    def _select(self) -> None:
        self._parents = self._best_of_contenders(self.config.parents)

    def _plan_offspring(self) -> None:
        mutations, crossovers = self.config.shares
        self._plan_mutations(mutations)
        self._plan_crossovers(crossovers)

    def _plan_mutations(self, count: int) -> None:
        parents, rates = self.parents, self.config.mutation_rates
        planned = 0
        for attempt in range(count * self.config.max_tries):
            rng = self._rng("mutation", attempt)
            parent = rng.choice(parents)
            child = self.problem.space.mutate(parent, rng, rates)
            if self._is_new(child):
                self._ledger.plan(child, generation=self._generation, origin="mutation", parents=(parent,))
                planned += 1
                if planned == count:
                    return

    def _plan_crossovers(self, count: int) -> None:
        # The published code draws pairs until their depths agree, at most 50 times. A draw among the pairs that agree has the
        # same distribution and needs no limit. Pairs of one parent with itself are left out: their child is never new.
        pairs = list(itertools.combinations(self.parents, 2))
        pairs = [pair for pair in pairs if _depth(pair[0]) == _depth(pair[1])] or pairs
        if not pairs:
            return
        planned = 0
        for attempt in range(count * self.config.max_tries):
            rng = self._rng("crossover", attempt)
            one, two = rng.choice(pairs)
            child = self.problem.space.crossover(one, two, rng)
            if self._is_new(child):
                self._ledger.plan(child, generation=self._generation, origin="crossover", parents=(one, two))
                planned += 1
                if planned == count:
                    return


def _depth(arch: Architecture) -> Any:
    """Number of blocks, or numbers per stage; None for a space without blocks."""
    return getattr(arch, "depth", None)
