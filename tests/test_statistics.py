"""Numbers of the textbook, intervals that cover, tests that hold their level, ties, and what cannot be ranked or told."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, permutation_test
from scipy.stats import bootstrap as scipy_bootstrap

from raysearch.statistics import Interval, _taus, bootstrap, kendall_intervals, over_seeds, paired_gap, paired_p_value, tau_b


def test_an_interval_of_a_mean_is_what_scipy_says_and_covers() -> None:
    covered = 0
    for seed in range(200):
        values = np.random.default_rng(seed).normal(3, 1, size=40)
        found = bootstrap(lambda places, values=values: values[places].mean(axis=1), 40, seed=seed)
        assert found is not None
        assert found.value == pytest.approx(values.mean())
        covered += found.low <= 3 <= found.high
        if seed < 3:
            theirs = scipy_bootstrap((values,), np.mean, method="percentile", n_resamples=2_000, rng=seed).confidence_interval
            assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)
    assert 180 <= covered <= 198  # of 190; percentile intervals of small samples are a bit short


def test_what_has_no_value_has_no_interval() -> None:
    assert bootstrap(lambda places: np.full(len(places), np.nan), 5, seed=0) is None
    sometimes = bootstrap(lambda places: np.where(places[:, 0] == 1, np.nan, 7.0), 5, seed=0)
    assert sometimes == Interval(7.0, 7.0, 7.0)


def test_intervals_over_seeds_are_percentiles_from_four_on() -> None:
    assert over_seeds([3.0, 1.0, 2.0]) == Interval(2.0, 1.0, 3.0)
    many = over_seeds([float(i) for i in range(101)])
    assert many.value == 50.0
    assert 35 < many.low < 45
    assert 55 < many.high < 65
    even = over_seeds([1.0, 2.0, 4.0, 8.0])
    assert (even.value, even.low, even.high) == (3.0, 1.0, 8.0)
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
    taus, lead = kendall_intervals({"same": truth, "copy": truth, "back": [-t for t in truth]}, truth, seed=0)
    same, back = taus["same"], taus["back"]
    assert same is not None
    assert back is not None
    assert (same.value, same.low, same.high) == pytest.approx((1, 1, 1))
    assert (back.value, back.low, back.high) == pytest.approx((-1, -1, -1))
    assert lead is not None
    assert (lead.value, lead.low, lead.high) == pytest.approx((0, 0, 0))


def test_the_interval_covers_the_true_tau_as_often_as_it_says() -> None:
    """Normal pairs of correlation r have tau 2 / pi * asin(r). Percentile intervals of 20 pairs are known to be a bit short."""
    true, covered = 2 / math.pi * math.asin(0.6), 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        first = rng.normal(size=20)
        second = 0.6 * first + 0.8 * rng.normal(size=20)
        interval = kendall_intervals({"first": list(first)}, list(second), seed=seed)[0]["first"]
        assert interval is not None
        assert interval.low < interval.high
        covered += interval.low <= true <= interval.high
    assert 86 <= covered <= 99


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=12), st.integers(0, 99))
def test_resamples_are_scored_as_the_library_scores_them(pairs: list[tuple[int, int]], seed: int) -> None:
    """The ends of an interval are taus of resamples, with their repeated subnets and all other ties."""
    columns = np.array(pairs, float)
    draws = np.random.default_rng(seed).integers(len(pairs), size=(8, len(pairs)))
    expected = [tau_b(columns[draw, 0].tolist(), columns[draw, 1].tolist()) for draw in draws]
    assert _taus(columns[:, 0], columns[:, 1], draws) == pytest.approx(expected, nan_ok=True)


def test_the_same_seed_gives_the_same_interval() -> None:
    first, truth = [0.1, 0.3, 0.2, 0.5, 0.4, 0.4], [1, 3, 3, 4, 2, 6]
    assert kendall_intervals({"a": first}, truth, seed=1) == kendall_intervals({"a": first}, truth, seed=1)
    assert kendall_intervals({"a": first}, truth, seed=1) != kendall_intervals({"a": first}, truth, seed=2)


def test_a_constant_side_has_no_tau_and_no_lead() -> None:
    taus, lead = kendall_intervals({"flat": [1, 1, 1, 1], "rising": [1, 2, 3, 4]}, [1, 2, 3, 4], seed=0)
    assert taus["flat"] is None
    assert taus["rising"] is not None  # resamples that drew one subnet only are left out
    assert lead is None


@pytest.mark.parametrize(
    ("ranking", "truth", "words"), [([1, 2], [1, 2], "2 subnets cannot be ranked"), ([1, 2], [1, 2, 3], "a has 2 values for 3")]
)
def test_what_cannot_be_ranked_is_said(ranking: list[float], truth: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        kendall_intervals({"a": ranking}, truth, seed=0)


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
        return paired_p_value(np.array(first), np.array(second))

    assert p_value(alike, alike) == 1.0
    # Only the images on which they differ count: 6 to 0 is 2 / 2^6, however many others there are.
    assert p_value([*alike, *[True] * 6], [*alike, *[False] * 6]) == pytest.approx(2 / 2**6)
    assert p_value([False] * 6, [True] * 6) == pytest.approx(2 / 2**6)
    assert p_value([True, True, False], [False, True, True]) == 1.0


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
        found.append(paired_p_value(first, (first + getattr(rng, tails)(size=items)).astype(np.float32)))
    for level in (0.05, 0.5):
        low, high = binom.ppf([0.001, 0.999], len(found), level)
        assert low <= sum(p <= level for p in found) <= high


def test_the_paired_test_of_numbers_is_the_sign_flip_test() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.5, 1, size=(2, 12)).astype(np.float32)
    exact = permutation_test((first - second,), np.sum, permutation_type="samples", n_resamples=2**12).pvalue  # all flips
    assert paired_p_value(first, second) == pytest.approx(exact, abs=0.02)
    assert paired_p_value(first, second) == paired_p_value(second, first)
    # Items on which they do not differ tell nothing, and a network differs from itself by nothing.
    more, same = np.concatenate([first, second]), np.concatenate([second, second])
    assert paired_p_value(more, same) == paired_p_value(first, second)
    assert paired_p_value(first, first) == 1.0


def test_a_paired_difference_of_many_items_is_found() -> None:
    """A tenth of a spread on 10,000 items: ten standard errors, as few flips as they allow."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=10_000).astype(np.float32)
    second = (first - 0.1 + rng.standard_t(3, size=10_000) / math.sqrt(3)).astype(np.float32)
    assert paired_p_value(first, second) < 0.002
    assert paired_p_value(first * np.float32(2**20), second * np.float32(2**20)) == paired_p_value(first, second)
