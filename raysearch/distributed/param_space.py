"""A search space as Tune's ``param_space``: for Tune's own searchers, as OptunaSearch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from ray import tune

from raysearch.space import Architecture, SearchSpace
from raysearch.space.problem import SearchProblem

A = TypeVar("A", bound=Architecture)


def tune_space(space: SearchSpace[Any]) -> dict[str, Any]:
    """Tune's categorical for every decision of ``space``, by its name in :attr:`SearchSpace.param_space`.

    Searchers know no conditions, so all blocks are declared up to the greatest depth: those beyond the depth that is drawn are
    cut off again by :func:`architecture_from`, and two configurations may then be the same architecture.
    """
    return {name: tune.choice(list(options)) for name, options in space.param_space.items()}


def architecture_from(space: SearchSpace[A], config: Mapping[str, Any]) -> A:
    """The architecture of a trial's configuration. Raises UserError for a decision that is missing or none of its options."""
    return space.from_params(config)


def objective(
    problem: SearchProblem[A], score: Callable[[A], float], *, worst: float
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function for :class:`ray.tune.Tuner` that scores configurations of :func:`tune_space` as ``score``.

    Searchers know no budget either. A configuration outside the band is not scored: it reports a score beyond ``worst`` by its
    distance from the band, so that the searcher learns the way into it. (None would stop Tune, and of NaN Optuna learns
    nothing.) ``in_band`` says which is which.

    Args:
        problem: the space and its budget.
        score: of an architecture of the band, higher is better (Tune's mode is "max"); runs in the trial's process.
        worst: a score that no architecture of the band falls short of, as 0.0 for an accuracy.

    """
    return partial(_score, problem=problem, score=score, worst=worst)


def _score(
    config: dict[str, Any], *, problem: SearchProblem[Any], score: Callable[[Any], float], worst: float
) -> dict[str, Any]:
    arch = architecture_from(problem.space, config)
    distance = problem.constraint.distance(problem.cost(arch))
    return {"score": worst - distance if distance else score(arch), "in_band": distance == 0, "id": arch.id}
