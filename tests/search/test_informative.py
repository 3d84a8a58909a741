"""Scores from the items that tell networks apart: unbiased, of a known error, and true to the ranking on all items."""

from __future__ import annotations

import math
from itertools import product
from random import Random

import numpy as np
import pytest
from scipy.stats import kendalltau

from raysearch.search import Failure, Result
from raysearch.search.informative import (
    Informative,
    InformativeConfig,
    Sample,
    inclusion,
    probabilities,
    spread_of,
    surprises_expected,
)
from raysearch.search.protocol import ByItem, pack
from raysearch.statistics import paired_gap


def answers(count: int, *, items: int = 4_000, seed: int = 0, hard: float = 0.2, shift: float = 0.0) -> list[ByItem]:
    """Networks that agree on the easy items; which of the hard ones each has right follows from its skill and from chance."""
    rng = np.random.default_rng(seed)
    difficulty = np.where(np.arange(items) < hard * items, np.random.default_rng(1).normal(size=items), -8.0)
    difficulty[items // 2 : items // 2 + int(hard * items)] += shift  # items that were easy, for another population
    skills = np.linspace(0, 0.6, count)
    return [rng.random(items) < 1 / (1 + np.exp(difficulty - skill)) for skill in skills]


def told(by_item: ByItem, sample: Sample | None = None) -> Result:
    """The result of a candidate, as a pass over all items or those of a sample gives it."""
    if sample is None:
        return Result(float(by_item.mean()), len(by_item), params=1, macs=1, outcomes=pack(by_item))
    drawn, seen = by_item[sample.index], np.zeros(sample.items, dtype=bool)
    seen[sample.index] = drawn
    return Result(sample.score(drawn), len(sample), params=1, macs=1, outcomes=pack(seen), sample=sample.id)


def test_probabilities_follow_disagreement_and_are_as_many_as_asked_for() -> None:
    spread = np.array([0.5, 0.25, 0.0, 0.0, 0.0, 0.25])
    found = inclusion(spread, 3.0)
    assert found.sum() == pytest.approx(3.0)
    assert found[0] == 1.0  # its share would be more than certain
    assert found[1] == found[5] > 2 * found[2] > 0
    assert (inclusion(spread, 6.0) == 1).all()
    assert inclusion(np.zeros(8), 2.0) == pytest.approx(np.full(8, 0.25))
    assert (probabilities(answers(20, items=500), size=100) >= 0.1 * 100 / 500).all()


@pytest.mark.parametrize("kind", [bool, np.float32])
def test_estimates_and_their_errors_are_unbiased_over_all_draws(kind: type) -> None:
    """Every one of the 2^9 draws with its probability: the mean of the estimate is the score on all items."""
    rng = np.random.default_rng(3)
    numbers = rng.normal(size=(6, 9)) + rng.normal(size=9)
    outcomes = [row > 0 if kind is bool else row.astype(np.float32) for row in numbers]
    pilots, (first, second) = outcomes[:4], outcomes[4:]
    probability = probabilities(pilots, size=4)
    draws = [np.array(bits) for bits in product([False, True], repeat=9)]
    chances = np.array([np.prod(np.where(drawn, probability, 1 - probability)) for drawn in draws])
    assert chances.sum() == pytest.approx(1)
    samples = [Sample.of(drawn, pilots, probability) for drawn in draws]
    for candidate in (first, second, pilots[0]):
        scores = np.array([sample.score(candidate[sample.index]) for sample in samples])
        squares = np.array([sample.standard_error(candidate[sample.index]) ** 2 for sample in samples])
        true = candidate.mean(dtype=np.float64)
        assert chances @ scores == pytest.approx(true)
        assert chances @ squares == pytest.approx(chances @ (scores - true) ** 2)
    gaps = np.array([sample.gap(first[sample.index], second[sample.index]).value for sample in samples])
    squares = np.array([sample.draw_error(first[sample.index], second[sample.index]) ** 2 for sample in samples])
    true = first.mean(dtype=np.float64) - second.mean(dtype=np.float64)
    assert chances @ gaps == pytest.approx(true)
    assert chances @ squares == pytest.approx(chances @ (gaps - true) ** 2)


def test_a_gap_has_the_error_of_all_items_and_that_of_the_draw() -> None:
    networks = answers(22)
    sample = Sample.draw(networks[:20], size=500, stream="0")
    first, second = networks[20:]
    found, whole = sample.gap(first[sample.index], second[sample.index]), paired_gap(first, second)
    drawn = sample.draw_error(first[sample.index], second[sample.index])
    assert found.standard_error == pytest.approx(math.hypot(whole.standard_error, drawn), rel=0.2)
    assert abs(found.value - whole.value) < 4 * drawn
    everything = Sample.of(np.ones(len(first), dtype=bool), networks[:20], np.ones(len(first)))
    assert everything.gap(first, second).value == pytest.approx(whole.value)
    assert everything.gap(first, second).standard_error == pytest.approx(whole.standard_error)


def test_items_are_drawn_as_often_as_their_probabilities_say() -> None:
    pilots = answers(10, items=200)
    probability = probabilities(pilots, size=60)
    draws = [Sample.draw(pilots, size=60, stream=f"{i}") for i in range(400)]
    often = np.bincount(np.concatenate([sample.index for sample in draws]), minlength=200) / 400
    assert np.abs(often - probability).max() < 5 * 0.5 / math.sqrt(400)
    assert draws[0].id == Sample.draw(pilots, size=60, stream="0").id != draws[1].id
    assert (draws[0].index == Sample.draw(pilots, size=60, stream="0").index).all()


def test_informative_items_rank_networks_better_than_as_many_even_ones() -> None:
    networks = answers(100)
    pilots, others = networks[::5], [network for i, network in enumerate(networks) if i % 5]
    whole = [network.mean() for network in others]
    taus: dict[str, list[float]] = {"informative": [], "even": []}
    for i in range(20):
        sample = Sample.draw(pilots, size=400, stream=f"{i}")
        taus["informative"].append(kendalltau(whole, [sample.score(network[sample.index]) for network in others])[0])
        even = np.array(Random(i).sample(range(len(others[0])), 400))
        taus["even"].append(kendalltau(whole, [network[even].mean() for network in others])[0])
    assert np.median(taus["informative"]) > np.median(taus["even"]) + 0.1


def driven(
    networks: list[ByItem], config: InformativeConfig, *, ahead: int = 1
) -> tuple[list[str | None], Informative, list[str]]:
    """What each candidate is scored on when up to ``ahead`` are asked for before they are told."""
    said: list[str] = []
    informative = Informative(config, seed=0, say=said.append)
    samples: list[Sample | None] = []
    counted = 0
    while counted < len(networks):
        while len(samples) < min(counted + ahead, len(networks)) and not informative.holds(len(samples), counted):
            samples.append(informative.sample)
        informative.tell(told(networks[counted], samples[counted]))
        counted += 1
        if counted == len(samples):
            informative.settle(counted)
    return [sample and sample.id for sample in samples], informative, said


def test_the_first_candidates_are_pilots_and_nothing_depends_on_how_many_are_under_way() -> None:
    networks = answers(60)
    config = InformativeConfig(images=400, pilots=12, check=16)
    of, informative, said = driven(networks, config)
    assert of[:12] == [None] * 12
    assert len(set(of[12:])) == 1
    assert of[12] in informative.samples
    assert len(informative.samples) == 1  # checked three times: the same population
    assert len(said) == 1
    assert "12 candidates answer" in said[0]
    for ahead in (3, 7, 64):
        assert driven(networks, config, ahead=ahead)[0] == of


def test_a_population_that_moved_gets_new_pilots() -> None:
    """Some of the images that all pilots had right are hard for the later ones."""
    networks = [*answers(40), *answers(60, seed=5, shift=8.0)]
    of, informative, said = driven(networks, InformativeConfig(images=400, pilots=20, check=20))
    assert of[:20] == [None] * 20
    assert of[40] is not None  # nobody can know yet
    again = of.index(None, 20)
    assert again == 60
    assert of[again : again + 20] == [None] * 20
    assert of[again + 20] not in (None, of[20])
    assert len(informative.samples) == 2
    assert "disagree on other images" in said[1]


def test_pilots_that_fail_are_made_up_for() -> None:
    informative = Informative(InformativeConfig(images=100, pilots=3), seed=0)
    for outcome in [Failure("no memory")] * 2 + [told(answers(1, items=300)[0])]:
        informative.tell(outcome)
    informative.settle(3)
    assert informative.sample is None
    assert not informative.holds(5, 3)
    assert informative.holds(6, 5)
    for network in answers(3, items=300, seed=2):
        informative.tell(told(network))
    informative.settle(6)
    assert informative.sample is not None


def test_how_often_unanimity_is_broken_is_expected_from_those_who_stood_alone() -> None:
    networks = answers(200)
    found = []
    for i in range(0, 180, 20):
        pilots, spread = networks[i : i + 20], spread_of(networks[i : i + 20])
        unanimous = spread == 0
        new = [((network != pilots[0]) & unanimous).mean() for network in networks[i + 20 :][:5]]
        found.append(np.mean(new) / surprises_expected(pilots))
    assert 0.5 < np.mean(found) < 1.6
    assert surprises_expected([network.astype(np.float32) for network in networks[:3]]) == 0
