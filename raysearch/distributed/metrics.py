"""What Prometheus gets to know of a search, through the metrics that Ray collects from its processes (docs/cluster.md).

One value costs 15 to 35 microseconds (measured, Ray 2.60) and goes nowhere on a Ray without ``ray[default]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from ray.util.metrics import Counter, Gauge

from raysearch.search.protocol import Failure, Result
from raysearch.store.folder import CONFIG

M = TypeVar("M", Counter, Gauge)


@dataclass(frozen=True, slots=True)
class Description:
    """A metric."""

    kind: Literal["counter", "gauge"]
    help: str
    tags: tuple[str, ...] = ()
    """Beside ``run``, the name of the search's output folder."""

    def exported(self, name: str) -> str:
        """Its name in Prometheus, as Ray 2.60 writes it."""
        return f"ray_{name}_total" if self.kind == "counter" else f"ray_{name}"


CANDIDATES = "raysearch_candidates"
BEST_SCORE = "raysearch_best_score"
ITEMS = "raysearch_items"
QUEUE = "raysearch_queue"
EVALUATORS = "raysearch_evaluators"
BUSY_SHARE = "raysearch_busy_share"
LOST_EVALUATORS = "raysearch_lost_evaluators"
TRAINING_LOSS = "raysearch_training_loss"

METRICS: Mapping[str, Description] = {
    CANDIDATES: Description(
        "counter", "Candidates by what became of them: scored, raced (out), slow or failed", ("split", "status")
    ),
    BEST_SCORE: Description("gauge", "Best score on a split so far", ("split",)),
    ITEMS: Description("counter", "Images or series that candidates were scored on", ("split",)),
    QUEUE: Description("gauge", "Candidates that wait for an evaluator"),
    EVALUATORS: Description("gauge", "Evaluators that can score"),
    BUSY_SHARE: Description("gauge", "Share of the evaluators that score, at this moment"),
    LOST_EVALUATORS: Description("counter", "Evaluators that were lost or ended, and replaced"),
    TRAINING_LOSS: Description("gauge", "Mean loss of the last finished epoch", ("training",)),
}


def run_of(path: Path) -> str:
    """The name of the output folder that a file is in, at whatever depth."""
    return next((folder for folder in path.parents if (folder / CONFIG).exists()), path.parent).name


class PoolMetrics:
    """What a pool tells of its candidates and evaluators.

    Args:
        run: the search.
        known: outcomes of earlier runs by split and architecture, which are no news but may be the best.

    """

    def __init__(self, run: str, known: Mapping[tuple[str, str], Result | Failure]) -> None:
        self._candidates, self._items = _counter(CANDIDATES, run), _counter(ITEMS, run)
        self._lost = _counter(LOST_EVALUATORS, run)
        self._best, self._queue = _gauge(BEST_SCORE, run), _gauge(QUEUE, run)
        self._evaluators, self._busy = _gauge(EVALUATORS, run), _gauge(BUSY_SHARE, run)
        self._best_of: dict[str, float] = {}
        for (split, _), outcome in known.items():
            self._competes(split, outcome)

    def outcome(self, split: str, outcome: Result | Failure) -> None:
        """A candidate has an outcome."""
        status = "failed" if isinstance(outcome, Failure) else outcome.excluded or "scored"
        self._candidates.inc(1, {"split": split, "status": status})
        if isinstance(outcome, Result):
            self._items.inc(outcome.items_seen, {"split": split})
        self._competes(split, outcome)

    def _competes(self, split: str, outcome: Result | Failure) -> None:
        if isinstance(outcome, Result) and outcome.competes and outcome.score > self._best_of.get(split, float("-inf")):
            self._best_of[split] = outcome.score
            self._best.set(outcome.score, {"split": split})

    def lost(self) -> None:
        """An evaluator was lost."""
        self._lost.inc(1)

    def now(self, *, queue: int, evaluators: int, busy: int) -> None:
        """So many candidates wait, so many evaluators can score and so many do; told every few seconds, not at events."""
        self._queue.set(queue)
        self._evaluators.set(evaluators)
        self._busy.set(busy / evaluators if evaluators else 0.0)


def training_loss(path: Path, loss: float) -> None:
    """The last finished epoch of the training whose checkpoint is at ``path`` had this mean loss."""
    path = path.resolve()
    _gauge(TRAINING_LOSS, run_of(path)).set(loss, {"training": path.stem})


def _counter(name: str, run: str) -> Counter:
    return _of_run(Counter, name, run)


def _gauge(name: str, run: str) -> Gauge:
    return _of_run(Gauge, name, run)


def _of_run(kind: type[M], name: str, run: str) -> M:
    about = METRICS[name]
    assert about.kind == kind.__name__.lower()
    metric = kind(name, about.help, ("run", *about.tags))
    metric.set_default_tags({"run": run})
    return metric
