"""Racing: a true parent is stopped no more often than promised, and a clear loser soon."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from toy_space import Toy, drive, large_problem, result, toy_score

from raysearch.search import Evolution, EvolutionConfig, Race, RacingConfig, Result, Sample
from raysearch.search.protocol import pack
from raysearch.search.racing import settled_bits, settled_numbers, settled_weighted_bits

KINDS = {"bool": "bits", "float32": "float32"}


def race(incumbent: np.ndarray, draw: str = "0/a/b") -> Race:
    return Race("a", draw, error=0.02, block=100, outcomes=pack(incumbent), kind=KINDS[incumbent.dtype.name])


def pair(images: int, right: int, losses: int, gains: int) -> tuple[np.ndarray, np.ndarray]:
    """Correctness of an incumbent and of a candidate that loses and gains so many images."""
    incumbent = np.arange(images) < right
    candidate = incumbent.copy()
    candidate[:losses] = False
    candidate[right : right + gains] = True
    return incumbent, candidate


def share_stopped(incumbent: np.ndarray, candidate: np.ndarray, *, error: float, draws: int) -> float:
    orders = [race(incumbent, str(i)).order(len(incumbent)) for i in range(draws)]
    return sum(settled_bits(incumbent[order], candidate[order], error=error) for order in orders) / draws


@pytest.mark.parametrize(("images", "right", "error"), [(10, 7, 0.7), (12, 8, 0.3), (14, 11, 0.5)])
def test_exactly_no_true_parent_is_stopped_too_often(images: int, right: int, error: float) -> None:
    """Over all orders of a few images, for every candidate with at least as many right as the incumbent."""
    worst = 0.0
    # The order of the incumbent's right and wrong images, which is the same in every draw.
    shown = np.arange(images) < right
    shown = shown[race(shown).order(images)]
    hits, misses = np.flatnonzero(shown), np.flatnonzero(~shown)
    for gains in range(len(misses) + 1):
        for losses in range(min(gains, len(hits)) + 1):
            stopped = 0
            for lost in combinations(hits, losses):
                for gained in combinations(misses, gains):
                    candidate = shown.copy()
                    candidate[list(lost)] = False
                    candidate[list(gained)] = True
                    stopped += settled_bits(shown, candidate, error=error)
            share = stopped / (math.comb(len(hits), losses) * math.comb(len(misses), gains))
            assert share <= error
            worst = max(worst, share)
    assert worst > error / 10  # otherwise nothing was at stake


@pytest.mark.parametrize("error", [0.5, 0.8])
def test_exactly_no_true_parent_is_stopped_too_often_where_items_stand_for_others(error: float) -> None:
    """Over all orders of a few weighted images, for every candidate whose weighted sum is at least the incumbent's."""
    weights = np.array([1.0, 1.0, 2.0, 3.0, 5.0])
    incumbent = np.array([True, False, True, True, False])
    orders = [np.array(order) for order in permutations(range(5))]
    worst = 0.0
    for bits in product([False, True], repeat=5):
        candidate = np.array(bits)
        if weights @ candidate >= weights @ incumbent:
            stopped = [settled_weighted_bits(incumbent[o], candidate[o], weights[o], error=error) for o in orders]
            worst = max(worst, float(np.mean(stopped)))
    assert 0 < worst <= error


def test_a_loser_on_weighted_images_is_stopped_early_and_a_better_candidate_is_not() -> None:
    rng = np.random.default_rng(0)
    weights = np.where(np.arange(1_000) < 700, 1.0, 12.0)
    incumbent = rng.random(1_000) < 0.6
    worse = np.where(rng.random(1_000) < 0.25, rng.random(1_000) < 0.3, incumbent)
    better = np.where(rng.random(1_000) < 0.25, rng.random(1_000) < 0.9, incumbent)

    def seen(candidate: np.ndarray, draw: int) -> int:
        order = np.random.default_rng(draw).permutation(1_000)
        args = incumbent[order], candidate[order], weights[order]
        looks = range(100, 1_000, 100)
        return next((n for n in looks if settled_weighted_bits(args[0], args[1][:n], args[2], error=0.02)), 1_000)

    assert np.median([seen(worse, draw) for draw in range(40)]) <= 600
    assert [seen(better, draw) for draw in range(40)] == [1_000] * 40


def test_a_race_on_a_sample_sees_its_items_and_their_weights() -> None:
    pilots = [np.random.default_rng(i).random(400) < 0.7 for i in range(5)]
    sample = Sample.draw(pilots, size=120, stream="0")
    raced = Race("a", "0/a/b", error=0.02, block=20, outcomes=pack(pilots[0]), sample=sample)
    order = raced.order(400)
    assert sorted(order) == list(sample.index)
    assert list(order) != sorted(order)
    weights = raced.weights(order)
    assert weights is not None
    assert dict(zip(order, weights, strict=True)) == dict(zip(sample.index, 1 / sample.probability, strict=True))
    assert raced.settled(pilots[0][order], np.zeros(100, dtype=bool), weights=weights)
    assert not raced.settled(pilots[0][order], pilots[0][order][:100], weights=weights)


@pytest.mark.parametrize(("images", "right", "losses"), [(400, 320, 12), (1000, 930, 25), (3000, 2700, 60)])
def test_a_candidate_that_ties_is_stopped_no_more_often_than_promised(images: int, right: int, losses: int) -> None:
    incumbent, candidate = pair(images, right, losses, losses)
    error, draws = 0.1, 400
    share = share_stopped(incumbent, candidate, error=error, draws=draws)
    assert share <= error + 3 * math.sqrt(error * (1 - error) / draws)
    assert share > 0
    assert share_stopped(incumbent, candidate, error=0.0, draws=20) == 0


def test_a_clear_loser_is_stopped_early_and_a_better_candidate_is_not() -> None:
    incumbent, loser = pair(2000, 1800, losses=100, gains=40)
    orders = [race(incumbent, str(i)).order(2000) for i in range(20)]
    assert all(settled_bits(incumbent[order], loser[order[:1000]], error=0.02) for order in orders)
    assert not any(settled_bits(incumbent[order], loser[order[:1000]], error=0.0) for order in orders)
    _, better = pair(2000, 1800, losses=40, gains=100)
    assert not any(settled_bits(incumbent[order], better[order], error=0.02) for order in orders)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40), st.integers(0, 40))
def test_without_error_only_what_is_certain_stops(bits: list[tuple[bool, bool]], seen: int) -> None:
    """A candidate is out exactly when its remaining images, all right, would not bring it level."""
    incumbent, candidate = np.array(bits, bool).T
    seen = min(seen, len(bits))
    best = int(candidate[:seen].sum()) + len(bits) - seen
    certain = best < incumbent.sum()
    assert settled_bits(incumbent, candidate[:seen], error=0.0) <= certain
    assert not certain or settled_bits(incumbent, candidate[:seen], error=0.0)
    assert settled_bits(incumbent, candidate[:seen], error=0.02) or not certain


def test_without_error_a_search_with_races_asks_what_a_search_without_them_asks() -> None:
    config = EvolutionConfig(population=20, generations=6, parents=5, mutations=10, crossovers=5)

    def answers(arch: Toy) -> np.ndarray:
        chance = np.random.default_rng(int(arch.id[:8], 16))
        return chance.random(200) < 0.5 + 0.5 * toy_score(arch)

    plain = Evolution(large_problem(), config, seed=0)
    asked = drive(plain, lambda arch: replace(result(arch, score=answers(arch).mean()), items_seen=200))

    raced = Evolution(large_problem(), config, seed=0)
    seen: list[int] = []

    def outcome(arch: Toy) -> Result:
        right, images = answers(arch), 200
        if raced.threshold is not None:
            against = race(answers(raced.threshold), arch.id)
            order = against.order(200)
            looks = (n for n in range(20, 200, 20) if settled_bits(against.by_item(200)[order], right[order[:n]], error=0.0))
            images = next(looks, 200)
            right = right[order[:images]]
        seen.append(images)
        score = replace(result(arch, score=right.mean()), items_seen=images)
        return score if images == 200 else replace(score, excluded="raced")

    assert drive(raced, outcome) == asked
    assert raced.parents == plain.parents
    assert sum(seen) < 0.95 * 200 * len(asked)


@given(st.integers(1, 300), st.integers(0, 300))
def test_the_order_mixes_the_incumbents_right_and_wrong_images_evenly(images: int, right: int) -> None:
    right = min(right, images)
    incumbent = np.random.default_rng(right).permutation(np.arange(images) < right)
    order = race(incumbent).order(images)
    assert np.array_equal(np.sort(order), np.arange(images))
    assert np.array_equal(order, race(incumbent).order(images))
    expected = np.arange(1, images + 1) * right / images
    assert np.abs(np.cumsum(incumbent[order]) - expected).max() <= 1.5


def test_every_candidate_has_an_order_of_its_own() -> None:
    incumbent, _ = pair(100, 80, 0, 0)
    assert not np.array_equal(race(incumbent, "0/a/b").order(100), race(incumbent, "0/a/c").order(100))


# --- numbers ---

Draw = Callable[[np.random.Generator, int], np.ndarray]

EVEN: dict[str, Draw] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "laplace": lambda rng, n: rng.laplace(size=n),
    "cauchy": lambda rng, n: rng.standard_cauchy(n),
    "t3": lambda rng, n: rng.standard_t(3, n),
    "one item in ten differs": lambda rng, n: rng.standard_normal(n) * (rng.random(n) < 0.1),
    "two sizes": lambda rng, n: rng.choice([-5.0, -0.1, 0.1, 5.0], n),
    "ever larger": lambda rng, n: rng.standard_normal(n) * np.arange(1, n + 1) ** 2,
    "ever smaller": lambda rng, n: rng.standard_normal(n) / np.arange(1, n + 1) ** 2,
    "a little better": lambda rng, n: rng.standard_normal(n) + 0.02,
}
"""Differences of a candidate that is as good as its incumbent: even to both sides, with all kinds of tails."""


def numbers(difference: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of an incumbent and of a candidate with this difference."""
    incumbent = np.random.default_rng([seed, 1]).normal(-3, 1, len(difference)).astype(np.float32)
    return incumbent, (incumbent + difference).astype(np.float32)


@pytest.mark.parametrize("draw", EVEN.values(), ids=EVEN)
@pytest.mark.parametrize("items", [200, 2000])
def test_an_equal_candidate_is_stopped_no_more_often_than_promised_whatever_the_tails(draw: Draw, items: int) -> None:
    """At any look after any item: what is settled once is settled at the end."""
    error, draws, stopped = 0.1, 500, 0
    for seed in range(draws):
        incumbent, candidate = numbers(draw(np.random.default_rng([seed, 0]), items), seed)
        stopped += settled_numbers(incumbent, candidate, error=error, block=20)
    assert stopped <= binom.ppf(0.999, draws, error)


def test_the_promise_is_used() -> None:
    """Of equal candidates some are stopped: a test that never stops would keep every promise."""
    pairs = [numbers(np.random.default_rng([seed, 0]).standard_normal(2000), seed) for seed in range(200)]
    assert sum(settled_numbers(*pair, error=0.1, block=20) for pair in pairs) >= 4
    assert not any(settled_numbers(*pair, error=0.0, block=20) for pair in pairs)


@pytest.mark.parametrize("name", ["normal", "laplace", "t3", "one item in ten differs"])
def test_a_worse_candidate_is_stopped_and_a_better_one_is_not(name: str) -> None:
    """A fifth of a spread behind: most within 600 items of 2,000, all in the end."""
    soon, late, better = 0, 0, 0
    for seed in range(50):
        difference = EVEN[name](np.random.default_rng([seed, 0]), 2000)
        behind = 0.2 * difference.std()
        incumbent, worse = numbers(difference - behind, seed)
        soon += settled_numbers(incumbent, worse[:600], error=0.02, block=100)
        late += settled_numbers(incumbent, worse, error=0.02, block=100)
        incumbent, ahead = numbers(difference + behind, seed)
        better += settled_numbers(incumbent, ahead, error=0.02, block=100)
    assert soon >= 40
    assert late == 50
    assert better == 0


floats = st.lists(st.tuples(*[st.floats(-9, 9, width=32)] * 2), min_size=1, max_size=60)


@given(floats, st.integers(1, 60), st.integers(1, 20), st.sampled_from([0.05, 0.5, 0.95]), st.integers(-60, 60))
def test_what_is_settled_stays_settled_in_any_unit(
    pairs: list[tuple[float, float]], seen: int, block: int, error: float, power: int
) -> None:
    incumbent, candidate = np.array(pairs, np.float32).T
    seen = min(seen, len(pairs))
    early = settled_numbers(incumbent, candidate[:seen], error=error, block=block)
    assert settled_numbers(incumbent, candidate, error=error, block=block) or not early
    unit = np.float32(2.0**power)
    assert settled_numbers(incumbent * unit, candidate[:seen] * unit, error=error, block=block) == early


def test_numbers_are_seen_in_an_order_that_no_outcome_decides() -> None:
    one, two = (np.random.default_rng(seed).normal(size=300).astype(np.float32) for seed in range(2))
    order = race(one).order(300)
    assert np.array_equal(np.sort(order), np.arange(300))
    assert np.array_equal(order, race(two).order(300))
    assert not np.array_equal(order, race(one, "0/a/c").order(300))


def test_a_race_takes_the_test_of_its_outcomes() -> None:
    """Bits that are all wrong are out for certain; the same answers as numbers never are, but soon beyond doubt."""
    bits, numbers = np.ones(300, bool), np.ones(300, np.float32)
    certain = replace(race(bits), error=0.0)
    assert certain.settled(bits, ~bits[:1])
    assert not replace(race(numbers), error=0.0).settled(numbers, np.zeros(300, np.float32))
    assert race(numbers).settled(numbers, np.zeros(100, np.float32))
    assert not race(numbers).settled(numbers, np.zeros(99, np.float32)), "a block tells the unit first"


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"error": 1.0}, "error is 1, must be"),
        ({"error": -0.1}, "error is -0.1, must be"),
        ({"error": math.nan}, "error is nan, must be"),
        ({"block": 0}, "block is 0, must be"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RacingConfig(**settings)  # pyright: ignore[reportArgumentType]
