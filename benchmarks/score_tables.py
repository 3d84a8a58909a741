"""Scored architectures as a file, and a surrogate that stands in for the evaluators which scored them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysearch.search.protocol import Result
from raysearch.space import Architecture
from raysearch.space.problem import SearchProblem
from raysearch.store.files import written_whole

A = TypeVar("A", bound=Architecture)

FOLDS = 5
"""Parts of a table; each is predicted by what the others teach."""

_KEY = b"raysearch.score_table"


@dataclass(frozen=True, slots=True)
class ScoreTable(Generic[A]):
    """Architectures of one problem with the scores that one supernet's weights give them."""

    archs: tuple[A, ...]
    """No two are equal."""
    origins: tuple[str, ...]
    """Why each was scored."""
    results: tuple[Result, ...]
    """Of the same images for all."""
    proxies: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict[str, tuple[float | None, ...]])
    """Zero-cost scores by name, in the order of :attr:`archs`; None where they were not computed."""
    about: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Where it comes from, as JSON values."""

    def write(self, path: Path) -> None:
        """Write Parquet to ``path``, whole or not at all."""
        columns: dict[str, Any] = {
            "arch": [arch.to_json() for arch in self.archs],
            "origin": list(self.origins),
            "score": [r.score for r in self.results],
            "loss": [r.loss for r in self.results],
            "params": [r.params for r in self.results],
            "macs": [r.macs for r in self.results],
            **{f"proxy.{name}": list(values) for name, values in self.proxies.items()},
        }
        images = {r.items_seen for r in self.results}
        assert len(images) == 1, f"scores of {sorted(images)} images cannot be compared"
        about = json.dumps({**self.about, "images_seen": images.pop()})
        with written_whole(path) as temporary:
            pq.write_table(pa.table(columns).replace_schema_metadata({_KEY: about.encode()}), temporary, compression="zstd")

    @classmethod
    def read(cls, path: Path, architecture: type[A]) -> ScoreTable[A]:
        """Inverse of :meth:`write`. Raises ValueError for a file that is missing or no such table."""
        try:
            table = pq.read_table(path)
            about: dict[str, Any] = json.loads((table.schema.metadata or {})[_KEY])
            columns: dict[str, list[Any]] = table.to_pydict()
            archs = tuple(architecture.from_json(text) for text in columns["arch"])
            measured = zip(columns["score"], columns["loss"], columns["params"], columns["macs"], strict=True)
        except FileNotFoundError:
            raise ValueError(f"{path} is missing; benchmarks/make_score_table.py writes such a table") from None
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            reason = (str(error).splitlines() or ["unreadable"])[0]
            raise ValueError(f"{path} is no table of scores ({reason}); benchmarks/make_score_table.py writes one") from None
        images = about.pop("images_seen")
        return cls(
            archs,
            tuple(columns["origin"]),
            tuple(Result(score, images, params, macs, loss) for score, loss, params, macs in measured),
            {name.removeprefix("proxy."): tuple(values) for name, values in columns.items() if name.startswith("proxy.")},
            about,
        )


class Surrogate(Generic[A]):
    """Answers for every architecture what an evaluator might have: what the table says, or else a prediction.

    An architecture of the table has its own score and loss: exact. Any other is predicted by gradient-boosted trees that
    learned the table: score and loss from the space's features and the costs. ``ruggedness`` times the error that such a
    prediction had for one row of the table, when that row was held out, is added; which row is decided by the architecture's
    id. So the scores in between are as spread as those of the table, and the same at each call. Scores are whole numbers of
    correct images.

    Args:
        table: what is known.
        problem: the space and costs that the table was scored in.
        ruggedness: 1 for errors as large as measured, 0 for none: a smooth landscape.

    """

    def __init__(self, table: ScoreTable[A], problem: SearchProblem[A], *, ruggedness: float = 1.0) -> None:
        self.table, self.problem, self.ruggedness = table, problem, ruggedness
        self._known = dict(zip(table.archs, table.results, strict=True))
        self._images = table.results[0].items_seen
        self._targets = np.array([(r.score, 0.0 if r.loss is None else r.loss) for r in table.results])
        self._rows = self._features(table.archs)
        self._models = [_boosted(self._rows, target) for target in self._targets.T]

    def results(self, archs: Sequence[A]) -> list[Result]:
        """What each of ``archs`` scores."""
        unknown = [arch for arch in dict.fromkeys(archs) if arch not in self._known]
        if unknown:
            rows = self._features(unknown)
            predicted = np.stack([model.predict(rows) for model in self._models], axis=1)
            if self.ruggedness:
                which = [int(arch.id, 16) % len(self.table.archs) for arch in unknown]
                predicted += self.ruggedness * (self._targets - self.held_out)[which]
            for arch, (score, loss) in zip(unknown, predicted.tolist(), strict=True):
                cost = self.problem.cost(arch)
                score = min(1.0, max(0.0, round(score * self._images) / self._images))
                self._known[arch] = Result(score, self._images, cost.params, cost.macs, max(0.0, loss))
        return [self._known[arch] for arch in archs]

    @cached_property
    def held_out(self) -> np.ndarray:
        """Score and loss of each row of the table as predicted by the other four fifths: (rows, 2)."""
        predicted = np.empty_like(self._targets)
        fold = np.random.default_rng(0).permutation(len(self._rows)) % FOLDS
        for part in range(FOLDS):
            for column in range(2):
                model = _boosted(self._rows[fold != part], self._targets[fold != part, column])
                predicted[fold == part, column] = model.predict(self._rows[fold == part])
        return predicted

    def _features(self, archs: Sequence[A]) -> np.ndarray:
        costs = [self.problem.cost(arch) for arch in archs]
        rows = [(*self.problem.space.features(a), c.params, c.macs) for a, c in zip(archs, costs, strict=True)]
        return np.asarray(rows, dtype=np.float64)


def _boosted(rows: np.ndarray, target: np.ndarray) -> Any:
    # Not the histogram kind: its threads wait for each other where other processes use the cores.
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(
        n_estimators=300, learning_rate=0.05, max_depth=4, subsample=0.5, max_features=0.3, random_state=0
    )
    return model.fit(rows, target)
