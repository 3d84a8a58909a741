from itertools import islice

import pytest
from toy_space import Toy, drive, large_problem, result, small_problem

from raysearch.search import (
    ALGORITHMS,
    AgeingConfig,
    AlgorithmConfig,
    EvolutionConfig,
    NSGA2Config,
    PredictorConfig,
    RandomConfig,
    make_algorithm,
    planned_generations,
    run,
)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_settings_name_their_algorithm(name: str):
    problem = large_problem()
    given = problem.space.smallest()
    algorithm = make_algorithm(ALGORITHMS[name](), problem, seed=7, initial=[given])
    settings = algorithm.state_dict()["settings"]
    assert (settings["algorithm"], settings["seed"], settings["initial"]) == (name, 7, [given.id])
    assert isinstance(algorithm.ask(), Toy)
    assert algorithm.total == 1000
    with pytest.raises(ValueError, match="not in the space"):
        make_algorithm(ALGORITHMS[name](), small_problem(), seed=7, initial=[given])


@pytest.mark.parametrize(
    ("config", "generations"),
    [
        (EvolutionConfig(12, 3, parents=2), 3),
        (NSGA2Config(12, 3), 3),
        (PredictorConfig(12, 3, regressor="ridge", inner_population=5, inner_generations=1), 3),
        (AgeingConfig(30, population=10, sample=3, look_ahead=8), 4),
        (RandomConfig(30, batch=7), 5),
    ],
)
def test_generations_are_as_many_as_planned(config: AlgorithmConfig, generations: int):
    algorithm = make_algorithm(config, large_problem(), seed=0)
    of = [algorithm.proposal(arch).generation for arch in drive(algorithm)]
    assert 1 + max(of) == planned_generations(algorithm.total, config) == generations
    assert {of.count(generation) for generation in range(generations - 1)} == {config.generation_size}


def test_a_run_stops_where_its_caller_does_and_goes_on_from_there():
    whole = drive(make_algorithm(EvolutionConfig(8, 3, parents=2), large_problem(), seed=0))
    scored: list[Toy] = []

    def score(arch: Toy):
        scored.append(arch)
        return result(arch)

    running = run(make_algorithm(EvolutionConfig(8, 3, parents=2), large_problem(), seed=0), score)
    assert [arch for arch, _ in islice(running, 11)] == scored == whole[:11]
    assert [(arch, told) for arch, told in running] == [(arch, result(arch)) for arch in whole[11:]]
