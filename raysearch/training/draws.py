"""Where the architectures of a training come from: a search space, the part that keeps a budget, or strata of MACs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Generic, Protocol, TypeVar

from raysearch.errors import UserError
from raysearch.space import Architecture, Cost, SearchProblem, SearchSpace

A = TypeVar("A", bound=Architecture)
A_co = TypeVar("A_co", bound=Architecture, covariant=True)

SAMPLED = 256
"""Architectures whose MACs decide where strata begin."""
TRIES = 50
"""Draws per stratum before a stratum that none of them hit gets the nearest."""
RETRIES = 5
"""How often a draw from the band is repeated that found nothing."""


class Draws(Protocol[A_co]):
    """Where the architecture of each step comes from: a search space, a :class:`Band` or an :class:`Only`."""

    def sample(self, rng: Random) -> A_co:
        """An architecture, a function of the generator's state."""
        ...

    def largest(self) -> A_co:
        """The one that holds all others."""
        ...

    def smallest(self) -> A_co:
        """The one that all others hold."""
        ...

    def widened(self, share: float) -> Draws[A_co]:
        """The part near the largest, with a share (0 to 1) of each choice's options."""
        ...


@dataclass(frozen=True, slots=True)
class Only(Generic[A]):
    """Draws the same architecture for every step."""

    arch: A

    def sample(self, rng: Random) -> A:
        """The architecture, whatever the generator."""
        return self.arch

    def largest(self) -> A:
        """The architecture."""
        return self.arch

    def smallest(self) -> A:
        """The architecture."""
        return self.arch

    def widened(self, share: float) -> Only[A]:
        """The same."""
        return self


@dataclass(frozen=True)
class Band(Generic[A]):
    """Draws from the members of a space that keep a budget, with the space's own distribution within it.

    Largest and smallest are the whole space's: what they teach, and the widening, is of all weights.
    """

    problem: SearchProblem[A]

    def sample(self, rng: Random) -> A:
        """An architecture of the band. Raises UserError when none is found."""
        for _ in range(RETRIES):
            if (found := self.problem.sample(rng)) is not None:
                return found
        raise UserError(
            f"no subnet with {self.problem.constraint} was found to train; widen the budget, or give --train.draw-from space"
        )

    def largest(self) -> A:
        """Of the space."""
        return self.problem.space.largest()

    def smallest(self) -> A:
        """Of the space."""
        return self.problem.space.smallest()

    def widened(self, share: float) -> SearchSpace[A]:
        """Of the space: the budget may leave nothing of a part near the largest."""
        return self.problem.space.widened(share)


class Strata(Generic[A]):
    """Draws one architecture from each of several strata: of equal probability, ordered by multiply-accumulates.

    Where they begin are quantiles of a fixed sample of the draws, so they are the same in every process and after a resume.

    Args:
        draws: what is divided.
        count: strata.
        cost: closed form.
        seed: of the training.

    """

    def __init__(self, draws: Draws[A], count: int, *, cost: Callable[[A], Cost], seed: int) -> None:
        self._draws, self._count, self._cost = draws, count, cost
        macs = sorted(cost(draws.sample(Random(f"{seed}/strata/{i}"))).macs for i in range(SAMPLED))
        self._bounds = [macs[SAMPLED * i // count] for i in range(1, count)]

    def sample(self, rng: Random) -> list[A]:
        """One architecture per stratum, from few MACs to many.

        Draws until every stratum was hit, and takes the first in each. Of one that :data:`TRIES` draws per stratum did not hit,
        as where all members cost the same, the draw with the nearest MACs.
        """
        first: dict[int, A] = {}
        drawn: list[tuple[int, A]] = []
        while len(first) < self._count and len(drawn) < TRIES * self._count:
            arch = self._draws.sample(rng)
            macs = self._cost(arch).macs
            drawn.append((macs, arch))
            first.setdefault(bisect_right(self._bounds, macs), arch)
        return [first[i] if i in first else self._nearest(i, drawn) for i in range(self._count)]

    def _nearest(self, stratum: int, drawn: list[tuple[int, A]]) -> A:
        low = self._bounds[max(0, stratum - 1)]
        high = self._bounds[min(stratum, self._count - 2)]
        return min(drawn, key=lambda pair: max(low - pair[0], pair[0] - high, 0))[1]
