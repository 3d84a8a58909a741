import pytest
from toy_space import Toy, large_problem, small_problem

from raysearch.search import ALGORITHMS, make_algorithm


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
