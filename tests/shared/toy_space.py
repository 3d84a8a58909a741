"""A transformer-like space with a closed-form cost and a score whose optimum is known: all that search tests need."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from random import Random

from raysearch.search import Failure, Result, SearchAlgorithm, SearchProblem, run
from raysearch.space import Architecture, Choice, SearchSpace
from raysearch.space.cost import Constraint, Cost


@dataclass(frozen=True)
class Toy(Architecture):
    embed_dim: int
    num_heads: tuple[int, ...]
    mlp_ratio: tuple[float, ...]

    @property
    def depth(self) -> int:
        return len(self.num_heads)


def toy_space(*depths: int, heads: tuple[int, ...] = (1, 2, 3), ratios: tuple[float, ...] = (2, 3, 4)) -> SearchSpace[Toy]:
    choices = [
        Choice("mlp_ratio", ratios, per="block"),
        Choice("num_heads", heads, per="block"),
        Choice("embed_dim", (16, 24, 32)),
    ]
    return SearchSpace(Toy, choices, depth=depths)


def toy_cost(arch: Toy) -> Cost:
    heads, ratios = sum(arch.num_heads), sum(arch.mlp_ratio)
    params = arch.embed_dim * (10 + 32 * heads + int(2 * arch.embed_dim * ratios))
    return Cost(params, 17 * params)


BAND = Constraint(min_params=18_000, max_params=45_000)
"""Holds about half of the large problem's space."""


def large_problem(constraint: Constraint | None = None) -> SearchProblem[Toy]:
    """145 million members of 9,376 to 90,432 parameters."""
    return SearchProblem(toy_space(6, 7, 8), toy_cost, constraint or Constraint())


def small_problem(constraint: Constraint | None = None) -> SearchProblem[Toy]:
    """60 members of 1,696 to 20,800 parameters."""
    return SearchProblem(toy_space(1, 2, heads=(1, 2), ratios=(2, 4)), toy_cost, constraint or Constraint())


def toy_score(arch: Toy) -> float:
    """Share of values that agree with one fixed network of depth 7, which scores 1."""
    heads, ratios = (3, 1, 2, 3, 2, 1, 2), (2, 4, 3, 2, 3, 4, 2)
    hits = (arch.embed_dim == 24) + (arch.depth == 7)
    hits += sum(a == b for a, b in zip(arch.num_heads, heads, strict=False))
    hits += sum(a == b for a, b in zip(arch.mlp_ratio, ratios, strict=False))
    return hits / 16


def noise(arch: Architecture) -> float:
    """A score without structure, the same in every process."""
    return Random(arch.id).random()


def result(arch: Toy, score: float | None = None, loss: float | None = None) -> Result:
    cost = toy_cost(arch)
    return Result(toy_score(arch) if score is None else score, 100, cost.params, cost.macs, loss)


def drive(
    algorithm: SearchAlgorithm, outcome: Callable[[Toy], Result | Failure] = result, *, stop_after: int | None = None
) -> list[Toy]:
    """Run a search, or so many candidates of it; returns what was asked."""
    asked = [arch for arch, _ in islice(run(algorithm, outcome), stop_after)]
    assert all(isinstance(arch, Toy) for arch in asked)
    return asked


def drive_many(
    algorithm: SearchAlgorithm,
    outcome: Callable[[Toy], Result | Failure] = result,
    *,
    evaluators: int,
    completion: Random | None = None,
) -> list[Toy]:
    """Run a search with so many evaluators at work; ``completion`` draws which of them is done next, else the first one."""
    asked: list[Toy] = []
    running: list[Toy] = []
    while not algorithm.finished:
        while len(running) < evaluators and (arch := algorithm.ask()) is not None:
            assert isinstance(arch, Toy)
            asked.append(arch)
            running.append(arch)
        assert running, "the search waits for results although none is awaited"
        done = running.pop(completion.randrange(len(running)) if completion else 0)
        algorithm.tell(done, outcome(done))
    return asked
