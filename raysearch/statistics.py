"""Whether two measurements of the same subnets agree: rank correlation and paired differences, with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

RESAMPLES = 2_000
"""Bootstrap resamples: enough for two digits of an interval's ends."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A statistic of a sample of subnets and its bootstrap percentile interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """JSON values."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True)
class Gap:
    """Difference of two networks' accuracies on the same images."""

    value: float
    standard_error: float
    """Of the images alone: how far other images of the same kind would change the difference. Another training of the same
    networks changes it too, which this does not hold."""

    def to_dict(self) -> dict[str, float]:
        """JSON values."""
        return {"value": self.value, "standard_error": self.standard_error}


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

    Subnets are drawn again with replacement, :data:`RESAMPLES` times, the same draws for all rankings: the lead is a paired
    comparison. The interval's ends are percentiles. A resample in which all values of one side are equal has no tau and is
    left out.

    Args:
        rankings: at least one, by name; each has a value per subnet.
        truth: what they should agree with, in the same order.
        seed: of the draws.
        level: probability that an interval is meant to cover.

    Returns:
        An interval by name, None for a ranking without a tau, and the interval of the lead, None without two taus.

    Raises:
        ValueError: there are fewer than 3 subnets, or a ranking of another length.

    """
    columns = {name: np.asarray(values, float) for name, values in rankings.items()}
    target = np.asarray(truth, float)
    if len(target) < 3:
        raise ValueError(f"{len(target)} subnets cannot be ranked against each other; take at least 3")
    if different := [name for name, values in columns.items() if len(values) != len(target)]:
        raise ValueError(f"{different[0]} has {len(columns[different[0]])} values for {len(target)} subnets")
    rng = np.random.default_rng(seed)
    # How often each subnet is in each resample.
    counts = rng.multinomial(len(target), np.full(len(target), 1 / len(target)), size=RESAMPLES).astype(float)
    values = {name: tau_b(column.tolist(), target.tolist()) for name, column in columns.items()}
    resampled = {name: _resampled(column, target, counts) for name, column in columns.items()}
    intervals = {name: _interval(values[name], resampled[name], level) for name in columns}
    names = [*columns]
    lead = None
    if len(names) > 1:
        lead = _interval(values[names[0]] - values[names[1]], resampled[names[0]] - resampled[names[1]], level)
    return intervals, lead


def _resampled(
    first: Float[np.ndarray, " subnets"], second: Float[np.ndarray, " subnets"], counts: Float[np.ndarray, "resamples subnets"]
) -> Float[np.ndarray, " resamples"]:
    """Tau-b of each resample, all at once: sums over pairs of subnets, weighted with how often both are in it."""
    signs, others = (np.sign(np.subtract.outer(values, values)) for values in (first, second))
    agreeing, untied, others_untied = (
        ((counts @ pairs) * counts).sum(axis=1) for pairs in (signs * others, np.abs(signs), np.abs(others))
    )
    with np.errstate(invalid="ignore"):  # 0 / 0, where one side has a single value
        return agreeing / np.sqrt(untied * others_untied)


def _interval(value: float, resampled: Float[np.ndarray, " resamples"], level: float) -> Interval | None:
    known = resampled[np.isfinite(resampled)]
    if not math.isfinite(value) or not len(known):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(value, low, high)


def paired_p_value(first: Bool[np.ndarray, " images"], second: Bool[np.ndarray, " images"]) -> float:
    """Two-sided probability of so unequal numbers of images that only one of two networks gets right (exact McNemar test)."""
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    alone = only_first + only_second
    return 1.0 if alone == 0 else float(binomtest(only_first, alone).pvalue)


def paired_gap(first: Bool[np.ndarray, " images"], second: Bool[np.ndarray, " images"]) -> Gap:
    """Accuracy of ``first`` minus that of ``second`` from what each has right of the same images, at least 2."""
    difference = first.astype(float) - second.astype(float)
    return Gap(float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(difference))))
