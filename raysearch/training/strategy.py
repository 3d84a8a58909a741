"""What a step trains: which architectures, each on which of its images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Generic, TypeVar

from raysearch.space import Architecture, Cost
from raysearch.training.config import TrainingConfig
from raysearch.training.draws import Draws, Strata

A = TypeVar("A", bound=Architecture)

LEVELS = 100
"""Steps in which choices widen at most."""


@dataclass(frozen=True, slots=True)
class Pass(Generic[A]):
    """One architecture's part of a step."""

    arch: A
    rows: range
    """Images of the step that it sees."""


class Strategy(Generic[A]):
    """The passes of each step, a function of seed, step and, where ranks draw for themselves, rank.

    Args:
        draws: where random architectures come from.
        config: names the strategy and its schedule.
        seed: of the training.
        rank: of this process.
        cost: closed form; needed by ``multi`` alone.

    """

    def __init__(
        self, draws: Draws[A], config: TrainingConfig, *, seed: int, rank: int, cost: Callable[[A], Cost] | None
    ) -> None:
        self.draws, self._config, self._seed, self._rank, self._cost = draws, config, seed, rank, cost
        self._widened: dict[int, Draws[A]] = {}
        self._strata: tuple[Draws[A], Strata[A]] | None = None

    def passes(self, step: int, *, of: int, images: int) -> list[Pass[A]]:
        """What step ``step`` of ``of`` (0-based) trains on so many images. In a sandwich the largest comes first."""
        draws, done, whole = self.draws, step / of, range(images)
        if done < self._config.largest_first:
            return [Pass(draws.largest(), whole)]
        if done < self._config.largest_first + self._config.widen:
            draws = self._near_largest((done - self._config.largest_first) / self._config.widen)
        count = self._config.archs_per_step
        if self._config.strategy == "multi":
            count = min(count, images)
            parts = [images * k // count for k in range(count + 1)]
            archs = self._strata_of(draws, count).sample(self._chance(step, 0))
            return [Pass(arch, range(start, end)) for arch, start, end in zip(archs, parts, parts[1:], strict=False)]
        drawn = [Pass(draws.sample(self._chance(step, k)), whole) for k in range(count)]
        if self._config.strategy == "sandwich":
            return [Pass(draws.largest(), whole), *drawn, Pass(draws.smallest(), whole)]
        return drawn

    def _chance(self, step: int, k: int) -> Random:
        own = f"/{self._rank}" if self._config.arch_per_rank else ""
        return Random(f"{self._seed}/train/{step}/{k}{own}")

    def _near_largest(self, share: float) -> Draws[A]:
        level = math.ceil(share * LEVELS)
        if level not in self._widened:
            self._widened = {level: self.draws.widened(level / LEVELS)}
        return self._widened[level]

    def _strata_of(self, draws: Draws[A], count: int) -> Strata[A]:
        assert self._cost is not None, "strata of MACs need the cost of an architecture"
        if self._strata is None or self._strata[0] != draws:  # equal declarations are equal spaces
            self._strata = draws, Strata(draws, count, cost=self._cost, seed=self._seed)
        return self._strata[1]
