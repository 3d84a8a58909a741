"""Search algorithms: pure, deterministic, unaware of models and machines."""

from raysearch.search.ageing import AgeingConfig, AgeingEvolution
from raysearch.search.evolution import Evolution, EvolutionConfig
from raysearch.search.front import Objective, champion, hypervolume, pareto_front, ranked
from raysearch.search.nsga2 import NSGA2, NSGA2Config
from raysearch.search.predictor import PredictorConfig, PredictorEvolution
from raysearch.search.problem import InfeasibleError, SearchProblem
from raysearch.search.protocol import Direction, Exclusion, Failure, Proposal, Result, SearchAlgorithm
from raysearch.search.racing import Race, RacingConfig
from raysearch.search.random_search import RandomConfig, RandomSearch
from raysearch.search.record import Candidate, write_candidates
from raysearch.search.registry import ALGORITHMS, AlgorithmConfig, make_algorithm, planned_generations
from raysearch.search.warm_start import WarmStart, best_of_search, listed_architectures

__all__ = [
    "ALGORITHMS",
    "NSGA2",
    "AgeingConfig",
    "AgeingEvolution",
    "AlgorithmConfig",
    "Candidate",
    "Direction",
    "Evolution",
    "EvolutionConfig",
    "Exclusion",
    "Failure",
    "InfeasibleError",
    "NSGA2Config",
    "Objective",
    "PredictorConfig",
    "PredictorEvolution",
    "Proposal",
    "Race",
    "RacingConfig",
    "RandomConfig",
    "RandomSearch",
    "Result",
    "SearchAlgorithm",
    "SearchProblem",
    "WarmStart",
    "best_of_search",
    "champion",
    "hypervolume",
    "listed_architectures",
    "make_algorithm",
    "pareto_front",
    "planned_generations",
    "ranked",
    "write_candidates",
]
