from collections.abc import Sequence

from algorithm_contract import SearchAlgorithmContract
from toy_space import Toy

from raysearch.search import AgeingConfig, AgeingEvolution, Direction, SearchProblem


class TestAgeingEvolution(SearchAlgorithmContract):
    def make(
        self,
        problem: SearchProblem[Toy],
        *,
        seed: int,
        candidates: int = 120,
        direction: Direction = "max",
        initial: Sequence[Toy] = (),
    ) -> AgeingEvolution[Toy]:
        config = AgeingConfig(candidates, population=20, sample=5, look_ahead=12)
        return AgeingEvolution(problem, config, seed=seed, direction=direction, initial=initial)
