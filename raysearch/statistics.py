"""How sure a number is: intervals that hold their level, rank correlation, and paired differences of two networks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from raysearch.errors import UserError

LEVEL = 0.95
"""Probability with which every interval here is meant to cover the true value."""
FLIPS = 9_999
"""Most random signs of a paired test for each item. A p-value is a multiple of one over so many and one."""
FLIPS_OF_ALL = 20_000_000
"""Random signs of a paired test over all items: half a second. No item has fewer than a tenth of :data:`FLIPS`."""
REGRET_DRAWS = 5_000
"""Simulated sets of true values."""
FEWEST_RANKED = 8
"""With fewer subnets nothing is claimed of a rank correlation: what is below was found in simulations to cover too rarely."""

Outcomes = Bool[np.ndarray, " items"] | Float32[np.ndarray, " items"]
"""What a network was judged on each item: right or wrong, or a number of which more is better."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A number and the interval that holds its true value with a probability of :data:`LEVEL`."""

    value: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half of the width: what stands behind a plus-minus sign."""
        return (self.high - self.low) / 2

    def to_dict(self) -> dict[str, float]:
        """JSON values."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True)
class Agreement:
    """Kendall's tau-b of a ranking with the truth; None where it is undefined, as all values of one side are equal."""

    tau: Interval | None
    partial: Interval | None
    """Given another ranking: what is left of the tau among things that this one puts in the same place."""
    lead: Interval | None
    """Of the tau over the other ranking's."""


@dataclass(frozen=True, slots=True)
class Noise:
    """How far one measurement of a thing is from another one of the same thing, and what that means for rankings."""

    repeated: int
    """Things that were measured more than once."""
    noise: float
    """Standard deviation of single measurements around the true value."""
    spread: float
    """Standard deviation of the true values, what noise adds being taken off."""
    between: Interval | None
    """Tau of first with second measurements; None where it is undefined."""
    highest: Interval
    """Tau that the true values themselves are expected to have with the measured ones: no ranking can do better but by luck."""


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


# --- of one network ---------------------------------------------------------------------------------------------------


def share_interval(right: int, items: int) -> Interval:
    """A share of right answers with the interval of Clopper and Pearson (1934), which covers at least as often as it says.

    ``items`` is at least one. Wilson's is shorter and covers as often on average, but less often for shares near 1, which
    accuracies are.
    """
    from scipy.special import betaincinv  # half a second to import

    tail = (1 - LEVEL) / 2
    low = 0.0 if right == 0 else float(betaincinv(right, items - right + 1, tail))
    high = 1.0 if right == items else float(betaincinv(right + 1, items - right, 1 - tail))
    return Interval(right / items, low, high)


def mean_interval(values: Sequence[float] | Float[np.ndarray, " values"]) -> Interval | None:
    """A mean with Student's interval; None for fewer than two values, which tell nothing of chance."""
    from scipy.stats import t as student

    known = np.asarray(values, np.float64)
    if len(known) < 2:
        return None
    mean = float(known.mean())
    half = float(student.ppf((1 + LEVEL) / 2, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known)))
    return Interval(mean, mean - half, mean + half)


def score_interval(outcomes: Outcomes) -> Interval | None:
    """The score of one network with its interval: how far other items of the same kind would change it. None for one number."""
    if outcomes.dtype == bool:
        return share_interval(int(outcomes.sum()), len(outcomes))
    return mean_interval(outcomes.astype(np.float64))


def selection_bias(scores: Sequence[float], fresh: Sequence[Outcomes]) -> Interval | None:
    """What scores gained by being selected: their mean minus that of the same networks on fresh items, at least one network.

    The networks are those that were selected, so their scores are given numbers; only the fresh items are chance. Of bits the
    mean over the networks lies between 0 and 1 on each item, and the interval is that of Agresti and Coull (1998), two items
    added of either kind: near 1, where few items are wrong, Student's would be too short, and nil where none is.

    Args:
        scores: of the networks, on the items that selected them.
        fresh: their outcomes on items that selected nobody, the same for all.

    """
    by_item = np.mean([outcomes.astype(np.float64) for outcomes in fresh], axis=0)
    gained = statistics.fmean(scores) - float(by_item.mean())
    if fresh[0].dtype == bool:
        low, high = _normal(by_item, added=(0.0, 0.0, 1.0, 1.0))
    elif (found := mean_interval(by_item)) is not None:
        low, high = found.low, found.high
    else:
        return None
    return Interval(gained, statistics.fmean(scores) - high, statistics.fmean(scores) - low)


def _normal(by_item: Float[np.ndarray, " items"], *, added: tuple[float, ...]) -> tuple[float, float]:
    """Ends of the normal interval of a mean after a few items were added: what makes it hold for shares near 0 and 1."""
    values = np.concatenate([by_item, added])
    half = statistics.NormalDist().inv_cdf((1 + LEVEL) / 2) * float(values.std()) / math.sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half


# --- over repetitions -------------------------------------------------------------------------------------------------


def over_seeds(values: Sequence[float]) -> Interval:
    """The median with its exact interval: the order statistics between which it lies with a probability of at least 95 %.

    How many of the values are below the true median is a matter of tossing coins, whatever they are (the sign test's interval;
    David and Nagaraja, Order Statistics, 2003, section 7.1). With fewer than 6 values even the smallest and the largest hold it
    more rarely: they are given nevertheless, and :func:`median_level` says how often they do. Infinite values stand for scores
    that were not reached.
    """
    from scipy.stats import binom

    known = sorted(values)
    # The largest k of which the k-th smallest and the k-th largest value still hold the median often enough.
    k = max(1, int(binom.ppf((1 - LEVEL) / 2, len(known), 0.5)))
    middle = statistics.median(known)
    return Interval(float(middle), float(known[k - 1]), float(known[-k]))


def median_level(count: int) -> float:
    """How often the smallest and the largest of so many values hold the median between them: 0.875 of 4 values."""
    return 1 - 2.0 ** (1 - count)


def tau_b(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's rank correlation with its correction for ties; NaN when all values of one side are equal."""
    from scipy.stats import kendalltau  # a second to import, which a search need not spend

    # The p-value is not used; its asymptotic form is the cheaper one.
    found: Any = kendalltau(first, second, method="asymptotic")
    return float(found.statistic)


def kendall_intervals(
    rankings: Mapping[str, Sequence[float]], truth: Sequence[float]
) -> tuple[dict[str, Interval | None], Interval | None]:
    """Tau-b of each ranking with ``truth``, and of the first one's lead over the second, which is a paired comparison.

    The intervals are the jackknife's with Student's quantile (Arvesen 1969: tau is a U-statistic), of the inverse hyperbolic
    tangent for a tau, so that it cannot leave -1 to 1. In simulations with 8 to 40 subnets, of which some tied, they covered
    in 94 to 99 cases of 100, where percentiles of a bootstrap covered in 88 to 99. Of fewer than :data:`FEWEST_RANKED` subnets
    nothing is claimed: their interval is all that is possible.

    Args:
        rankings: at least one, by name; each has a value per subnet.
        truth: what they should agree with, in the same order.

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
    taus = {
        name: (tau_b(column.tolist(), target.tolist()), _taus_without_each(column, target)) for name, column in columns.items()
    }
    intervals = {name: _of_tau(*found) for name, found in taus.items()}
    lead = None
    if len(columns) > 1:
        (first, firsts), (second, seconds), *_ = taus.values()
        lead = _of_lead(first - second, firsts - seconds)
    return intervals, lead


def rank_agreement(rankings: Mapping[str, Sequence[float]], truth: Sequence[float], *, given: str) -> dict[str, Agreement]:
    """How far each ranking agrees with ``truth``, alone and beside the ranking named ``given``, by name.

    Intervals are those of :func:`kendall_intervals`, that of a partial tau as that of a tau. The ranking ``given`` itself has
    neither a partial tau nor a lead.

    Args:
        rankings: by name; each has a value per subnet.
        truth: what they should agree with, in the same order.
        given: name of the ranking that the others must add something to.

    Raises:
        UserError: there are fewer than 3 subnets, or a ranking of another length.

    """
    other, target = np.asarray(rankings[given], float), np.asarray(truth, float)
    found: dict[str, Agreement] = {}
    for name, values in rankings.items():
        taus, lead = kendall_intervals({name: values, given: rankings[given]} if name != given else {given: values}, truth)
        if name == given:
            found[name] = Agreement(taus[name], None, None)
            continue
        column = np.asarray(values, float)
        pairs = ((column, target), (column, other), (target, other))
        partial = float(partial_tau(*(tau_b(a.tolist(), b.tolist()) for a, b in pairs)))
        without_each = partial_tau(*(_taus_without_each(a, b) for a, b in pairs))
        found[name] = Agreement(taus[name], _of_tau(partial, np.asarray(without_each)), lead)
    return found


def partial_tau(both: Any, first: Any, second: Any) -> Any:
    """Kendall's partial tau of two rankings given a third (Kendall 1942), from numbers or arrays of them.

    Args:
        both: tau between the two.
        first: tau of one of them with the third.
        second: tau of the other with it.

    Returns:
        NaN where one of the two is the third, or undefined.

    """
    with np.errstate(invalid="ignore", divide="ignore"):
        left = np.sqrt(np.maximum(0.0, 1 - np.square(first)) * np.maximum(0.0, 1 - np.square(second)))
        return np.where(left > 1e-6, np.clip((both - first * second) / np.where(left > 1e-6, left, 1.0), -1, 1), np.nan)


def _of_tau(tau: float, without_each: Float[np.ndarray, " subnets"]) -> Interval | None:
    if math.isnan(tau):
        return None
    # A tau of 1 has no tangent; the last thousandth is not worth a case of its own.
    stretched, each = math.atanh(max(-0.999, min(0.999, tau))), np.arctanh(np.clip(without_each, -0.999, 0.999))
    half = _jackknife_half(each)
    if half is None:
        return Interval(tau, -1.0, 1.0)
    return Interval(tau, min(tau, math.tanh(stretched - half)), max(tau, math.tanh(stretched + half)))


def _of_lead(lead: float, without_each: Float[np.ndarray, " subnets"]) -> Interval | None:
    if math.isnan(lead):
        return None
    half = _jackknife_half(without_each)
    return Interval(lead, *((-2.0, 2.0) if half is None else (max(-2.0, lead - half), min(2.0, lead + half))))


def _jackknife_half(without_each: Float[np.ndarray, " subnets"]) -> float | None:
    """Half of a statistic's interval, from its values without each of the things; None where they tell nothing."""
    from scipy.stats import t as student

    count = len(without_each)
    if count < FEWEST_RANKED or np.isnan(without_each).any():
        return None
    error = (count - 1) * float(without_each.std(ddof=1)) / math.sqrt(count)
    return float(student.ppf((1 + LEVEL) / 2, count - 1)) * error


def _taus_without_each(
    first: Float[np.ndarray, " subnets"], second: Float[np.ndarray, " subnets"]
) -> Float[np.ndarray, " subnets"]:
    """Tau-b of all but one of the subnets, for each of them; NaN where what is left of one side is all equal."""
    signs, others = (np.sign(np.subtract.outer(values, values)) for values in (first, second))
    # Each pair stands twice in these sums, and a subnet's pairs twice in their rows and columns.
    agreeing, untied, others_untied = (
        pairs.sum() - 2 * pairs.sum(axis=1) for pairs in (signs * others, np.abs(signs), np.abs(others))
    )
    with np.errstate(invalid="ignore"):  # 0 / 0, where one side has a single value
        return agreeing / np.sqrt(untied * others_untied)


# --- things that were measured again ----------------------------------------------------------------------------------


def measured_noise(groups: Sequence[Sequence[float]]) -> Noise | None:
    """What measurements of things, of which some were measured again, say of their own noise.

    A normal model: true values and noise are normal, the noise is the same for all. The variance of the noise is that within
    groups; that of the true values is what the means of the groups vary beyond it. Its share of the whole is the reliability
    of a mean, and Kendall's tau of true with measured values is ``2 / pi * asin(sqrt(reliability))`` (Greiner's relation of
    tau and correlation). The interval is that of the ratio of the two variances (Snedecor's F).

    Args:
        groups: the measurements of each thing, at least one.

    Returns:
        None where nothing was measured again, or there are fewer than 3 things.

    """
    from scipy.stats import f as snedecor

    found = _variances(groups)
    if found is None:
        return None
    again = [group for group in groups if len(group) > 1]
    between = None
    if len(again) >= 3:
        taus, _ = kendall_intervals({"first": [group[0] for group in again]}, [group[1] for group in again])
        between = taus["first"]
    tails = ((1 + LEVEL) / 2, (1 - LEVEL) / 2)
    ends = [float(snedecor.ppf(tail, len(groups) - 1, found.degrees)) for tail in tails]
    of_means = found.share * found.within
    ratio = math.inf if of_means == 0 else found.of_means / of_means
    highest = Interval(*(_tau_of_true(ratio / by) for by in (1.0, *ends)))
    spread = math.sqrt(max(0.0, found.of_means - of_means))
    return Noise(len(again), math.sqrt(found.within), spread, between, highest)


def _tau_of_true(ratio: float) -> float:
    """Tau of true with measured values, from the variance of the measured ones over that of their noise."""
    return 2 / math.pi * math.asin(math.sqrt(max(0.0, 1 - 1 / ratio))) if ratio > 0 else 0.0


@dataclass(frozen=True, slots=True)
class _Variances:
    within: float
    """Of single measurements of the same thing."""
    degrees: int
    """Degrees of freedom of it."""
    of_means: float
    """Of the means of the things."""
    share: float
    """Of the variance within that is left in a mean, on average."""


def _variances(groups: Sequence[Sequence[float]]) -> _Variances | None:
    degrees = sum(len(group) - 1 for group in groups)
    if degrees == 0 or len(groups) < 3:
        return None
    squares = sum(float(np.var(group)) * len(group) for group in groups)
    means = [statistics.fmean(group) for group in groups]
    share = statistics.fmean(1 / len(group) for group in groups)
    return _Variances(squares / degrees, degrees, statistics.variance(means), share)


def regret(groups: Sequence[Sequence[float]], chosen: Sequence[float]) -> Interval | None:
    """How far the best of things is above a chosen one, in true values: measured ones make the best look too good.

    The things are drawn from a population, so each true value lies nearer to their mean than what was measured of it, by the
    share that noise has in the spread; the chosen one is no draw, so its measurements are taken as they are. The interval holds
    the noise of all measurements, and how well noise and spread are known: a normal model as in :func:`measured_noise`,
    simulated with flat priors. Its value is the median.

    Args:
        groups: the measurements of each drawn thing.
        chosen: those of the chosen one, which is not among them.

    Returns:
        At least 0 everywhere; None where nothing was measured again, or there are fewer than 3 things.

    """
    within = [list(group) for group in groups]
    found = _variances(within)
    if found is None:
        return None
    degrees = found.degrees + len(chosen) - 1
    squares = found.within * found.degrees + float(np.var(chosen)) * len(chosen)
    rng, draws = np.random.default_rng(0), REGRET_DRAWS
    noise = squares / rng.chisquare(degrees, size=(draws, 1))
    of_means = found.of_means * (len(within) - 1) / rng.chisquare(len(within) - 1, size=(draws, 1))
    spread = np.maximum(0.0, of_means - found.share * noise)
    means, counts = np.array([statistics.fmean(g) for g in within]), np.array([len(g) for g in within])
    of_each = noise / counts
    total = np.maximum(spread + of_each, np.finfo(float).tiny)
    middle = statistics.fmean(means) + rng.normal(size=(draws, 1)) * np.sqrt(of_means / len(within))
    kept = spread / total
    true = middle + kept * (means - middle) + rng.normal(size=(draws, len(within))) * np.sqrt(kept * of_each)
    own = statistics.fmean(chosen) + rng.normal(size=draws) * np.sqrt(noise[:, 0] / len(chosen))
    behind = np.maximum(0.0, true.max(axis=1) - own)
    low, value, high = np.quantile(behind, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2]).tolist()
    return Interval(value, low, high)


# --- two networks on the same items -----------------------------------------------------------------------------------


def lead_p_value(first: Outcomes, second: Outcomes) -> float:
    """Probability that ``first`` leads an equally good ``second`` by so much on the same items, all of which both have seen.

    One-sided: a small one says that the first is better, and a large one nothing. Bits: of so many of the items that only one
    of them gets right being the first one's (the exact McNemar test). Numbers: of so large a sum of differences, when the sign
    of each is a toss of a fair coin (Fisher's sign-flip test, with random flips). It holds its level whatever the sizes and
    their tails, provided that equally good networks differ evenly to both sides; with many items the central limit theorem
    takes the place of that, unless few of them hold most of the squares.
    """
    from scipy.stats import binom, monte_carlo_test

    assert first.dtype == second.dtype, f"{first.dtype} and {second.dtype} are of two tasks"
    if first.dtype == bool:
        only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
        return float(binom.sf(only_first - 1, only_first + only_second, 0.5))
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
        lambda sample, axis: sample.sum(axis=axis),
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


def paired_difference(first: Outcomes, others: Sequence[Outcomes]) -> Interval | None:
    """Score of ``first`` minus the mean score of the ``others``, at least one, with its interval, from the same items.

    Bits: the interval of Bonett and Price (2012), the normal one after an item was added that only the first gets right and one
    that only the others do; it keeps its level for a few items that differ, and for none. Numbers: Student's of the differences
    by item; None for a single item.
    """
    by_item = first.astype(np.float64) - np.mean([other.astype(np.float64) for other in others], axis=0)
    if first.dtype != bool:
        return mean_interval(by_item)
    return Interval(float(by_item.mean()), *_normal(by_item, added=(1.0, -1.0)))
