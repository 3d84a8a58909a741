"""Search algorithms: pure, deterministic, unaware of models and machines."""

from raysearch.search.ageing import AgeingConfig, AgeingEvolution
from raysearch.search.algorithms import ALGORITHMS, AlgorithmConfig, first_generation, make_algorithm, planned_generations
from raysearch.search.candidate import Candidate
from raysearch.search.evolution import Evolution, EvolutionConfig
from raysearch.search.front import Objective, champion, hypervolume, pareto_front, ranked
from raysearch.search.informative import Informative, InformativeConfig, Sample
from raysearch.search.loop import run
from raysearch.search.nsga2 import NSGA2, NSGA2Config
from raysearch.search.predictor import PredictorConfig, PredictorEvolution
from raysearch.search.protocol import Exclusion, Failure, Proposal, Result, SearchAlgorithm
from raysearch.search.racing import Part, Race, RacingConfig
from raysearch.search.random_search import RandomConfig, RandomSearch
from raysearch.space.problem import InfeasibleError, SearchProblem

__all__ = [
    "ALGORITHMS",
    "NSGA2",
    "AgeingConfig",
    "AgeingEvolution",
    "AlgorithmConfig",
    "Candidate",
    "Evolution",
    "EvolutionConfig",
    "Exclusion",
    "Failure",
    "InfeasibleError",
    "Informative",
    "InformativeConfig",
    "NSGA2Config",
    "Objective",
    "Part",
    "PredictorConfig",
    "PredictorEvolution",
    "Proposal",
    "Race",
    "RacingConfig",
    "RandomConfig",
    "RandomSearch",
    "Result",
    "Sample",
    "SearchAlgorithm",
    "SearchProblem",
    "champion",
    "first_generation",
    "hypervolume",
    "make_algorithm",
    "pareto_front",
    "planned_generations",
    "ranked",
    "run",
]
