"""Regressors that learn a score from a few hundred architectures in a second: what predictor-assisted evolution asks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

Regressor = Callable[[Sequence[Sequence[float]]], tuple[list[float], list[float]]]
"""Rows of features to the mean and the standard deviation of each row's true score: how much the regressor does not know.

The noise with which a score is measured is not part of it. It is the same everywhere, and a search that adds it to its optimism
sees little difference between what is known and what is not.
"""

LENGTHS = (0.5, 1.0, 2.0, 4.0)
"""Length scales of a Gaussian process that are tried, in units of the typical distance of two architectures."""
NOISES = (0.01, 0.1, 0.4)
"""Shares of noise in the scores' variance that are tried."""
SELECTION = 300
"""So many of the latest lessons decide among these: enough for that, and the time of a fit grows with their cube."""


def fitted(kind: Literal["gp", "ridge", "forest"], lessons: Sequence[tuple[Sequence[float], float]], *, seed: int) -> Regressor:
    """A regressor that learned from ``lessons``, pairs of features and score; the same for the same arguments.

    Features are standardised, scores too, so that no setting depends on their units. scikit-learn is imported here, not with
    the package: only the driver of such a search pays for it.
    """
    from threadpoolctl import threadpool_limits  # scikit-learn's own

    rows = np.asarray([features for features, _ in lessons], dtype=np.float64)
    scores = np.asarray([score for _, score in lessons], dtype=np.float64)
    centre, spread = rows.mean(0), rows.std(0)
    spread[spread == 0] = 1.0
    level, scale = float(scores.mean()), float(scores.std()) or 1.0
    rows, scores = (rows - centre) / spread, (scores - level) / scale
    models = _models(kind, columns=rows.shape[1], seed=seed)
    # One thread: evaluators keep the cores busy, waiting for them costs more, and the last digits depend on their number.
    with threadpool_limits(1):
        if len(models) > 1:
            models.sort(key=lambda model: -model.fit(rows[-SELECTION:], scores[-SELECTION:]).log_marginal_likelihood_value_)
        model = models[0].fit(rows, scores)

    def predict(features: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
        wanted = (np.asarray(features, dtype=np.float64) - centre) / spread
        with threadpool_limits(1):
            if kind == "forest":
                votes = np.stack([tree.predict(wanted) for tree in model.estimators_])
                mean, deviation = votes.mean(0), votes.std(0)
            else:
                mean, deviation = model.predict(wanted, return_std=True)
                deviation = np.sqrt(np.maximum(deviation**2 - _noise(model), 0))
        return (mean * scale + level).tolist(), (deviation * scale).tolist()

    return predict


def _noise(model: Any) -> float:
    """Variance of the noise that a fitted model adds to what it predicts, in its own units."""
    if hasattr(model, "kernel_"):
        return float(model.kernel_.k2.noise_level)  # RBF + WhiteKernel
    return 1 / float(model.alpha_)  # of BayesianRidge: the precision of the noise


def _models(kind: Literal["gp", "ridge", "forest"], *, columns: int, seed: int) -> list[Any]:
    """Models of scikit-learn for standardised features and scores; several are meant to be selected from by likelihood."""
    if kind == "ridge":
        from sklearn.linear_model import BayesianRidge

        return [BayesianRidge()]
    if kind == "forest":
        from sklearn.ensemble import ExtraTreesRegressor

        return [ExtraTreesRegressor(100, min_samples_leaf=2, max_features=0.5, random_state=seed)]
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, WhiteKernel

    # A few kernels as they are: a gradient's path to a better one depends on the last digits, and often ends at a bound.
    kernels = [RBF(length * math.sqrt(columns)) + WhiteKernel(noise) for length, noise in itertools.product(LENGTHS, NOISES)]
    return [GaussianProcessRegressor(kernel, optimizer=None) for kernel in kernels]  # pyright: ignore[reportArgumentType]
