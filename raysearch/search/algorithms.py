"""Algorithms by name: the type of the configuration says which one is meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from raysearch.search.ageing import AgeingConfig, AgeingEvolution
from raysearch.search.evolution import Evolution, EvolutionConfig
from raysearch.search.nsga2 import NSGA2, NSGA2Config
from raysearch.search.predictor import PredictorConfig, PredictorEvolution
from raysearch.search.protocol import SearchAlgorithm
from raysearch.search.random_search import RandomConfig, RandomSearch
from raysearch.space import Architecture
from raysearch.space.problem import SearchProblem

A = TypeVar("A", bound=Architecture)

AlgorithmConfig = EvolutionConfig | AgeingConfig | NSGA2Config | PredictorConfig | RandomConfig
"""The settings of any algorithm."""

ALGORITHMS: dict[str, type[AlgorithmConfig]] = {
    "evolution": EvolutionConfig,
    "ageing": AgeingConfig,
    "nsga2": NSGA2Config,
    "predictor": PredictorConfig,
    "random": RandomConfig,
}
"""Settings by the name of their algorithm."""


def planned_generations(total: int, config: AlgorithmConfig) -> int:
    """How many generations ``total`` candidates make."""
    return -(-total // config.generation_size)


def first_generation(config: AlgorithmConfig) -> int:
    """How many architectures may open a search."""
    match config:
        case AgeingConfig():
            return min(config.population, config.candidates)
        case RandomConfig():
            return min(config.batch, config.candidates)
        case _:
            return config.population


def make_algorithm(
    config: AlgorithmConfig,
    problem: SearchProblem[A],
    *,
    seed: int,
    initial: Sequence[A] = (),
) -> SearchAlgorithm:
    """The algorithm that ``config`` belongs to.

    Args:
        config: its settings.
        problem: the space and its budget.
        seed: with the outcomes, decides every candidate.
        initial: architectures that open the search.

    Raises:
        InfeasibleError: no subnet of the band can be found.
        UserError: an initial architecture is outside the space or the band, or there are more than a generation holds.

    """
    match config:
        case EvolutionConfig():
            return Evolution(problem, config, seed=seed, initial=initial)
        case AgeingConfig():
            return AgeingEvolution(problem, config, seed=seed, initial=initial)
        case NSGA2Config():
            return NSGA2(problem, config, seed=seed, initial=initial)
        case PredictorConfig():
            return PredictorEvolution(problem, config, seed=seed, initial=initial)
        case RandomConfig():
            return RandomSearch(problem, config, seed=seed, initial=initial)
