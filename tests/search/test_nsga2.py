import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

import pytest
from algorithm_contract import SearchAlgorithmContract
from toy_space import BAND, Toy, drive, large_problem, noise, result, toy_cost, toy_space

from raysearch.search import (
    NSGA2,
    Candidate,
    Failure,
    NSGA2Config,
    Proposal,
    RandomConfig,
    RandomSearch,
    Result,
    SearchProblem,
    hypervolume,
    pareto_front,
)
from raysearch.search.nsga2 import crowding_distances
from raysearch.space.cost import Constraint


class TestNSGA2(SearchAlgorithmContract):
    def make(
        self,
        problem: SearchProblem[Toy],
        *,
        seed: int,
        candidates: int = 120,
        initial: Sequence[Toy] = (),
    ) -> NSGA2[Toy]:
        config = NSGA2Config(population=20, generations=math.ceil(candidates / 20))
        return NSGA2(problem, config, seed=seed, initial=initial)


def table(archs: Sequence[Toy]) -> list[Candidate]:
    """Candidates scored by the toy score."""
    return [Candidate(Proposal(arch, i, 0, "random"), toy_cost(arch), result(arch)) for i, arch in enumerate(archs)]


def test_one_search_gives_the_whole_front():
    """600 of 2,187 members: almost all that the true front, known by listing, covers."""
    problem = SearchProblem(toy_space(3), toy_cost, Constraint())
    truth = pareto_front(table(list(problem.space)))
    for seed in range(2):
        asked = table(drive(NSGA2(problem, NSGA2Config(50, 12), seed=seed)))
        found = {(c.result.score, c.cost) for c in pareto_front(asked) if c.result}
        assert len(found & {(c.result.score, c.cost) for c in truth if c.result}) >= 0.7 * len(truth)
        assert hypervolume(asked, (0.0, 60_000)) > 0.98 * hypervolume(truth, (0.0, 60_000))


def test_front_of_three_objectives_covers_more_than_random_search():
    objectives = ("score", "params", "latency")

    def timed(arch: Toy) -> Result:
        return replace(result(arch), latency_ms=float(arch.depth + 2 * max(arch.num_heads)))

    def covered(asked: list[Toy]) -> float:
        candidates = [Candidate(Proposal(a, i, 0, "random"), toy_cost(a), timed(a)) for i, a in enumerate(asked)]
        return hypervolume(candidates, (0.0, 45_000, 16.0), objectives=objectives)

    mine, chance = list[float](), list[float]()
    for seed in range(2):
        search = NSGA2(large_problem(BAND), NSGA2Config(30, 8, objectives=objectives), seed=seed)
        mine.append(covered(drive(search, timed)))
        chance.append(covered(drive(RandomSearch(large_problem(BAND), RandomConfig(240, 30), seed=seed), timed)))
    assert statistics.mean(mine) > 1.1 * statistics.mean(chance)


def test_four_objectives_are_weighed_at_once():
    def timed(arch: Toy) -> Result:
        return replace(result(arch), latency_ms=float(arch.depth))

    names = ("score", "params", "macs", "latency")
    search = NSGA2(large_problem(BAND), NSGA2Config(20, 4, objectives=names), seed=0)
    asked = drive(search, timed)
    assert len(asked) == 80
    candidates = [Candidate(Proposal(a, i, 0, "random"), toy_cost(a), timed(a)) for i, a in enumerate(asked)]
    front = {c.proposal.arch for c in pareto_front(candidates, objectives=names)}
    assert len(front.intersection(search.parents)) >= min(20, len(front)) - 3  # of equal points one stands for all


def test_survivors_are_the_first_fronts_and_of_the_last_the_least_crowded():
    def outcome(arch: Toy) -> Result | Failure:
        draw = noise(arch)
        return Failure("lost") if draw < 0.1 else result(arch, score=draw)

    def beats(one: Result, two: Result) -> bool:
        return one.score > two.score and one.params <= two.params

    search = NSGA2(large_problem(BAND), NSGA2Config(20, 2), seed=0)
    left = {arch: told for arch in drive(search, outcome) if isinstance(told := outcome(arch), Result)}
    kept: list[Toy] = []
    while len(kept) < 20:
        front = [a for a in left if not any(beats(left[b], left[a]) for b in left)]
        distances = crowding_distances([(-left[a].score, left[a].params) for a in front])
        order = sorted(range(len(front)), key=lambda i: -distances[i])
        kept += [front[i] for i in order[: 20 - len(kept)]]
        left = {a: told for a, told in left.items() if a not in front}
    assert set(search.parents) == set(kept)


def test_crowding_distances():
    assert crowding_distances([(0, 4), (1, 2), (3, 1), (4, 0)]) == [math.inf, 3 / 4 + 3 / 4, 3 / 4 + 2 / 4, math.inf]
    assert crowding_distances([(1, 1), (1, 1), (1, 1)]) == [math.inf, 0, math.inf]


def test_latency_as_an_objective_must_be_measured_or_predicted():
    config = NSGA2Config(4, 1, objectives=("score", "latency"))
    search = NSGA2(large_problem(BAND), config, seed=0)
    arch = search.ask()
    assert isinstance(arch, Toy)
    with pytest.raises(ValueError, match="latency: neither measured nor predicted"):
        search.tell(arch, result(arch))
    search.tell(arch, replace(result(arch), latency_ms=3.0))
    predicting = SearchProblem(
        toy_space(6, 7), lambda arch: replace(toy_cost(arch), latency_ms=float(arch.depth)), Constraint()
    )
    assert len(drive(NSGA2(predicting, config, seed=0))) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"generations": 0}, "generations is 0"),
        ({"crossover": 1.5}, "crossover is 1.5"),
        ({"objectives": ("score",)}, "objectives are score; name two or more"),
        ({"objectives": ("score", "score")}, "each once"),
    ],
)
def test_settings_that_make_no_search_are_refused(settings: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        NSGA2Config(**settings)
