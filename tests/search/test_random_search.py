from collections.abc import Sequence

from algorithm_contract import SearchAlgorithmContract
from toy_space import Toy, drive, large_problem, result

from raysearch.search import RandomConfig, RandomSearch, SearchProblem


class TestRandomSearch(SearchAlgorithmContract):
    optimum_within = 648  # all members

    def make(
        self,
        problem: SearchProblem[Toy],
        *,
        seed: int,
        candidates: int = 120,
        initial: Sequence[Toy] = (),
    ) -> RandomSearch[Toy]:
        return RandomSearch(problem, RandomConfig(candidates, batch=20), seed=seed, initial=initial)


def test_look_ahead_is_the_batch_whatever_the_evaluators():
    search = RandomSearch(large_problem(), RandomConfig(candidates=30, batch=12), seed=0)
    asked = [arch for _ in range(40) if (arch := search.ask()) is not None]
    assert len(asked) == 12
    search.tell(asked[5], result(asked[5]))
    assert search.ask() is not None
    assert search.ask() is None


def test_candidates_do_not_depend_on_results():
    first, second = (RandomSearch(large_problem(), RandomConfig(60, 20), seed=1) for _ in range(2))
    assert drive(first) == drive(second, lambda arch: result(arch, score=-arch.embed_dim))
