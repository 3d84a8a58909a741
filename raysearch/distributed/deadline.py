"""How long a candidate may be scored until its evaluator is taken for one that hangs."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass

from raysearch.bounds import Positive, check_numbers


@dataclass(frozen=True, slots=True)
class DeadlineConfig:
    """When an evaluator that does not come back from a candidate is ended and replaced (docs/reliability.md)."""

    medians: Positive = 20.0
    """After so many times the median time of the candidates that were scored in full."""
    minutes: Positive = 10.0
    """But not before so many minutes."""

    def __post_init__(self) -> None:
        """Raises UserError for numbers that cannot be."""
        check_numbers(self)


class Deadlines:
    """Times of scored candidates by split, and what follows for those that are being scored."""

    def __init__(self, config: DeadlineConfig) -> None:
        self.config = config
        self._seconds: dict[str, list[float]] = {}

    def took(self, split: str, seconds: float) -> None:
        """A candidate was scored on all images of a split in so many seconds."""
        insort(self._seconds.setdefault(split, []), seconds)

    def median(self, split: str) -> float | None:
        """Seconds that a candidate takes; None before one is scored: splits have unequal numbers of images."""
        times = self._seconds.get(split)
        return times[len(times) // 2] if times else None

    def limit(self, split: str) -> float | None:
        """Seconds that a candidate may take; None: as many as it wants, as nobody knows what is usual."""
        median = self.median(split)
        return None if median is None else max(self.config.medians * median, 60 * self.config.minutes)


class OverdueError(Exception):
    """An evaluator takes longer than it may."""
