import math
from collections.abc import Sequence

from algorithm_contract import SearchAlgorithmContract
from toy_space import Toy

from raysearch.search import NSGA2, Direction, NSGA2Config, SearchProblem


class TestNSGA2(SearchAlgorithmContract):
    def make(
        self,
        problem: SearchProblem[Toy],
        *,
        seed: int,
        candidates: int = 120,
        direction: Direction = "max",
        initial: Sequence[Toy] = (),
    ) -> NSGA2[Toy]:
        config = NSGA2Config(population=20, generations=math.ceil(candidates / 20))
        return NSGA2(problem, config, seed=seed, direction=direction, initial=initial)
