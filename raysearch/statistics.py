"""How sure a number is: bootstrap intervals, rank correlation of two measurements, and paired differences of two networks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from raysearch.errors import UserError

RESAMPLES = 2_000
"""Bootstrap resamples: enough for two digits of an interval's ends."""
FLIPS = 9_999
"""Most random signs of a paired test for each item. A p-value is a multiple of one over so many and one."""
FLIPS_OF_ALL = 20_000_000
"""Random signs of a paired test over all items: half a second. No item has fewer than a tenth of :data:`FLIPS`."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A statistic of a sample and its bootstrap percentile interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """JSON values."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True)
class Gap:
    """Difference of two networks' scores on the same items."""

    value: float
    standard_error: float
    """Of the items alone: how far other items of the same kind would change the difference. Another training of the same
    networks changes it too, which this does not hold."""

    def to_dict(self) -> dict[str, float]:
        """JSON values."""
        return {"value": self.value, "standard_error": self.standard_error}


def bootstrap(
    statistic: Callable[[Int64[np.ndarray, "samples size"]], Float[np.ndarray, " samples"]],
    size: int,
    *,
    seed: int,
    level: float = 0.95,
) -> Interval | None:
    """A statistic of so many things with its percentile interval; None where the statistic is not defined (NaN).

    The things are drawn again with replacement, :data:`RESAMPLES` times; the ends are order statistics of what these resamples
    give. The same seed draws the same, so two calls about the same things may be subtracted. ``scipy.stats.bootstrap`` serves
    neither of our cases: it interpolates between order statistics, which fails where one is infinite (a score that was never
    reached), and has no interval where one resample of thousands has no statistic (as tau of equal values).

    Args:
        statistic: of each row of indices of things.
        size: how many things there are, at least one.
        seed: of the draws.
        level: probability that the interval is meant to cover.

    """
    value = float(statistic(np.arange(size)[np.newaxis])[0])
    drawn = statistic(np.random.default_rng(seed).integers(size, size=(RESAMPLES, size)))
    known = drawn[~np.isnan(drawn)]
    if math.isnan(value) or not len(known):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2], method="lower").tolist()
    return Interval(value, low, high)


def over_seeds(values: Sequence[float]) -> Interval:
    """The median with its interval: 95 % bootstrap percentiles from 4 values on, else the smallest and the largest.

    Infinite values stand for scores that were not reached.
    """
    if len(values) < 4:
        return Interval(float(statistics.median(values)), min(values), max(values))
    known, middle = np.asarray(values, float), len(values) // 2

    def median(places: Int64[np.ndarray, "samples size"]) -> Float[np.ndarray, " samples"]:
        ordered = np.sort(known[places], axis=1)
        return (ordered[:, (len(values) - 1) // 2] + ordered[:, middle]) / 2

    found = bootstrap(median, len(values), seed=0)
    assert found is not None, f"{values} have no median"
    return found


def tau_b(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's rank correlation with its correction for ties; NaN when all values of one side are equal."""
    from scipy.stats import kendalltau  # a second to import, which a search need not spend

    # The p-value is not used; its asymptotic form is the cheaper one.
    found: Any = kendalltau(first, second, method="asymptotic")
    return float(found.statistic)


def kendall_intervals(
    rankings: Mapping[str, Sequence[float]], truth: Sequence[float], *, seed: int, level: float = 0.95
) -> tuple[dict[str, Interval | None], Interval | None]:
    """Tau-b of each ranking with ``truth``, and of the first one's lead over the second.

    Subnets are drawn again as :func:`bootstrap` does, the same draws for all rankings: the lead is a paired comparison. A
    resample in which all values of one side are equal has no tau and is left out.

    Args:
        rankings: at least one, by name; each has a value per subnet.
        truth: what they should agree with, in the same order.
        seed: of the draws.
        level: probability that an interval is meant to cover.

    Returns:
        An interval by name, None for a ranking without a tau, and the interval of the lead, None without two taus.

    Raises:
        UserError: there are fewer than 3 subnets, or a ranking of another length.

    """
    columns = {name: np.asarray(values, float) for name, values in rankings.items()}
    target = np.asarray(truth, float)
    if len(target) < 3:
        raise UserError(f"{len(target)} subnets cannot be ranked against each other; take at least 3")
    if different := [name for name, values in columns.items() if len(values) != len(target)]:
        raise UserError(f"{different[0]} has {len(columns[different[0]])} values for {len(target)} subnets")
    intervals = {
        name: bootstrap(lambda places, column=column: _taus(column, target, places), len(target), seed=seed, level=level)
        for name, column in columns.items()
    }
    lead = None
    if len(columns) > 1:
        first, second, *_ = columns.values()
        lead = bootstrap(
            lambda places: _taus(first, target, places) - _taus(second, target, places), len(target), seed=seed, level=level
        )
    return intervals, lead


def _taus(
    first: Float[np.ndarray, " subnets"], second: Float[np.ndarray, " subnets"], places: Int64[np.ndarray, "samples subnets"]
) -> Float[np.ndarray, " samples"]:
    """Tau-b of each resample, all at once: sums over pairs of subnets, weighted with how often both are in it."""
    counts = np.stack([np.bincount(row, minlength=len(first)) for row in places]).astype(float)
    signs, others = (np.sign(np.subtract.outer(values, values)) for values in (first, second))
    agreeing, untied, others_untied = (
        ((counts @ pairs) * counts).sum(axis=1) for pairs in (signs * others, np.abs(signs), np.abs(others))
    )
    with np.errstate(invalid="ignore"):  # 0 / 0, where one side has a single value
        return agreeing / np.sqrt(untied * others_untied)


Outcomes = Bool[np.ndarray, " items"] | Float32[np.ndarray, " items"]
"""What a network was judged on each item: right or wrong, or a number of which more is better."""


def paired_p_value(first: Outcomes, second: Outcomes) -> float:
    """Two-sided probability that two equally good networks differ so much on the same items, all of which both have seen.

    Bits: of so unequal numbers of items that only one of them gets right (the exact McNemar test). Numbers: of so large a sum
    of differences, when the sign of each is a toss of a fair coin (Fisher's sign-flip test, with random flips). It holds its
    level whatever the sizes and their tails, provided that equally good networks differ evenly to both sides; with many items
    the central limit theorem takes the place of that, unless few of them hold most of the squares.
    """
    from scipy.stats import binomtest, monte_carlo_test

    assert first.dtype == second.dtype, f"{first.dtype} and {second.dtype} are of two tasks"
    if first.dtype == bool:
        only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
        alone = only_first + only_second
        return 1.0 if alone == 0 else float(binomtest(only_first, alone).pvalue)
    differences = first.astype(np.float64) - second.astype(np.float64)
    assert np.isfinite(differences).all(), "items that one of the networks has not seen"
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    sizes, rng = np.abs(differences), np.random.default_rng(0)

    def flipped(size: tuple[int, ...]) -> Float[np.ndarray, "flips items"]:
        return np.where(rng.integers(2, size=size, dtype=np.int8), sizes, -sizes)

    # permutation_test offers this test too, but takes it item by item in Python: 2 s for 1,000 flips of 10,000 items.
    count = min(FLIPS, max(FLIPS // 10, FLIPS_OF_ALL // len(sizes)))
    found = monte_carlo_test(
        differences,
        flipped,
        lambda sample, axis: np.abs(sample.sum(axis=axis)),
        vectorized=True,
        n_resamples=count,
        batch=max(1, 1_000_000 // len(sizes)),
        alternative="greater",
    )
    return float(found.pvalue)


def paired_gap(first: Outcomes, second: Outcomes) -> Gap:
    """Score of ``first`` minus that of ``second`` from their outcomes on the same items, at least 2."""
    difference = first.astype(np.float64) - second.astype(np.float64)
    return Gap(float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(difference))))
