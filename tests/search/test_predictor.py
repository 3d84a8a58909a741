import json
import math
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from algorithm_contract import SearchAlgorithmContract
from scipy.stats import kendalltau
from toy_space import BAND, Toy, drive, drive_many, large_problem, result, toy_score

from raysearch.search import Evolution, EvolutionConfig, PredictorConfig, PredictorEvolution, SearchProblem
from raysearch.search.regressor import fitted


class TestPredictorEvolution(SearchAlgorithmContract):
    def make(
        self,
        problem: SearchProblem[Toy],
        *,
        seed: int,
        candidates: int = 120,
        initial: Sequence[Toy] = (),
    ) -> PredictorEvolution[Toy]:
        config = PredictorConfig(
            20, math.ceil(candidates / 20), regressor="ridge", inner_population=25, inner_generations=2, memory=200
        )
        return PredictorEvolution(problem, config, seed=seed, initial=initial)


def ahead(generations: int = 6) -> PredictorEvolution[Toy]:
    config = PredictorConfig(20, generations, ahead=1, regressor="ridge", inner_population=25, inner_generations=2)
    return PredictorEvolution(large_problem(BAND), config, seed=3)


def test_a_generation_ahead_leaves_no_barrier() -> None:
    """While the slowest of a generation is awaited, those of the next are there to be scored; what they are is the same."""
    alone = drive(ahead())
    assert len(alone) == 120
    for evaluators in (2, 50):
        assert drive_many(ahead(), evaluators=evaluators, completion=Random(evaluators)) == alone
    search = ahead()
    running = [arch for _ in range(10) if (arch := search.ask()) is not None]
    for _ in range(110):
        done = running.pop(0)
        search.tell(done, result(done))
        fresh = search.ask()
        assert fresh is not None
        running.append(fresh)
    origins = [Counter(search.proposal(arch).origin for arch in alone[i : i + 20]) for i in range(0, 120, 20)]
    assert origins == [{"random": 20}] * 2 + [{"predicted": 18, "random": 2}] * 4


@pytest.mark.parametrize("before", [17, 61])
def test_a_search_with_a_generation_ahead_is_restored(before: int) -> None:
    whole, first, second = drive(ahead()), ahead(), ahead()
    assert drive(first, stop_after=before) == whole[:before]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [*whole[:before], *drive(second)] == whole


def test_finds_with_few_scores_what_evolution_needs_many_for():
    """At least as good after 100 real scores as evolution after 200."""

    def best(asked: list[Toy]) -> float:
        return max(map(toy_score, asked))

    few = [
        best(drive(PredictorEvolution(large_problem(BAND), PredictorConfig(25, 4, inner_generations=4), seed=seed)))
        for seed in range(2)
    ]
    many = [best(drive(Evolution(large_problem(BAND), EvolutionConfig(generations=4), seed=seed))) for seed in range(2)]
    assert statistics.mean(few) >= statistics.mean(many)


def test_random_candidates_explore_beside_the_predicted():
    search = PredictorEvolution(
        large_problem(), PredictorConfig(20, 3, regressor="ridge", explore=0.25, inner_generations=2), seed=0
    )
    asked = drive(search)
    origins = [Counter(search.proposal(arch).origin for arch in asked[i : i + 20]) for i in (0, 20, 40)]
    assert origins == [{"random": 20}, {"predicted": 15, "random": 5}, {"predicted": 15, "random": 5}]


@pytest.mark.parametrize("kind", ["gp", "ridge", "forest"])
def test_regressors_rank_what_they_have_not_seen(kind: str):
    space = large_problem().space
    archs = [space.sample(Random(i)) for i in range(200)]
    lessons = [(space.features(arch), 100 + 5 * toy_score(arch)) for arch in archs]
    predict = fitted(kind, lessons[:120], seed=0)
    mean, deviation = predict([features for features, _ in lessons[120:]])
    assert kendalltau(mean, [score for _, score in lessons[120:]]).statistic > 0.5
    assert all(d >= 0 for d in deviation)
    assert 100 < statistics.mean(mean) < 105
    assert predict([lessons[0][0]]) == fitted(kind, lessons[:120], seed=0)([lessons[0][0]])


@pytest.mark.parametrize("kind", ["gp", "ridge"])
def test_the_deviation_is_what_is_not_known_and_not_the_noise_of_a_score(kind: str):
    """Where hundreds of noisy scores are known their mean is known well; far away it is not."""
    rng = Random(0)
    lessons = [((x := rng.random(), rng.random()), 5 + x + rng.gauss(0, 1)) for _ in range(300)]
    _, (near, far) = fitted(kind, lessons, seed=0)([(0.5, 0.5), (6.0, 6.0)])
    assert near < 0.35
    assert far > 2.5 * near


@pytest.mark.parametrize("kind", ["gp", "ridge", "forest"])
def test_equal_scores_teach_nothing_and_harm_nothing(kind: str):
    mean, deviation = fitted(kind, [((0.0, 1.0), 0.5), ((0.0, 2.0), 0.5)], seed=0)([(0.0, 3.0)])
    assert mean == pytest.approx([0.5])
    assert math.isfinite(deviation[0])


def test_evaluators_do_not_pay_for_the_search_libraries():
    code = "import sys, raysearch.search; print([m for m in ('sklearn', 'moocore', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"population": 0}, "population is 0"), ({"explore": 1.1}, "explore is 1.1"), ({"memory": 1}, "memory is 1")],
)
def test_settings_that_make_no_search_are_refused(settings: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        PredictorConfig(**settings)
