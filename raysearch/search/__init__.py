"""Search algorithms: pure, deterministic, unaware of models and machines."""

from raysearch.search.evolution import Evolution, EvolutionConfig
from raysearch.search.front import champion, pareto_front
from raysearch.search.problem import InfeasibleError, SearchProblem
from raysearch.search.protocol import Direction, Exclusion, Failure, Proposal, Result, SearchAlgorithm
from raysearch.search.racing import Race, RacingConfig
from raysearch.search.random_search import RandomConfig, RandomSearch
from raysearch.search.record import Candidate, write_candidates

__all__ = [
    "Candidate",
    "Direction",
    "Evolution",
    "EvolutionConfig",
    "Exclusion",
    "Failure",
    "InfeasibleError",
    "Proposal",
    "Race",
    "RacingConfig",
    "RandomConfig",
    "RandomSearch",
    "Result",
    "SearchAlgorithm",
    "SearchProblem",
    "champion",
    "pareto_front",
    "write_candidates",
]
