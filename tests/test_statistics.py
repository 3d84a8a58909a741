"""Numbers of the textbook, intervals that cover, tests that hold their level, ties, and what cannot be ranked or told."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, permutation_test

from raysearch.statistics import (
    FEWEST_RANKED,
    Interval,
    _taus_without_each,
    kendall_intervals,
    lead_p_value,
    mean_interval,
    measured_noise,
    median_level,
    over_seeds,
    paired_difference,
    paired_gap,
    partial_tau,
    rank_agreement,
    regret,
    score_interval,
    selection_bias,
    share_interval,
    tau_b,
)

RARELY = 0.001
"""Probability with which a test of how often an interval covers may fail although it covers as it says."""


def test_an_interval_of_a_share_is_the_exact_one() -> None:
    # Of 10 of 10 right: the least share with which that happens in 2.5 % of cases.
    assert share_interval(10, 10).low == pytest.approx(0.025 ** (1 / 10))
    assert (share_interval(10, 10).high, share_interval(0, 7).low) == (1.0, 0.0)
    found = share_interval(390, 400)
    assert binom.sf(389, 400, found.low) == pytest.approx(0.025)
    assert binom.cdf(390, 400, found.high) == pytest.approx(0.025)


@pytest.mark.parametrize("share", [0.5, 0.97, 0.998])
def test_the_interval_of_an_accuracy_covers(share: float) -> None:
    items = 400
    covering = [
        right for right in range(items + 1) if share_interval(right, items).low <= share <= share_interval(right, items).high
    ]
    assert binom.pmf(covering, items, share).sum() >= 0.95


def test_the_score_of_numbers_has_students_interval() -> None:
    values = np.random.default_rng(0).normal(3, 1, size=12).astype(np.float32)
    found = score_interval(values)
    assert found is not None
    assert found.half == pytest.approx(2.201 * values.std(ddof=1) / math.sqrt(12), rel=1e-3)  # the quantile of 11 degrees
    assert mean_interval([3.0]) is None
    assert score_interval(np.array([True, False])) == share_interval(1, 2)


@pytest.mark.parametrize("differing", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("lead", [0.0, 0.02])
def test_the_interval_of_a_difference_covers(differing: float, lead: float) -> None:
    """Of two networks that disagree rarely, as those of one supernet do, or not at all."""
    covered, repetitions = 0, 400
    for seed in range(repetitions):
        draw = np.random.default_rng(seed).random(300)
        first, second = draw >= differing / 2, (draw < differing / 2) | (draw >= differing + lead)
        found = paired_difference(first, [second])
        assert found is not None
        covered += found.low <= lead <= found.high
    assert covered >= binom.ppf(RARELY, repetitions, 0.95)


def test_a_difference_to_several_is_that_to_their_mean() -> None:
    first, others = np.array([True, True, False, True]), [np.array([True, False, False, True]), np.array([False] * 4)]
    found = paired_difference(first, others)
    assert found is not None
    assert found.value == pytest.approx(0.75 - 0.25)
    numbers = paired_difference(np.array([1, 5, 3], np.float32), [np.array([0, 2, 1], np.float32)])
    assert numbers is not None
    assert (numbers.value, numbers.half) == pytest.approx((2, 4.3027 / math.sqrt(3)), rel=1e-4)


def test_equal_networks_have_a_difference_of_a_few_images() -> None:
    """400 images on which two agree do not show that they always do."""
    found = paired_difference(np.ones(400, bool), [np.ones(400, bool)])
    assert found is not None
    assert found.value == 0
    assert found.half == pytest.approx(1.96 * math.sqrt(2) / 402, rel=1e-3)


def test_the_selection_bias_of_numbers_is_what_they_lose() -> None:
    fresh = [np.array([1, 2, 3], np.float32), np.array([3, 4, 5], np.float32)]
    found = selection_bias([4.0, 5.0], fresh)
    assert found is not None
    assert (found.value, found.half) == pytest.approx((1.5, 4.3027 / math.sqrt(3)), rel=1e-4)


@pytest.mark.parametrize("count", [6, 7, 10, 25])
@pytest.mark.parametrize("draw", ["standard_normal", "standard_cauchy", "standard_exponential"])
def test_the_interval_of_a_median_covers_whatever_is_drawn(count: int, draw: str) -> None:
    middle = math.log(2) if draw == "standard_exponential" else 0.0
    rng, repetitions = np.random.default_rng(count), 600
    found = [over_seeds(getattr(rng, draw)(count).tolist()) for _ in range(repetitions)]
    assert sum(i.low <= middle <= i.high for i in found) >= binom.ppf(RARELY, repetitions, 0.95)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_few_seeds_hold_the_median_as_often_as_is_said(count: int) -> None:
    rng, repetitions = np.random.default_rng(count), 600
    found = [over_seeds(rng.normal(size=count).tolist()) for _ in range(repetitions)]
    low, high = binom.ppf([RARELY, 1 - RARELY], repetitions, median_level(count))
    assert low <= sum(i.low <= 0 <= i.high for i in found) <= high
    assert median_level(count) < 0.95 <= median_level(6)


def test_intervals_over_seeds_are_order_statistics() -> None:
    assert over_seeds([3.0, 1.0, 2.0]) == Interval(2.0, 1.0, 3.0)
    assert over_seeds([1.0, 2.0, 4.0, 8.0]) == Interval(3.0, 1.0, 8.0)
    assert over_seeds([float(i) for i in range(9)]) == Interval(4.0, 1.0, 7.0)  # 96 %; from 2 to 6 it would be 82
    for count in range(6, 200):  # the narrowest of those that hold the median often enough
        place = 1 + int(over_seeds([float(i) for i in range(count)]).low)
        assert 2 * binom.cdf(place - 1, count, 0.5) <= 0.05 < 2 * binom.cdf(place, count, 0.5)
    many = over_seeds([float(i) for i in range(101)])
    assert (many.value, many.low, many.high) == (50.0, 40.0, 60.0)
    never = over_seeds([1.0, 2.0, math.inf, math.inf, math.inf])
    assert (never.value, never.high) == (math.inf, math.inf)


def test_tau_counts_pairs_and_corrects_for_ties() -> None:
    assert tau_b([1, 2, 3, 4], [1, 2, 3, 4]) == pytest.approx(1)
    assert tau_b([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert tau_b([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx((5 - 1) / 6)
    # 5 concordant pairs; one of 6 is tied on the left: 5 / sqrt(5 * 6)
    assert tau_b([1, 1, 2, 3], [1, 2, 3, 4]) == pytest.approx(5 / math.sqrt(30))
    assert math.isnan(tau_b([1, 1, 1], [1, 2, 3]))


def test_rankings_are_compared_on_the_same_draws() -> None:
    truth = list(np.random.default_rng(0).normal(size=15))
    taus, lead = kendall_intervals({"same": truth, "copy": truth, "back": [-t for t in truth]}, truth)
    same, back = taus["same"], taus["back"]
    assert same is not None
    assert back is not None
    assert (same.value, same.low, same.high) == pytest.approx((1, 1, 1), abs=0.002)
    assert (back.value, back.low, back.high) == pytest.approx((-1, -1, -1), abs=0.002)
    assert lead is not None
    assert (lead.value, lead.low, lead.high) == pytest.approx((0, 0, 0))


@pytest.mark.parametrize("subnets", [8, 12, 20])
@pytest.mark.parametrize("tied", [False, True])
def test_the_interval_covers_the_true_tau_as_often_as_it_says(subnets: int, tied: bool) -> None:
    """Of normal pairs of correlation 0.6, or of such rounded to a few values; the lead of one over another of them is 0."""
    covered, leads, repetitions = 0, 0, 200
    true = 2 / math.pi * math.asin(0.6) if not tied else 0.451  # the latter of 20,000 pairs
    for seed in range(repetitions):
        truth, *noise = np.random.default_rng(seed).normal(size=(3, subnets))
        first, second = (0.6 * truth + 0.8 * part for part in noise)
        columns = [np.round(2 * column) if tied else column for column in (truth, first, second)]
        found, lead = kendall_intervals({"first": columns[1].tolist(), "second": columns[2].tolist()}, columns[0].tolist())
        interval = found["first"]
        assert interval is not None
        assert lead is not None
        covered += interval.low <= true <= interval.high
        leads += lead.low <= 0 <= lead.high
    assert min(covered, leads) >= binom.ppf(RARELY, repetitions, 0.95)


def test_of_few_subnets_nothing_is_claimed() -> None:
    taus, lead = kendall_intervals({"a": [1, 2, 3, 4], "b": [1, 3, 2, 4]}, [1, 2, 3, 4])
    assert taus["a"] == Interval(pytest.approx(1.0), -1.0, 1.0)
    assert lead == Interval(pytest.approx(1 / 3), -2.0, 2.0)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=4, max_size=12))
def test_what_is_left_without_a_subnet_is_scored_as_the_library_scores_it(pairs: list[tuple[int, int]]) -> None:
    columns = np.array(pairs, float)
    expected = [tau_b(*np.delete(columns, i, axis=0).T.tolist()) for i in range(len(pairs))]
    assert _taus_without_each(columns[:, 0], columns[:, 1]) == pytest.approx(expected, nan_ok=True)


def test_a_constant_side_has_no_tau_and_no_lead() -> None:
    taus, lead = kendall_intervals({"flat": [1, 1, 1, 1], "rising": [1, 2, 3, 4]}, [1, 2, 3, 4])
    assert taus["flat"] is None
    assert taus["rising"] is not None
    assert lead is None


@pytest.mark.parametrize(
    ("ranking", "truth", "words"), [([1, 2], [1, 2], "2 subnets cannot be ranked"), ([1, 2], [1, 2, 3], "a has 2 values for 3")]
)
def test_what_cannot_be_ranked_is_said(ranking: list[float], truth: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        kendall_intervals({"a": ranking}, truth)


def test_a_gap_is_measured_on_the_images_that_differ() -> None:
    first, second = np.ones(100, bool), np.ones(100, bool)
    assert paired_gap(first, second).to_dict() == {"value": 0.0, "standard_error": 0.0}
    second[:4], first[4] = False, False
    gap = paired_gap(first, second)  # 4 images won, 1 lost
    assert gap.value == pytest.approx(0.03)
    assert gap.standard_error == pytest.approx(math.sqrt((5 - 100 * 0.03**2) / 99 / 100))


def test_the_paired_test_is_mcnemars_exact_one() -> None:
    alike = [True] * 30 + [False] * 10

    def p_value(first: list[bool], second: list[bool]) -> float:
        return lead_p_value(np.array(first), np.array(second))

    assert p_value(alike, alike) == 1.0
    # Only the images on which they differ count: 6 to 0 is 1 / 2^6, however many others there are.
    assert p_value([*alike, *[True] * 6], [*alike, *[False] * 6]) == pytest.approx(1 / 2**6)
    assert p_value([False] * 6, [True] * 6) == 1.0
    assert p_value([True, True, False], [False, True, True]) == 0.75


def test_a_gap_of_numbers_is_the_difference_of_their_means() -> None:
    first, second = np.array([1, 5, 3], np.float32), np.array([0, 2, 1], np.float32)
    gap = paired_gap(first, second)  # 1, 3 and 2
    assert (gap.value, gap.standard_error) == pytest.approx((2, 1 / math.sqrt(3)))


@pytest.mark.parametrize("items", [15, 100])
@pytest.mark.parametrize("tails", ["standard_normal", "standard_cauchy", "laplace"])
def test_equal_networks_differ_by_chance_as_often_as_the_level_says(tails: str, items: int) -> None:
    found: list[float] = []
    for seed in range(250):
        rng = np.random.default_rng([seed, items])
        first = rng.normal(size=items).astype(np.float32)
        found.append(lead_p_value(first, (first + getattr(rng, tails)(size=items)).astype(np.float32)))
    for level in (0.05, 0.5):
        low, high = binom.ppf([0.001, 0.999], len(found), level)
        assert low <= sum(p <= level for p in found) <= high


def test_the_paired_test_of_numbers_is_the_sign_flip_test() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.5, 1, size=(2, 12)).astype(np.float32)
    exact = [
        permutation_test(
            (sign * (first - second),), np.sum, permutation_type="samples", n_resamples=2**12, alternative="greater"
        )
        for sign in (1, -1)
    ]
    assert lead_p_value(first, second) == pytest.approx(exact[0].pvalue, abs=0.02)
    assert lead_p_value(second, first) == pytest.approx(exact[1].pvalue, abs=0.02)
    # Items on which they do not differ tell nothing, and a network differs from itself by nothing.
    more, same = np.concatenate([first, second]), np.concatenate([second, second])
    assert lead_p_value(more, same) == lead_p_value(first, second)
    assert lead_p_value(first, first) == 1.0


def test_a_paired_difference_of_many_items_is_found() -> None:
    """A tenth of a spread on 10,000 items: ten standard errors, as few flips as they allow."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=10_000).astype(np.float32)
    second = (first - 0.1 + rng.standard_t(3, size=10_000) / math.sqrt(3)).astype(np.float32)
    assert lead_p_value(first, second) < 0.002
    assert lead_p_value(first * np.float32(2**20), second * np.float32(2**20)) == lead_p_value(first, second)


# --- beside another ranking -------------------------------------------------------------------------------------------

RANKS = st.integers(FEWEST_RANKED, 14).flatmap(lambda n: st.lists(st.permutations(range(n)), min_size=3, max_size=3))


@settings(max_examples=40, deadline=None)
@given(RANKS)
def test_a_partial_tau_is_the_correlation_of_what_the_third_ranking_leaves(ranks: list[list[int]]) -> None:
    """Kendall's closed form is the partial correlation of the signs of pairs, which least squares gives too."""
    first, truth, given_ = (np.sign(np.subtract.outer(r, r))[np.triu_indices(len(r), 1)].astype(float) for r in ranks)

    def residual(signs: np.ndarray) -> np.ndarray:
        return signs - given_ * (signs @ given_) / (given_ @ given_)

    left = [residual(first), residual(truth)]
    squares = [float(part @ part) for part in left]
    found = rank_agreement({"first": ranks[0], "given": ranks[2]}, ranks[1], given="given")["first"]
    if min(squares) < 1e-6:  # one of them is the third ranking, or its reverse
        assert found.partial is None
    else:
        assert found.partial is not None
        assert found.partial.value == pytest.approx(float(left[0] @ left[1]) / math.sqrt(squares[0] * squares[1]), abs=1e-9)
        assert -1 <= found.partial.low <= found.partial.value <= found.partial.high <= 1


def test_the_ranking_that_is_given_has_nothing_left() -> None:
    truth = [1.0, 4, 2, 3, 6, 5, 8, 7]
    found = rank_agreement({"same": truth, "copy": [2 * t for t in truth], "given": truth[::-1]}, truth, given="given")
    assert found["given"].partial is None
    assert found["given"].lead is None
    assert found["same"] == found["copy"]
    assert partial_tau(1.0, 1.0, 1.0) != partial_tau(1.0, 1.0, 1.0)  # not a number
    assert float(partial_tau(0.5, 0.0, 0.3)) == pytest.approx(0.5 / math.sqrt(1 - 0.3**2))


@pytest.mark.parametrize("subnets", [12, 30])
def test_the_interval_of_a_partial_tau_covers(subnets: int) -> None:
    """Of a ranking that knows, with noise, what the given one does not."""
    covered, repetitions = 0, 150
    for seed in range(repetitions):
        size, own, *noise = np.random.default_rng(seed).normal(size=(4, subnets))
        truth = size + own
        found = rank_agreement({"knows": own + noise[0], "size": size + noise[1]}, truth.tolist(), given="size")["knows"]
        assert found.partial is not None
        covered += found.partial.low <= PARTIAL <= found.partial.high
    assert covered >= binom.ppf(RARELY, repetitions, 0.95)


PARTIAL = 0.355
"""The partial tau of the test above, of 100 x 2,000 subnets."""


# --- things that were measured again ----------------------------------------------------------------------------------


def measured(rng: np.random.Generator, things: int, noise: float) -> tuple[np.ndarray, list[list[float]]]:
    """True values of standard deviation 1, and measurements: two of every third thing."""
    true = rng.normal(size=things)
    return true, [[t + noise * rng.normal() for _ in range(1 + (i % 3 == 0))] for i, t in enumerate(true)]


@pytest.mark.parametrize(("things", "noise"), [(60, 1.0), (60, 0.3), (24, 0.5)])
def test_the_highest_tau_is_what_true_values_have(things: int, noise: float) -> None:
    covered, perfect, values, repetitions = 0, list[float](), list[float](), 150
    expected = 2 / math.pi * math.asin(math.sqrt(1 / (1 + noise**2 * 5 / 6)))  # of a third of them two are averaged
    for seed in range(repetitions):
        true, groups = measured(np.random.default_rng([seed, things]), things, noise)
        found = measured_noise(groups)
        assert found is not None
        assert found.repeated == things // 3
        covered += found.highest.low <= expected <= found.highest.high
        perfect.append(tau_b(true.tolist(), [float(np.mean(group)) for group in groups]))
        values.append(found.highest.value)
    assert np.mean(perfect) == pytest.approx(expected, abs=0.015)
    assert np.median(values) == pytest.approx(expected, abs=0.03)
    assert covered >= binom.ppf(RARELY, repetitions, 0.95)


def test_noise_is_the_spread_of_repeated_measurements() -> None:
    found = measured_noise([[0.0, 2.0], [4.0], [8.0, 6.0], [3.0]])
    assert found is not None
    assert found.noise == pytest.approx(math.sqrt(2))
    assert found.between is None  # of two things
    same = measured_noise([[1.0, 1.0], [2.0, 2.0], [5.0]])
    assert same is not None
    assert (same.noise, same.highest.value) == (0.0, pytest.approx(1.0))
    alike = measured_noise([[1.0, 3.0], [2.0], [2.0, 2.0], [2.0]])
    assert alike is not None
    assert (alike.spread, alike.highest.low) == (0.0, 0.0)
    assert measured_noise([[1.0], [2.0], [3.0]]) is None
    assert measured_noise([[1.0, 2.0], [2.0]]) is None


@pytest.mark.parametrize(("things", "noise"), [(60, 1.0), (24, 0.5)])
def test_regret_covers_what_the_best_of_many_is_really_above(things: int, noise: float) -> None:
    """The measured lead of the best is too large; the true one lies in the interval."""
    covered, luck, repetitions = 0, list[float](), 80
    for seed in range(repetitions):
        rng = np.random.default_rng([seed, things])
        true, groups = measured(rng, things, noise)
        champion = float(rng.choice([0.0, 1.0, 1.5]))
        own = [champion + noise * rng.normal() for _ in range(2)]
        found = regret(groups, own)
        assert found is not None
        assert 0 <= found.low <= found.value <= found.high
        really = max(0.0, float(true.max()) - champion)
        covered += found.low <= really <= found.high
        luck.append(max(0.0, max(float(np.mean(group)) for group in groups) - float(np.mean(own))) - really)
    assert np.mean(luck) > 0.1 * noise
    assert covered >= binom.ppf(RARELY, repetitions, 0.93)  # the population is itself estimated


def test_a_champion_far_above_all_has_no_regret() -> None:
    groups = [[0.1 * i, 0.1 * i + 0.01] for i in range(10)]
    found = regret(groups, [5.0, 5.0])
    assert found == Interval(0.0, 0.0, 0.0)
    assert regret([[1.0], [2.0], [3.0]], [1.0]) is None
