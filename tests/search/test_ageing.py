from collections.abc import Sequence
from dataclasses import replace

import pytest
from algorithm_contract import SearchAlgorithmContract
from toy_space import BAND, Toy, drive, large_problem, noise, result

from raysearch.search import AgeingConfig, AgeingEvolution, Failure, Result, SearchProblem


class TestAgeingEvolution(SearchAlgorithmContract):
    def make(
        self,
        problem: SearchProblem[Toy],
        *,
        seed: int,
        candidates: int = 120,
        initial: Sequence[Toy] = (),
    ) -> AgeingEvolution[Toy]:
        config = AgeingConfig(candidates, population=20, sample=5, look_ahead=12)
        return AgeingEvolution(problem, config, seed=seed, initial=initial)


def outcome(arch: Toy) -> Result | Failure:
    """Scores without structure; some candidates fail, some are excluded."""
    draw = noise(arch)
    if draw < 0.1:
        return Failure("lost")
    return replace(result(arch, draw), excluded="raced" if draw < 0.2 else None)


def test_a_candidate_depends_on_results_a_look_ahead_before_it():
    def search() -> AgeingEvolution[Toy]:
        return AgeingEvolution(large_problem(BAND), AgeingConfig(200, population=30, sample=8, look_ahead=16), seed=0)

    asked = drive(search())
    changed = asked[100]
    again = drive(search(), lambda arch: result(arch, score=9.0) if arch == changed else result(arch))
    assert asked[:116] == again[:116]
    assert asked[116:] != again[116:]


def test_evaluators_never_wait_for_a_barrier():
    """Whenever the oldest of those that wait is told, one more can be asked at once."""
    search = AgeingEvolution(large_problem(BAND), AgeingConfig(300, population=30, sample=8, look_ahead=16), seed=0)
    waiting = [arch for _ in range(50) if (arch := search.ask()) is not None]
    assert len(waiting) == 16
    for _ in range(284):
        oldest = waiting.pop(0)
        assert search.ask() is None
        search.tell(oldest, result(oldest))
        fresh = search.ask()
        assert fresh is not None
        waiting.append(fresh)
    assert search.proposal(waiting[-1]).index == 299


def test_early_results_make_room_when_the_oldest_is_told():
    search = AgeingEvolution(large_problem(BAND), AgeingConfig(300, population=30, sample=8, look_ahead=16), seed=0)
    waiting = [arch for _ in range(50) if (arch := search.ask()) is not None]
    for arch in waiting[1:9]:
        search.tell(arch, result(arch))
        assert search.ask() is None, "the oldest decides"
    search.tell(waiting[0], result(waiting[0]))
    fresh = [search.ask() for _ in range(50)]
    assert [arch is not None for arch in fresh] == [True] * 9 + [False] * 41


def test_parent_is_the_best_of_the_latest_that_compete():
    """With a tournament of nearly all, the winner can be told beforehand."""
    config = AgeingConfig(80, population=12, sample=200, look_ahead=5)
    search = AgeingEvolution(large_problem(BAND), config, seed=0)
    asked = drive(search, outcome)
    assert [search.proposal(arch).origin for arch in asked[:12]] == ["random"] * 12
    for index in range(12, 80):
        proposal = search.proposal(asked[index])
        latest = [(arch, outcome(arch)) for arch in asked[: index - 4][-12:]]
        known = [(arch, told) for arch, told in latest if isinstance(told, Result) and not told.excluded]
        best = max(known, key=lambda pair: pair[1].score)[0]
        assert proposal.origin == "mutation"
        assert proposal.parents == (best.id,)


@pytest.mark.parametrize("spared", [0.05, 0.3])
def test_what_racing_stopped_ages_the_queue_like_any_others(spared: float):
    """However few are scored to the end, no parent is older than the population that waits behind it."""

    def raced(arch: Toy) -> Result | Failure:
        draw = noise(arch)
        if draw < spared:
            return result(arch, draw)
        return replace(result(arch, draw), excluded="raced") if draw < 0.9 else Failure("lost")

    search = AgeingEvolution(large_problem(BAND), AgeingConfig(500, population=40, sample=10, look_ahead=10), seed=0)
    asked = drive(search, raced)
    index = {arch.id: i for i, arch in enumerate(asked)}
    ages = [i - index[parent] for i, arch in enumerate(asked) for parent in search.proposal(arch).parents]
    assert len(ages) > 100
    assert max(ages) < 40 + 10
    told = {arch.id: raced(arch) for arch in asked}
    parents = [told[parent] for arch in asked for parent in search.proposal(arch).parents]
    assert all(isinstance(parent, Result) and parent.competes for parent in parents)


def test_nobody_races_while_few_of_the_queue_compete():
    def lost(arch: Toy) -> Result | Failure:
        return replace(result(arch), excluded="raced") if noise(arch) > 0.03 else result(arch)

    search = AgeingEvolution(large_problem(BAND), AgeingConfig(300, population=100, sample=25, look_ahead=20), seed=0)
    thresholds = list[Toy | None]()
    while not search.finished:
        arch = search.ask()
        assert arch is not None
        thresholds.append(search.threshold)
        search.tell(arch, lost(arch))
    assert set(thresholds) == {None}


def test_what_is_worse_than_the_threshold_has_practically_no_offspring():
    search = AgeingEvolution(large_problem(BAND), AgeingConfig(600, population=100, sample=25, look_ahead=50), seed=0)
    scores: dict[str, float] = {}
    below, ranks = 0, list[int]()
    waiting: list[Toy] = []
    while not search.finished:
        while (arch := search.ask()) is not None:
            assert isinstance(arch, Toy)
            waiting.append(arch)
            scores[arch.id] = noise(arch)
            threshold = search.threshold
            if threshold is not None:
                below += scores[search.proposal(arch).parents[0]] < scores[threshold.id]
                latest = list(scores.values())[-150:-50]
                ranks.append(sum(score > scores[threshold.id] for score in latest))
        done = waiting.pop(0)
        search.tell(done, result(done, noise(done)))
    assert len(ranks) == 600 - 149
    assert below < 0.02 * len(ranks)
    assert max(ranks) < 20, "of a hundred: racing spares the rest"


@pytest.mark.parametrize("name", ["candidates", "population", "sample", "look_ahead", "max_tries"])
def test_settings_that_make_no_search_are_refused(name: str):
    with pytest.raises(ValueError, match=f"{name.replace('_', '-')} is 0, must be at least 1"):
        AgeingConfig(**{name: 0})
