"""Who is judged again, who becomes champion, and that what a search claims of its finalists is right as often as it says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binom
from toy_space import Toy

from raysearch.errors import UserError
from raysearch.search import Candidate, Proposal, Result
from raysearch.search.finalists import best_of, finalists, judged
from raysearch.search.protocol import pack
from raysearch.space import Constraint, Cost
from raysearch.statistics import selection_bias

ITEMS = 400


def wrong_on(*items: int) -> np.ndarray:
    right = np.ones(ITEMS, bool)
    right[list(items)] = False
    return right


def result(right: np.ndarray, params: int, *, raced: bool = False) -> Result:
    """One that answered so, with a loss that tells nothing."""
    excluded = "raced" if raced else None
    return Result(float(right.mean()), len(right), params, 1_000_000 - params, 0.5, pack(right), excluded=excluded)


def candidates(*told: Result) -> list[Candidate]:
    archs = [Toy(8 + i, (1,), (2,)) for i in range(len(told))]
    return [
        Candidate(Proposal(arch, i, 0, "random"), Cost(r.params, r.macs), r)
        for i, (arch, r) in enumerate(zip(archs, told, strict=True))
    ]


def indices(chosen: Sequence[Candidate]) -> list[int]:
    return [c.proposal.index for c in chosen]


def test_finalists_are_the_best_and_cheaper_ones_that_equal_it_within_the_error():
    made = candidates(
        *(result(wrong_on(0), 1_000 + i) for i in range(6)),  # equals, nearly all as large as allowed
        result(wrong_on(0, 1), 600),  # an image worse: within a standard error
        result(wrong_on(1), 900),  # as good as the best and cheaper than it: the best
        result(wrong_on(0, 2), 700),  # as good as 6 and not as cheap
        result(wrong_on(*range(10, 18)), 100),  # eight images worse: beyond it
        result(wrong_on(), 50, raced=True),
    )
    assert indices(finalists(made, count=4, cheaper=2, quantity="params")) == [7, 0, 1, 6]
    assert indices(finalists(made, count=3, cheaper=0, quantity="params")) == [7, 0, 1]
    assert indices(finalists(made, count=1, cheaper=1, quantity="params")) == [7]
    # By MACs, of which these have the more the fewer parameters they have, another one is best, and nothing is cheaper than it.
    assert indices(finalists(made, count=2, cheaper=1, quantity="macs")) == [7, 5]


def test_the_cheap_ones_are_spread_over_the_front():
    ladder = candidates(*(result(wrong_on(*range(i)), 1_000 - 10 * i) for i in range(10)))  # an image for ten parameters
    chosen = indices(finalists(ladder, count=10, cheaper=10, quantity="params"))
    assert 1 in chosen
    assert 0 in chosen
    few = indices(finalists(ladder, count=2, cheaper=1, quantity="params"))
    assert few == [0, 1], "one image is one standard error; two are more"


def test_a_search_of_failures_has_no_finalists():
    with pytest.raises(UserError, match="no candidate competes"):
        finalists(candidates(result(wrong_on(), 5, raced=True)), count=3, cheaper=1, quantity="params")


def test_the_champion_is_the_cheapest_that_the_best_does_not_beat():
    fresh = [wrong_on(), wrong_on(*range(5)), wrong_on(*range(4)), wrong_on(*range(9)), wrong_on(7)]
    verdict = judged(fresh, costs=[100.0, 40.0, 50.0, 30.0, 60.0])
    assert verdict.p_values == (1.0, 1 / 2**5, 1 / 2**4, 1 / 2**9, 1 / 2)
    assert verdict.beaten == (False, True, False, True, False)  # 30 and 40 are beaten, 50 is not: no further test
    assert verdict.champion == 2
    assert judged(fresh[:2], costs=[100.0, 40.0]).champion == 0
    assert judged([wrong_on(0), wrong_on()], costs=[10.0, 10.0]).champion == 0, "of equally dear ones the best"


def test_the_sequence_ends_at_the_first_that_is_not_beaten():
    """A claim about a dearer one would be one comparison more than the level allows."""
    verdict = judged([wrong_on(), wrong_on(0), wrong_on(*range(50))], costs=[100.0, 10.0, 20.0])
    assert verdict.champion == 1
    assert verdict.beaten == (False, False, False)


def test_the_best_on_fresh_images_is_the_highest_and_of_equals_the_first():
    results = [result(wrong_on(0, 1), 1), result(wrong_on(2), 2), result(wrong_on(3), 3)]
    assert best_of(results) == 1


def test_costs_are_those_of_the_budget():
    assert Constraint().quantity == "params"
    assert Constraint(max_params=1e6, max_macs=1e9).quantity == "params"
    assert Constraint(max_macs=1e9).quantity == "macs"
    assert Constraint(max_params=1e6, max_latency_ms=3).quantity == "latency"


# --- simulations: whole searches whose truth is known ------------------------------------------------------------------


def networks(rng: np.random.Generator, accuracies: Sequence[float], items: int) -> np.ndarray:
    """Right and wrong answers of networks that agree on most items, as those of one supernet do: (networks, items)."""
    hard = rng.random(items) < 0.2
    draws = rng.random((len(accuracies), items))
    # All are right where it is easy; where it is hard, each with the probability that gives it its accuracy.
    shares = 1 - (1 - np.asarray(accuracies)[:, None]) / 0.2
    return np.where(hard, draws < shares, True)


def search(rng: np.random.Generator, accuracies: Sequence[float]) -> tuple[list[Candidate], dict[int, np.ndarray]]:
    """A search of so many networks that cost the more the later they come, and the fresh answers of each."""
    found = networks(rng, accuracies, ITEMS)
    fresh = networks(rng, accuracies, ITEMS)
    made = candidates(*(result(right, 100 + i) for i, right in enumerate(found)))
    return made, dict(enumerate(fresh))


@pytest.mark.parametrize("accuracy", [0.97, 0.88])
def test_of_ten_equal_networks_a_search_claims_something_false_as_rarely_as_it_says(accuracy: float):
    false, searches = 0, 600
    for seed in range(searches):
        made, fresh = search(np.random.default_rng(seed), [accuracy] * 10)
        chosen = finalists(made, count=10, cheaper=5, quantity="params")
        verdict = judged([fresh[c.proposal.index] for c in chosen], [float(c.cost.params) for c in chosen])
        false += any(verdict.beaten)
    assert false / searches <= 0.05 + 3 * (0.05 * 0.95 / searches) ** 0.5
    assert false > 0, "a test that never claims anything holds any level"


def test_the_level_holds_where_some_networks_are_worse():
    """Claims about the worse ones are true; the next in the sequence, an equal, is claimed to be worse with 5 % at most."""
    false, true, searches = 0, 0, 1_000
    for seed in range(searches):
        rng = np.random.default_rng(seed)
        fresh = networks(rng, [0.97] + [0.90] * 3 + [0.97] * 6, ITEMS)
        verdict = judged(list(fresh), [100.0, *map(float, range(1, 10))])
        false += any(verdict.beaten[4:])
        true += sum(verdict.beaten[1:4])
    assert false / searches <= 0.05 + 3 * (0.05 * 0.95 / searches) ** 0.5
    assert true > 2.5 * searches, "what is worse is found"


@pytest.mark.parametrize("accuracy", [0.998, 0.97, 0.88])
def test_the_selection_bias_that_is_reported_is_the_real_one_within_its_interval(accuracy: float):
    """The real one: what the finalists' scores in the search are above their true accuracy, which is known here."""
    covered, real, reported, searches = 0, list[float](), list[float](), 200
    for seed in range(searches):
        made, fresh = search(np.random.default_rng(seed), [accuracy] * 60)
        chosen = finalists(made, count=10, cheaper=5, quantity="params")
        scores = [c.result.score for c in chosen if c.result is not None]
        found = selection_bias(scores, [fresh[c.proposal.index] for c in chosen])
        assert found is not None
        real.append(float(np.mean(scores)) - accuracy)
        reported.append(found.value)
        covered += found.low <= real[-1] <= found.high
    assert covered >= binom.ppf(0.001, searches, 0.95)
    assert np.mean(reported) == pytest.approx(np.mean(real), abs=0.002)
    if accuracy < 0.99:
        assert np.mean(real) > 0.004, "the best of sixty are lucky"
