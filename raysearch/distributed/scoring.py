"""Scoring as a service: a pool of evaluators for the length of a ``with`` block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import ray

from raysearch.distributed.cluster import Actor, answer
from raysearch.distributed.evaluators import EvaluatorConfig, Scorer, start_pool
from raysearch.distributed.files import NodeFile
from raysearch.distributed.usage import Span, Usage
from raysearch.search.protocol import Failure, Result, outcome_from_dict
from raysearch.space import Architecture
from raysearch.store.journal import Journal
from raysearch.store.predictions import Predictions

A = TypeVar("A", bound=Architecture)


class ScoringService:
    """A pool and the journal that it writes.

    Args:
        make_scorer: builds an evaluator's scorer, in its process.
        config: the evaluators' size and number.
        name: of the pool, unique in the cluster.
        journal: path of the journal.
        weights: digest of the weights that are scored. Raises UserError when the journal holds the scores of others.
        calibration: digest of the calibration inputs, for families that need them; as for the weights.

    """

    def __init__(
        self,
        make_scorer: Callable[[], Scorer],
        config: EvaluatorConfig,
        *,
        name: str,
        journal: Path,
        weights: str,
        calibration: str | None = None,
    ) -> None:
        self._earlier = Journal(journal, weights=weights, calibration=calibration).outcomes
        self.name = name
        self.pool: Actor = start_pool(make_scorer, config, name=name, journal=journal, weights=weights, calibration=calibration)

    def __enter__(self) -> Self:
        """The service itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the pool and, with it, its evaluators."""
        ray.kill(self.pool)

    def known(self, split: str) -> dict[str, Result | Failure]:
        """Outcomes of earlier runs on a split, by architecture id."""
        return {arch_id: outcome for (of, arch_id), outcome in self._earlier.items() if of == split}

    def add_images(self, split: str, images: NodeFile) -> None:
        """Name the images of a split, before its first candidate."""
        ray.get(self.pool.add_images.remote(split, images))

    def wait_for(self, evaluators: int) -> None:
        """Return when so many evaluators are free, as a measurement wants it. Raises the error of one that cannot start."""
        answer(self.pool.wait_for.remote(evaluators))

    def usage(self, split: str, *, part: Span = (0.0, 1.0)) -> Usage | None:
        """How much of their time the evaluators scored candidates of a split; None before any was. See :class:`UsageLog`."""
        found = cast("dict[str, Any] | None", ray.get(self.pool.usage.remote(split, part)))
        return None if found is None else Usage(**found)

    def score(self, split: str, archs: Sequence[A]) -> Iterator[tuple[A, Result | Failure]]:
        """Outcomes of ``archs`` on all images of a split, in this order, each as soon as it is known.

        Not for a split on which some of them were raced: that outcome stands for the split, and a search replays it.
        """
        ray.get(self.pool.prefetch.remote(split, dict.fromkeys(archs)))
        for arch in archs:
            outcome = outcome_from_dict(answer(self.pool.result.remote(split, arch.id)))
            assert not (isinstance(outcome, Result) and outcome.excluded == "raced"), f"{arch.id} was raced on {split}"
            yield arch, outcome

    def predict(self, split: str, arch: Architecture) -> Predictions | None:
        """What a network says of each image of a split, in one more pass; None for a task that is no classification."""
        return cast("Predictions | None", answer(self.pool.predict.remote(split, arch)))
