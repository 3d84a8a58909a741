"""Scoring as a service: a pool of evaluators for the length of a ``with`` block."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError

from raysearch.distributed.cluster import LOST, Actor, answer
from raysearch.distributed.evaluators import EvaluatorConfig, Scorer, start_pool
from raysearch.distributed.files import NodeFile
from raysearch.distributed.restarts import Restarts
from raysearch.distributed.usage import Span, Usage
from raysearch.search.protocol import Failure, Result, outcome_from_dict
from raysearch.search.racing import Part
from raysearch.space import Architecture
from raysearch.store.journal import Journal
from raysearch.store.predictions import Predictions

log = logging.getLogger(__name__)

A = TypeVar("A", bound=Architecture)
T = TypeVar("T")


class ScoringService:
    """A pool and the journal that it writes. A pool that is lost is started again from the journal.

    Args:
        make_scorer: builds an evaluator's scorer, in its process.
        config: the evaluators' size and number.
        name: of the pool, unique in the cluster.
        journal: path of the journal.
        weights: digest of the weights that are scored. Raises UserError when the journal holds the scores of others.
        calibration: digest of the calibration inputs, for families that need them; as for the weights.
        say: gets a line for everything that a user may want to know: processes that were lost, or find no room.

    """

    pool: Actor
    name: str
    """Of the pool, as trials find it: another one after each restart."""

    def __init__(
        self,
        make_scorer: Callable[[], Scorer],
        config: EvaluatorConfig,
        *,
        name: str,
        journal: Path,
        weights: str,
        calibration: str | None = None,
        say: Callable[[str], None] = log.warning,
    ) -> None:
        self._earlier = Journal(journal, weights=weights, calibration=calibration).outcomes
        self._first_name, self._say = name, say
        self._start: Callable[[str], Actor] = lambda called: start_pool(
            make_scorer, config, name=called, journal=journal, weights=weights, calibration=calibration
        )
        self._images: dict[str, NodeFile] = {}
        self._restarts = Restarts("the pool of evaluators", say)
        self.name, self.pool = name, self._start(name)
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._tell, name="pool-news", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        """The service itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the pool and, with it, its evaluators."""
        self._ended.set()
        self._reader.join()
        ray.kill(self.pool)

    def _tell(self) -> None:
        """Pass on what the pool has to say, to the end. What it cannot say, as it is gone, whoever asks it finds out."""
        pool, known, ended = self.pool, 0, False
        while not ended:
            ended = self._ended.wait(1)  # then once more: what it said since the last look
            if pool is not self.pool:
                pool, known = self.pool, 0
            try:
                lines: list[str] = ray.get(pool.news.remote(known), timeout=5)
            except (RayError, GetTimeoutError):
                continue
            for line in lines:
                self._say(line)
            known += len(lines)

    def revive(self, error: Exception) -> None:
        """Start another pool, which knows what the journal knows, after ``error`` took the last. UserError after many."""
        self._restarts.another(error)
        ray.kill(self.pool)  # one that is only out of reach must not write to the journal
        self.name = f"{self._first_name}-{self._restarts.count}"
        self.pool = self._start(self.name)
        for split, images in self._images.items():
            ray.get(self.pool.add_images.remote(split, images))

    def known(self, split: str) -> dict[str, Result | Failure]:
        """Outcomes of earlier runs on a split, by architecture id."""
        return {arch_id: outcome for (of, arch_id), outcome in self._earlier.items() if of == split}

    def add_images(self, split: str, images: NodeFile) -> None:
        """Name the images of a split, before its first candidate."""
        self._images[split] = images
        self._kept_up(lambda: answer(self.pool.add_images.remote(split, images)))

    def wait_for(self, evaluators: int) -> None:
        """Return when so many evaluators are free, as a measurement wants it. Raises the error of one that cannot start."""
        answer(self.pool.wait_for.remote(evaluators))

    def usage(self, split: str, *, part: Span = (0.0, 1.0)) -> Usage | None:
        """How much of their time the evaluators scored candidates of a split; None before any was. See :class:`UsageLog`."""
        ask: Callable[[], dict[str, Any] | None] = lambda: answer(self.pool.usage.remote(split, part))  # noqa: E731
        found = self._kept_up(ask)
        return None if found is None else Usage(**found)

    def prefetch(self, split: str, candidates: Mapping[Architecture, Part | None]) -> None:
        """Queue candidates, each with its part of the split: :meth:`Pool.prefetch`. RayActorError when the pool is gone."""
        answer(self.pool.prefetch.remote(split, dict(candidates)))

    def check(self) -> None:
        """Raise what ended the scoring, if anything did; RayActorError when the pool is gone."""
        answer(self.pool.check.remote())

    def score(self, split: str, archs: Sequence[A]) -> Iterator[tuple[A, Result | Failure]]:
        """Outcomes of ``archs`` on all images of a split, in this order, each as soon as it is known.

        Not for a split on which some of them were raced or scored on a sample: that outcome stands for the split, and a search
        replays it.
        """
        self._kept_up(lambda: self.prefetch(split, dict.fromkeys(archs)))
        for done, arch in enumerate(archs):

            def one(arch: A = arch, left: Sequence[A] = archs[done:]) -> dict[str, Any]:
                self.prefetch(split, dict.fromkeys(left))  # nothing, unless the pool is a new one
                return answer(self.pool.result.remote(split, arch.id))

            outcome = outcome_from_dict(self._kept_up(one))
            assert not (isinstance(outcome, Result) and outcome.partial), f"{arch.id} was scored on a part of {split}"
            yield arch, outcome

    def predict(self, split: str, arch: Architecture) -> Predictions | None:
        """What a network says of each image of a split, in one more pass; None for a task that is no classification."""
        ask: Callable[[], Predictions | None] = lambda: answer(self.pool.predict.remote(split, arch))  # noqa: E731
        return self._kept_up(ask)

    def _kept_up(self, ask: Callable[[], T]) -> T:
        """What ``ask`` finds out, asked again of another pool as often as one is lost meanwhile."""
        while True:
            try:
                return ask()
            except LOST as error:
                self.revive(error)
