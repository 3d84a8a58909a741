"""What is searched: a space, the cost of its members and the budget that they must keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator
from itertools import islice
from random import Random
from typing import Any, Generic, TypeVar

from raysearch.errors import UserError
from raysearch.space.architecture import Architecture
from raysearch.space.choice import MutationRates
from raysearch.space.cost import Constraint, Cost
from raysearch.space.search_space import SearchSpace

A = TypeVar("A", bound=Architecture)

ENUMERABLE = 20_000
"""Spaces of at most so many members are listed where chance finds nothing: what is left is then known exactly."""

_DRAWS = 300
_DRAWS_ENUMERABLE = 100
_WALKS = 4
_STEPS = 2_000
_REMEMBERED = 32_768


class InfeasibleError(UserError):
    """No subnet of the space was found inside the band. The message says what the space offers instead."""


class SearchProblem(Generic[A]):
    """The members of ``space`` whose cost keeps ``constraint``.

    Args:
        space: where architectures are drawn from.
        cost: closed form, the same value at every call. Values are remembered, so it is called once per architecture.
        constraint: the inclusive limits.

    Raises:
        UserError: a lower limit is above the upper one.

    """

    def __init__(self, space: SearchSpace[A], cost: Callable[[A], Cost], constraint: Constraint) -> None:
        constraint.check_band()
        self.space = space
        self.constraint = constraint
        self.size = space.size()
        self._cost = cost
        self._costs: dict[A, Cost] = {}
        self._feasible: list[A] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What travels to another process: not what was remembered, which can be much and is found there again."""
        return {**self.__dict__, "_costs": {}, "_feasible": None}

    def cost(self, arch: A) -> Cost:
        """Parameters and multiply-accumulates of ``arch``, and its predicted latency where there is a table."""
        known = self._costs.get(arch)
        if known is None:
            known = self._cost(arch)
            if len(self._costs) >= _REMEMBERED:
                self._costs.clear()
            self._costs[arch] = known
        return known

    def in_band(self, arch: A) -> bool:
        """Whether a member of the space keeps the constraint."""
        return self.constraint.admits(self.cost(arch))

    def admits(self, arch: A) -> bool:
        """Whether ``arch`` is a member of the space and keeps the constraint."""
        return self.space.contains(arch) and self.in_band(arch)

    def sample(self, rng: Random, exclude: Container[A] = ()) -> A | None:
        """A random architecture in the band that is not in ``exclude``; None when none is left.

        Draws from the space until one fits, so that its distribution is the space's own within the band. Where that fails, a
        space of at most :data:`ENUMERABLE` members is listed and the answer is exact; in a larger one, walks of mutations go
        towards the band, and None means that they did not find one.
        """
        enumerable = self.size <= ENUMERABLE
        closest: A | None = None
        least = math.inf
        for _ in range(_DRAWS_ENUMERABLE if enumerable else _DRAWS):
            arch = self.space.sample(rng)
            distance = self._distance(arch)
            if distance == 0 and arch not in exclude:
                return arch
            if distance < least:
                closest, least = arch, distance
        if enumerable:
            left = [arch for arch in self._members() if arch not in exclude]
            return rng.choice(left) if left else None
        assert closest is not None
        for start in islice(self._starts(closest, rng), _WALKS):
            found = self._walk(start, rng, exclude)
            if found is not None:
                return found
        return None

    def check(self) -> None:
        """Raises InfeasibleError when no subnet of the band can be found; costs nothing worth mentioning when one is."""
        if self.in_band(self.space.smallest()) or self.in_band(self.space.largest()):
            return
        if self.sample(Random("feasibility")) is None:
            raise InfeasibleError(self._shortfall())

    def _distance(self, arch: A) -> float:
        return self.constraint.distance(self.cost(arch))

    def _members(self) -> list[A]:
        """Every architecture of the band, for an enumerable space."""
        if self._feasible is None:
            self._feasible = [arch for arch in self.space if self.in_band(arch)]
        return self._feasible

    def _starts(self, closest: A, rng: Random) -> Iterator[A]:
        """Where walks begin: the closest draw, the two ends of the space, then anywhere."""
        yield closest
        yield self.space.smallest()
        yield self.space.largest()
        while True:
            yield self.space.sample(rng)

    def _walk(self, arch: A, rng: Random, exclude: Container[A]) -> A | None:
        """Mutate towards the band and, once there, within it until an architecture is new.

        Steps are of mixed size: large ones leave a plateau, small ones change the single value that is still wrong.
        """
        distance = self._distance(arch)
        for _ in range(_STEPS):
            rate = rng.choice((0.02, 0.05, 0.2))
            step = self.space.mutate(arch, rng, MutationRates(depth=rate, net=rate, block=rate))
            reached = self._distance(step)
            if reached <= distance:
                arch, distance = step, reached
            if distance == 0 and arch not in exclude:
                return arch
        return None

    def _shortfall(self) -> str:
        """The band asked, what the space offers and the nearest subnets among all that were tried, on one line."""
        tried = [*self._costs.values()]
        limit = self.constraint
        params, macs = [c.params for c in tried], [c.macs for c in tried]
        times = [] if limit.max_latency_ms is None else [c.latency_ms for c in tried if c.latency_ms is not None]
        above = [c for c in tried if limit.exceeded_by(c)]
        larger = set(above)
        below = [c for c in tried if c not in larger]
        nearest = " and ".join(
            f"{_described(min(costs, key=limit.distance), latency=bool(times))} ({side})"
            for side, costs in (("below", below), ("above", above))
            if costs
        )
        found = "has no subnet" if self.size <= ENUMERABLE else "shows no subnet"
        offers = [f"{min(params):,} to {max(params):,} params", f"{min(macs):,} to {max(macs):,} MACs"]
        if times:
            offers.append(f"{min(times):.3g} to {max(times):.3g} ms (predicted)")
        return (
            f"the space {found} with {limit}: it offers {', '.join(offers[:-1])} and {offers[-1]}; nearest {nearest}. "
            "Widen the band or change the space"
        )


def _described(cost: Cost, *, latency: bool) -> str:
    time = f" and {cost.latency_ms:.3g} ms" if latency and cost.latency_ms is not None else ""
    return f"{cost.params:,} params with {cost.macs:,} MACs{time}"
