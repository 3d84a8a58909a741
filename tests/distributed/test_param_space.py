"""A searcher that Tune brings, on a space of ours, with real Tune."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import pytest
import ray
import toy
from ray import tune
from ray.cluster_utils import Cluster
from ray.tune.search.optuna import OptunaSearch

from raysearch.distributed.param_space import architecture_from, objective, tune_space
from raysearch.search import SearchProblem
from raysearch.space import Architecture
from raysearch.space.cost import Constraint

BAND = Constraint(max_params=120)
"""Holds about half of the toy space."""


def _score(arch: Architecture) -> float:
    return toy.toy_score(arch)


def test_optuna_searches_a_space_within_its_band(cluster: Cluster, tmp_path: Path):
    ray.cloudpickle.register_pickle_by_value(toy)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    problem = SearchProblem(toy.SPACE, toy.cost, BAND)
    searcher = OptunaSearch(seed=1)
    results = tune.Tuner(
        tune.with_resources(objective(problem, _score, worst=-10.0), {"CPU": 0.1}),
        param_space=tune_space(toy.SPACE),
        tune_config=tune.TuneConfig(
            search_alg=searcher, metric="score", mode="max", num_samples=30, max_concurrent_trials=1, reuse_actors=True
        ),
        run_config=tune.RunConfig(name="optuna", storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert not results.errors
    assert len(results) == 30
    scores: list[float] = []
    for result in results:
        assert result.config is not None
        assert result.metrics is not None
        arch = architecture_from(toy.SPACE, result.config)
        assert toy.SPACE.contains(arch)
        assert result.metrics["in_band"] == problem.in_band(arch)
        assert result.metrics["score"] == _score(arch) if problem.in_band(arch) else result.metrics["score"] < -10
        scores.append(result.metrics["score"])
    best = results.get_best_result()
    assert best.config is not None
    assert problem.admits(architecture_from(toy.SPACE, best.config))
    assert statistics.mean(scores[20:]) > statistics.mean(scores[:10]) + 1, "it learns, of the band too"


def test_a_configuration_that_is_none_is_named():
    config = toy.SPACE.to_params(toy.SPACE.smallest())
    with pytest.raises(ValueError, match=r"heads.1 is 9; give one of \(1, 2, 3, 4\)"):
        architecture_from(toy.SPACE, {**config, "heads.1": 9})
