from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from toy_space import Toy, large_problem, small_problem, toy_cost, toy_space

from raysearch.search import InfeasibleError, SearchProblem
from raysearch.space.cost import Constraint, Cost


def test_samples_are_the_spaces_own_within_the_band():
    """Every member of a small band, with the frequencies that the space gives them."""
    problem = small_problem(Constraint(max_params=3_000))
    members = [arch for arch in problem.space if toy_cost(arch).params <= 3_000]
    rng = Random(0)
    drawn = Counter(problem.sample(rng) for _ in range(1_000))
    assert set(drawn) == set(members)
    weight = {arch: 0.25**arch.depth for arch in members}  # depth first, then 4 equal options per block
    for arch in members:
        p = weight[arch] / sum(weight.values())
        assert abs(drawn[arch] - 1_000 * p) < 4 * (1_000 * p * (1 - p)) ** 0.5


def test_sample_keeps_the_band_and_the_exclusion():
    problem = large_problem(Constraint(min_params=35_000, max_params=37_000))
    seen: set[Toy] = set()
    for i in range(50):
        arch = problem.sample(Random(i), seen)
        assert arch is not None
        assert arch not in seen
        assert problem.admits(arch)
        seen.add(arch)


def test_admits_asks_for_membership_and_band():
    problem = large_problem(Constraint(max_params=60_000))
    assert problem.admits(problem.space.smallest())
    assert not problem.admits(problem.space.largest())
    assert not problem.admits(Toy(16, (1,), (2,)))  # cheap enough, but too shallow for the space


def test_a_band_that_chance_never_hits_is_found_by_walking():
    """The nine largest of 145 million subnets: at most one head less than the largest of all."""
    problem = large_problem(Constraint(min_params=89_300))
    problem.check()
    found: set[Toy] = set()
    for i in range(9):
        arch = problem.sample(Random(i), found)
        assert arch is not None
        assert arch not in found
        assert toy_cost(arch).params >= 89_300
        found.add(arch)


def test_the_last_members_of_a_listed_space_are_found_and_then_none():
    problem = small_problem()
    members = list(problem.space)
    assert problem.sample(Random(0), set(members[:-1])) == members[-1]
    assert problem.sample(Random(0), set(members)) is None


@pytest.mark.parametrize(
    ("constraint", "nearest"),
    [
        (Constraint(min_params=95_000), r"nearest 90,432 params with 1,537,344 MACs \(below\)"),
        (
            Constraint(min_params=9_377, max_params=9_380),
            r"nearest 9,376 params .* \(below\) and 9,888 params .* \(above\)",
        ),
        (Constraint(min_params=60_000, max_macs=500_000), r"\(below\) and .* \(above\)"),
    ],
)
def test_infeasible_band_is_named_beside_what_the_space_offers(constraint: Constraint, nearest: str):
    with pytest.raises(InfeasibleError, match=nearest) as caught:
        large_problem(constraint).check()
    message = str(caught.value)
    assert str(constraint) in message
    assert "it offers 9,376 to 90,432 params and 159,392 to 1,537,344 MACs" in message
    assert "\n" not in message


def test_extremes_of_an_odd_cost_are_found_by_looking():
    """Where the largest options are not the most expensive, the band is still met."""

    def cost(arch: Toy) -> Cost:
        params = 100 - abs(arch.embed_dim - 24)
        return Cost(params, params)

    SearchProblem(toy_space(6, 7, 8), cost, Constraint(min_params=100)).check()


def test_cost_is_computed_once_per_architecture():
    calls = Counter[Toy]()

    def cost(arch: Toy) -> Cost:
        calls[arch] += 1
        return toy_cost(arch)

    problem = SearchProblem(toy_space(1, 2), cost, Constraint(max_params=3_000))
    seen: set[Toy] = set()
    while (arch := problem.sample(Random(len(seen)), seen)) is not None:
        seen.add(arch)
    assert len(calls) == problem.size
    assert set(calls.values()) == {1}


def test_a_latency_limit_is_kept_as_predicted_and_named_when_nothing_keeps_it():
    """Milliseconds that grow with the depth alone."""

    def cost(arch: Toy) -> Cost:
        return replace(toy_cost(arch), latency_ms=2.5 * arch.depth)

    limited = SearchProblem(toy_space(6, 7, 8), cost, Constraint(max_latency_ms=15))
    limited.check()
    for i in range(20):
        arch = limited.sample(Random(i))
        assert arch is not None
        assert arch.depth == 6
    impossible = SearchProblem(toy_space(6, 7, 8), cost, Constraint(min_params=20_000, max_latency_ms=14.5))
    with pytest.raises(InfeasibleError, match=r"nearest .* params with .* MACs and 15 ms \(above\)") as caught:
        impossible.check()
    assert "20,000 <= params, latency <= 14.5 ms" in str(caught.value)
    assert "and 15 to 20 ms (predicted); nearest" in str(caught.value)
    assert "\n" not in str(caught.value)
