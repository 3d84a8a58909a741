"""Racing: a true parent is stopped no more often than promised, and a clear loser soon."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_space import Toy, drive, large_problem, result, toy_score

from raysearch.search import Evolution, EvolutionConfig, Race, RacingConfig, Result
from raysearch.search.racing import settled


def race(incumbent: np.ndarray, draw: str = "0/a/b") -> Race:
    return Race("a", draw, error=0.02, block=100, outcomes=np.packbits(incumbent).tobytes())


def pair(images: int, right: int, losses: int, gains: int) -> tuple[np.ndarray, np.ndarray]:
    """Correctness of an incumbent and of a candidate that loses and gains so many images."""
    incumbent = np.arange(images) < right
    candidate = incumbent.copy()
    candidate[:losses] = False
    candidate[right : right + gains] = True
    return incumbent, candidate


def share_stopped(incumbent: np.ndarray, candidate: np.ndarray, *, error: float, draws: int) -> float:
    orders = [race(incumbent, str(i)).order(len(incumbent)) for i in range(draws)]
    return sum(settled(incumbent[order], candidate[order], error=error) for order in orders) / draws


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
                    stopped += settled(shown, candidate, error=error)
            share = stopped / (math.comb(len(hits), losses) * math.comb(len(misses), gains))
            assert share <= error
            worst = max(worst, share)
    assert worst > error / 10  # otherwise nothing was at stake


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
    assert all(settled(incumbent[order], loser[order[:1000]], error=0.02) for order in orders)
    assert not any(settled(incumbent[order], loser[order[:1000]], error=0.0) for order in orders)
    _, better = pair(2000, 1800, losses=40, gains=100)
    assert not any(settled(incumbent[order], better[order], error=0.02) for order in orders)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40), st.integers(0, 40))
def test_without_error_only_what_is_certain_stops(bits: list[tuple[bool, bool]], seen: int) -> None:
    """A candidate is out exactly when its remaining images, all right, would not bring it level."""
    incumbent, candidate = np.array(bits, bool).T
    seen = min(seen, len(bits))
    best = int(candidate[:seen].sum()) + len(bits) - seen
    certain = best < incumbent.sum()
    assert settled(incumbent, candidate[:seen], error=0.0) <= certain
    assert not certain or settled(incumbent, candidate[:seen], error=0.0)
    assert settled(incumbent, candidate[:seen], error=0.02) or not certain


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
            looks = (n for n in range(20, 200, 20) if settled(against.by_item(200)[order], right[order[:n]], error=0.0))
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"error": 1.0}, "racing.error is 1.0"),
        ({"error": -0.1}, "racing.error is -0.1"),
        ({"error": math.nan}, "racing.error is nan"),
        ({"block": 0}, "racing.block is 0"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RacingConfig(**settings)  # pyright: ignore[reportArgumentType]
