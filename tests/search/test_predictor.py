import math
from collections.abc import Sequence

from algorithm_contract import SearchAlgorithmContract
from toy_space import Toy

from raysearch.search import Direction, PredictorConfig, PredictorEvolution, SearchProblem


class TestPredictorEvolution(SearchAlgorithmContract):
    def make(
        self,
        problem: SearchProblem[Toy],
        *,
        seed: int,
        candidates: int = 120,
        direction: Direction = "max",
        initial: Sequence[Toy] = (),
    ) -> PredictorEvolution[Toy]:
        config = PredictorConfig(
            20, math.ceil(candidates / 20), regressor="ridge", inner_population=30, inner_generations=4, memory=300
        )
        return PredictorEvolution(problem, config, seed=seed, direction=direction, initial=initial)
