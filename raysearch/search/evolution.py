"""Evolution as AutoFormer publishes it: mutation and crossover of the ten best subnets ever seen."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, Literal, TypeVar

from raysearch.search.front import preference
from raysearch.search.ledger import Ledger
from raysearch.search.problem import SearchProblem
from raysearch.search.protocol import Direction, Failure, Proposal, Result, SearchAlgorithm
from raysearch.search.settings import checked_initial, require_at_least, require_same_settings, search_settings
from raysearch.space import Architecture, MutationRates

A = TypeVar("A", bound=Architecture)


@dataclass(frozen=True, slots=True)
class EvolutionConfig:
    """Settings of :class:`Evolution`; the defaults are the published ones."""

    population: int = 50
    """Candidates per generation."""
    generations: int = 20
    """Generations, the random first one included."""
    parents: int = 10
    """How many of the best candidates ever seen have offspring."""
    mutations: int = 25
    """Candidates per generation made by mutation."""
    crossovers: int = 25
    """Candidates per generation made by crossover."""
    rates: Literal["code", "paper"] = "code"
    """Mutation probabilities of the published code (depth and embed_dim 0.4, blocks 0.2) or of its paper (0.2 and 0.4)."""
    max_tries: int = 10
    """Attempts per mutation and per crossover, on average, before random candidates take the places that are left."""

    def __post_init__(self) -> None:
        """Raises ValueError for a count that makes no search."""
        require_at_least(self, 1, "population", "generations", "parents", "max_tries")
        require_at_least(self, 0, "mutations", "crossovers")
        if self.mutations + self.crossovers > self.population:
            raise ValueError(
                f"{self.mutations} mutations and {self.crossovers} crossovers do not fit into a population of {self.population}"
            )

    @property
    def mutation_rates(self) -> MutationRates:
        """The probabilities that :attr:`rates` names."""
        return MutationRates.published_code() if self.rates == "code" else MutationRates.published_paper()


class Evolution(SearchAlgorithm, Generic[A]):
    """Generations of subnets, each made from the best ever seen (AutoFormer section 3.4 and its code).

    A generation holds mutations of random parents, crossovers of random pairs of parents of equal depth (of any depth where no
    two are equal), and random candidates in the places that are left. Every candidate is new and inside the band. A generation
    is planned when the last outcome of the one before is told; until then :meth:`ask` returns None. All generations are ranked,
    the last one too. A space that holds fewer subnets than asked for ends the search early.

    Args:
        problem: the space and its budget.
        config: sizes and rates.
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
        config: EvolutionConfig | None = None,
        *,
        seed: int,
        direction: Direction = "max",
        initial: Sequence[A] = (),
    ) -> None:
        problem.check()
        self.problem = problem
        self.config = config or EvolutionConfig()
        self.seed = seed
        self.direction: Direction = direction
        self.initial = checked_initial(initial, problem, places=self.config.population)
        self._ledger = Ledger(problem.space.architecture)
        self._generation = 0
        self._start = 0  # index of the generation's first candidate
        self._parents: list[int] = []  # indices of the best ever, best first
        self._plan_first()

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
                self._plan_next()

    def proposal(self, arch: Architecture) -> Proposal:
        """Where an asked candidate comes from. Raises KeyError for one that was never asked."""
        return self._ledger.proposal(arch)

    @property
    def threshold(self) -> A | None:
        """The last of the parents: what is worse than it has no offspring. None while there are fewer parents than wanted."""
        return self._ledger.arch(self._parents[-1]) if len(self._parents) == self.config.parents else None

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
        """The best candidates of all generations that are told completely, best first; never failures and excluded ones."""
        return tuple(self._ledger.arch(i) for i in self._parents)

    def state_dict(self) -> dict[str, Any]:
        """Settings, candidates and outcomes as JSON values."""
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

    def _settings(self) -> dict[str, Any]:
        return search_settings(
            "evolution", self.config, self.problem, seed=self.seed, initial=self.initial, direction=self.direction
        )

    # --- a generation ---

    def _rng(self, purpose: str, i: int) -> Random:
        return Random(f"{self.seed}/{purpose}/{self._generation}/{i}")

    def _rank(self) -> None:
        """Let the generation just told compete with the parents so far."""
        ranked: list[tuple[tuple[float, float, int, int], int]] = []
        for index in itertools.chain(self._parents, range(self._start, len(self._ledger))):
            outcome = self._ledger.outcome(index)
            if isinstance(outcome, Result) and outcome.excluded is None:
                ranked.append((preference(outcome, index=index, direction=self.direction), index))
        self._parents = [index for _, index in heapq.nsmallest(self.config.parents, ranked)]

    def _plan_first(self) -> None:
        for arch in self.initial:
            self._ledger.plan(arch, generation=0, origin="seed")
        self._fill()

    def _plan_next(self) -> None:
        self._generation += 1
        self._start = len(self._ledger)
        self._plan_mutations()
        self._plan_crossovers()
        self._fill()

    def _is_new(self, arch: A) -> bool:
        return arch not in self._ledger and self.problem.in_band(arch)

    def _plan_mutations(self) -> None:
        parents, rates = self.parents, self.config.mutation_rates
        if not parents:
            return
        planned = 0
        for attempt in range(self.config.mutations * self.config.max_tries):
            rng = self._rng("mutation", attempt)
            parent = rng.choice(parents)
            child = self.problem.space.mutate(parent, rng, rates)
            if self._is_new(child):
                self._ledger.plan(child, generation=self._generation, origin="mutation", parents=(parent,))
                planned += 1
                if planned == self.config.mutations:
                    return

    def _plan_crossovers(self) -> None:
        # The published code draws pairs until their depths agree, at most 50 times. A draw among the pairs that agree has the
        # same distribution and needs no limit. Pairs of one parent with itself are left out: their child is never new.
        pairs = list(itertools.combinations(self.parents, 2))
        pairs = [pair for pair in pairs if _depth(pair[0]) == _depth(pair[1])] or pairs
        if not pairs:
            return
        planned = 0
        for attempt in range(self.config.crossovers * self.config.max_tries):
            rng = self._rng("crossover", attempt)
            one, two = rng.choice(pairs)
            child = self.problem.space.crossover(one, two, rng)
            if self._is_new(child):
                self._ledger.plan(child, generation=self._generation, origin="crossover", parents=(one, two))
                planned += 1
                if planned == self.config.crossovers:
                    return

    def _fill(self) -> None:
        """Random candidates until the generation is whole or the band is used up."""
        for i in range(self.config.population - (len(self._ledger) - self._start)):
            arch = self.problem.sample(self._rng("random", i), self._ledger)
            if arch is None:
                return
            self._ledger.plan(arch, generation=self._generation, origin="random")


def _depth(arch: Architecture) -> Any:
    """Number of blocks, or numbers per stage; None for a space without blocks."""
    return getattr(arch, "depth", None)
