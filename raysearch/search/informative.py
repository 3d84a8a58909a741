"""Scores from the items that tell networks apart: drawn where the first candidates disagree, unbiased for all items.

Subnets of one supernet agree on most items, and an item on which all agree says nothing about their order. The first
candidates, the pilots, are scored in full. Every later one is scored on items that are drawn once for all, each with its
own probability: proportional to the standard deviation of the pilots' outcomes on it (Neyman's allocation; Cochran, Sampling
Techniques, 1977, section 5.5), with a floor where they agree. Draws are independent of each other (Poisson sampling), so the
variance of an estimate has a closed form, and an unbiased estimate of its own (Särndal, Swensson and Wretman, Model Assisted
Survey Sampling, 1992, sections 3.5 and 6.3).

The estimate is the pilots' mean over all items, and what the candidate's outcomes on the drawn items, each weighted by one over
its probability, add to it (the difference estimator). It is unbiased over draws whatever the candidate answers; what the pilots
say decides only how far it varies. Two candidates are compared on the same items, so most of that cancels.

A part of the items is drawn evenly, whatever the pilots say: the audit. Where later candidates break the pilots' unanimity more
often than the pilots themselves let expect, the population has moved, and the next candidates are pilots again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped, UInt64

from raysearch.bounds import Count, at_least, check_numbers
from raysearch.search.protocol import ByItem, Failure, Result
from raysearch.statistics import Gap

FLOOR = 0.1
"""What is added to every item's standard deviation, as a share of their mean: items on which the pilots agree are drawn too."""
AUDIT = 0.1
"""Share of the items that is drawn evenly, beside those that are drawn where pilots disagree."""
DRIFT = 2.0
"""So many times the expected share of surprises shows that the population has moved."""
SURPRISES = 0.002
"""A share of surprises of so much more than expected is none: a handful of items in a thousand."""


@dataclass(frozen=True, slots=True)
class InformativeConfig:
    """Scoring on the items that tell candidates apart."""

    images: Count | None = None
    """Score candidates on about so many images of the search split, drawn where the first candidates disagree
    (docs/informative.md). Default: on all."""
    pilots: Annotated[int, at_least(2)] = 20
    """Candidates that are scored on all images first, and say where."""
    check: Count = 100
    """Candidates after which it is checked whether they still disagree where the pilots did; new pilots follow where not."""

    def __post_init__(self) -> None:
        """Raises UserError for numbers that cannot be: one pilot disagrees with nobody."""
        check_numbers(self)


def spread_of(outcomes: Sequence[ByItem]) -> Float[np.ndarray, " items"]:
    """Standard deviation of some candidates' outcomes on each item; of bits sqrt(p (1 - p))."""
    return np.std(np.asarray(outcomes, dtype=np.float64), axis=0)


def inclusion(spread: Float[np.ndarray, " items"], size: float) -> Float[np.ndarray, " items"]:
    """Probabilities of being drawn, proportional to ``spread`` and its floor, at most 1, of sum ``size``.

    All 1 where ``size`` is at least the number of items; all the same where nobody disagrees on anything.
    """
    if size >= len(spread):
        return np.ones(len(spread))
    wanted = spread + FLOOR * spread.mean() if spread.any() else np.ones(len(spread))
    certain = np.zeros(len(spread), dtype=bool)
    while True:
        scale = (size - certain.sum()) / wanted[~certain].sum()
        over = ~certain & (scale * wanted >= 1)
        if not over.any():
            return np.where(certain, 1.0, scale * wanted)
        certain |= over


def probabilities(pilots: Sequence[ByItem], *, size: int) -> Float[np.ndarray, " items"]:
    """Of each item to be among about ``size``: drawn where pilots disagree, or, a tenth of them, evenly."""
    evenly = min(1.0, AUDIT * size / len(pilots[0]))
    return 1 - (1 - inclusion(spread_of(pilots), (1 - AUDIT) * size)) * (1 - evenly)


@dataclass(frozen=True)
class Sample:
    """Items that candidates are scored on instead of all.

    Arrays are of the drawn items, in the order of the split.
    """

    items: int
    """Of the whole split."""
    index: Int64[np.ndarray, " drawn"]
    """Which were drawn."""
    probability: Float[np.ndarray, " drawn"]
    """Of being drawn."""
    expected: Float[np.ndarray, " drawn"]
    """The pilots' mean outcome."""
    mean: float
    """The pilots' mean outcome over all items."""

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def id(self) -> str:
        """Hexadecimal; names the items and their probabilities."""
        parts = (self.index.astype("<i8"), self.probability.astype("<f8"), self.expected.astype("<f8"))
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:12]

    @classmethod
    def draw(cls, pilots: Sequence[ByItem], *, size: int, stream: str) -> Sample:
        """About ``size`` items, a tenth of them evenly; ``stream`` names the chance. ``pilots``: outcomes on all items."""
        probability = probabilities(pilots, size=size)
        return cls.of(_uniform(stream, len(probability)) < probability, pilots, probability)

    @classmethod
    def of(
        cls, drawn: Bool[np.ndarray, " items"], pilots: Sequence[ByItem], probability: Float[np.ndarray, " items"]
    ) -> Sample:
        """The items that were ``drawn``, each with its ``probability``."""
        index = np.flatnonzero(drawn).astype(np.int64)
        expected = np.mean(np.asarray(pilots, dtype=np.float64), axis=0)
        return cls(len(drawn), index, probability[index], expected[index], float(expected.mean()))

    def score(self, drawn: Shaped[np.ndarray, " drawn"]) -> float:
        """Estimate of the mean outcome over all items, from the outcomes of the drawn ones; unbiased over draws."""
        residuals = drawn.astype(np.float64) - self.expected
        return self.mean + float((residuals / self.probability).sum()) / self.items

    def standard_error(self, drawn: Shaped[np.ndarray, " drawn"]) -> float:
        """Of :meth:`score` over draws of items: how far it is from the score on all items. Its square is unbiased."""
        return self._error(drawn.astype(np.float64) - self.expected)

    def gap(self, first: Shaped[np.ndarray, " drawn"], second: Shaped[np.ndarray, " drawn"]) -> Gap:
        """Score of ``first`` minus that of ``second``, as :func:`~raysearch.statistics.paired_gap` gives it from all items.

        Its standard error is that of other items of the same kind, and that of the draw among these.
        """
        difference = first.astype(np.float64) - second.astype(np.float64)
        value = float((difference / self.probability).sum()) / self.items
        squares = float((difference**2 / self.probability).sum()) / self.items
        of_items = max(0.0, squares - value**2) / max(1, self.items - 1)
        return Gap(value, math.hypot(math.sqrt(of_items), self._error(difference)))

    def draw_error(self, first: Shaped[np.ndarray, " drawn"], second: Shaped[np.ndarray, " drawn"]) -> float:
        """Standard error of the difference of two over draws: how far it is from that on all items."""
        return self._error(first.astype(np.float64) - second.astype(np.float64))

    def mean_of_part(self, values: Shaped[np.ndarray, " part"], index: Int64[np.ndarray, " part"]) -> float:
        """Weighted mean of values of some drawn items, for what needs no unbiased estimate (Hájek's)."""
        weights = 1 / self.probability[np.searchsorted(self.index, index)]
        return float((values.astype(np.float64) * weights).sum() / weights.sum())

    def _error(self, difference: Float[np.ndarray, " drawn"]) -> float:
        return math.sqrt(float(((1 - self.probability) / self.probability**2 * difference**2).sum())) / self.items


def chance(stream: str, count: int) -> UInt64[np.ndarray, " items"]:
    """Numbers of 64 bits that ``stream`` names: the same on every machine and with every version of numpy."""
    return np.frombuffer(Random(stream).randbytes(8 * count), "<u8")


def _uniform(stream: str, count: int) -> Float[np.ndarray, " items"]:
    """The same as numbers in 0..1."""
    return chance(stream, count) / 2.0**64


class Informative:
    """Which items each candidate of a search is scored on: a function of the seed and of the outcomes in the order asked.

    Args:
        config: how many.
        seed: of the draws.
        say: gets a line for what is decided.

    """

    def __init__(self, config: InformativeConfig, *, seed: int, say: Callable[[str], None] = lambda _: None) -> None:
        self.config, self.seed, self._say = config, seed, say
        self.sample: Sample | None = None
        """What candidates that are asked for now are scored on; None: on all items."""
        self.samples: dict[str, Sample] = {}
        """All that there were, by their ids."""
        self._next_hold = config.pilots
        """How many candidates are asked for before all of them must be told."""
        self._pilots: list[ByItem] = []
        self._unanimous: Bool[np.ndarray, " drawn"] | None = None
        self._surprises: list[float] = []
        self._expected = 0.0

    def holds(self, asked: int, told: int) -> bool:
        """Whether the next candidate must wait until all that were asked for are told."""
        return asked >= self._next_hold and told < asked

    def tell(self, outcome: Result | Failure) -> None:
        """The outcome of the next candidate, in the order asked."""
        if isinstance(outcome, Failure) or outcome.excluded == "raced":
            return
        if outcome.sample is None:
            if self.sample is None:
                self._pilots.append(outcome.by_item(outcome.items_seen))
        elif self.sample is not None and outcome.sample == self.sample.id and self._unanimous is not None:
            drawn = outcome.by_item(self.sample.items)[self.sample.index].astype(np.float64)
            # Of all items a share: each drawn one stands for one over its probability.
            odd = (drawn != self.sample.expected) & self._unanimous
            self._surprises.append(float((odd / self.sample.probability).sum()) / self.sample.items)

    def settle(self, asked: int) -> None:
        """Decide what comes next; called when all that were asked for are told."""
        if asked < self._next_hold:
            return
        if self.sample is None:
            if len(self._pilots) < 2:  # most failed
                self._next_hold = asked + self.config.pilots
                return
            self._draw()
        elif self._moved():
            self._say(
                f"candidates now disagree on other images than the first did ({np.mean(self._surprises):.2%} of their answers "
                f"are new, {self._expected:.2%} were expected): the next {self.config.pilots} are scored on all images"
            )
            self.sample, self._pilots, self._next_hold = None, [], asked + self.config.pilots
            return
        self._surprises = []
        self._next_hold = asked + self.config.check

    def _draw(self) -> None:
        assert self.config.images is not None
        stream = f"{self.seed}/informative/{len(self.samples)}"
        self.sample = Sample.draw(self._pilots, size=self.config.images, stream=stream)
        self.samples[self.sample.id] = self.sample
        spread, drawn = spread_of(self._pilots), [pilot[self.sample.index] for pilot in self._pilots]
        self._unanimous = spread[self.sample.index] == 0
        self._expected = surprises_expected(self._pilots)
        errors = [self.sample.draw_error(drawn[0], other) for other in drawn[1:]]
        error = float(np.median(errors))
        self._say(
            f"{len(self._pilots)} candidates answer {np.mean(spread > 0):.1%} of {len(spread):,} images differently: "
            f"further ones are scored on {len(self.sample):,} (standard error of a difference between two: {error:.4f})"
        )

    def _moved(self) -> bool:
        return bool(self._surprises) and float(np.mean(self._surprises)) > DRIFT * self._expected + SURPRISES


def surprises_expected(pilots: Sequence[ByItem]) -> float:
    """Share of items on which one more candidate of the same kind breaks the unanimity of ``pilots``.

    By the rule of Good (1953) and Turing for what was never seen: the items on which exactly one pilot stood alone, divided by
    the pilots. Of numbers, which never agree, there is no unanimity, and 0 is returned.
    """
    outcomes = np.asarray(pilots)
    if outcomes.dtype != bool:
        return 0.0
    right = outcomes.sum(axis=0)
    alone = (right == 1) | (right == len(outcomes) - 1)
    return float(alone.mean()) / len(outcomes)
