"""A search in progress: the progress line, a child run per candidate, curves over generations, and the report so far."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from raysearch.jobs.plan import Plan
from raysearch.jobs.progress import Phase
from raysearch.report import write_report
from raysearch.search import Candidate, Failure, Result, planned_generations
from raysearch.store.folder import OutputFolder
from raysearch.store.summary import Counts, EpochRecord, Progress, Summary, Training
from raysearch.store.versions import package_versions
from raysearch.tracking import Tracker

EVERY = 20.0
"""Seconds between two reports at least."""
MOST = 0.01
"""Share of the time that reports may take. One took 0.1 s with 300 candidates, 0.3 s with 1,000 and 1.3 s with 3,000."""
EVERY_RECORDED = 300.0
"""Seconds between two that MLflow gets as well: each is 5 MB."""


def known_so_far(
    plan: Plan, folder: OutputFolder, tracker: Tracker, *, candidates: Sequence[Candidate], history: Sequence[EpochRecord]
) -> Summary:
    """What was asked, how many candidates have what status, how the supernet was trained, with which versions."""
    statuses = Counter(c.status for c in candidates)
    first = next((c.result for c in candidates if c.result is not None), None)
    return Summary(
        recipe=plan.recipe.name,
        seed=plan.recipe.seed,
        command=folder.config["command"],
        constraint=str(plan.problem.constraint),
        search_id=folder.search_id,
        mlflow_run_id=tracker.run_id,
        counts=Counts(
            candidates=len(candidates),
            scored=statuses["scored"],
            raced=statuses["raced"],
            slow=statuses["slow"],
            failed=statuses["failed"],
            train_images=len(plan.splits.train),
            search_images=len(plan.splits.search),
            finalist_images=len(plan.splits.finalists),
        ),
        seconds=folder.seconds,
        training=Training(len(history), list(history)),
        versions=package_versions(),
        score_name=plan.recipe.task.score_name,
        score_kind="bits" if first is None else first.kind,
        data_notes=list(plan.splits.notes),
        seen=plan.seen,
    )


class Watcher:
    """Follows a search.

    Args:
        plan: of the search.
        folder: where the report goes.
        tracker: gets every candidate and curve, and the report less often.
        shown: the progress line.
        history: records of the supernet's epochs.
        total: how many candidates are planned.
        say: gets a line for each generation in which candidates failed.

    """

    def __init__(
        self,
        plan: Plan,
        folder: OutputFolder,
        tracker: Tracker,
        shown: Phase,
        *,
        history: Sequence[EpochRecord],
        total: int,
        say: Callable[[str], None],
    ) -> None:
        self._plan, self._tracker, self._shown = plan, tracker, shown
        self._failures = Failures(say)
        self._generations = planned_generations(total, plan.recipe.algorithm_config)
        self._report = _InterimReport(plan, folder, tracker, history=history, generations=self._generations, total=total)
        self._candidates: list[Candidate] = []
        self._generation = 0
        self._scores: list[float] = []
        """Of the generation in progress."""
        self._best: float | None = None

    def __call__(self, candidate: Candidate) -> None:
        """Take the next candidate in the order asked."""
        proposal, result = candidate.proposal, candidate.result
        if proposal.generation != self._generation:
            self.end_generation()
            # Here the evaluators have the rest of the new generation to work on, so they do not wait for the report.
            self._report.write(self._candidates, generation=proposal.generation + 1)
            self._generation = proposal.generation
        self._candidates.append(candidate)
        self._failures.take(candidate.outcome)
        if result is not None and candidate.status == "scored":  # a raced one has the score of a few images
            self._scores.append(result.score)
            self._best = result.score if self._best is None else max(self._best, result.score)
        self._tracker.log_candidate(candidate)
        self._shown.show(
            proposal.index + 1,
            step=f"generation {proposal.generation + 1}/{self._generations}",
            best="" if self._best is None else f"best {self._plan.recipe.task.score_text(self._best)}",
        )

    def end_generation(self) -> None:
        """Record the generation's point of each curve, and say how many have no score."""
        self._failures.end_generation(self._generation + 1)
        if self._scores and self._best is not None:
            values = {"search/best": self._best, "search/median": statistics.median(self._scores)}
            self._tracker.log_metrics(values, step=self._generation)
        self._scores = []


class Failures:
    """Says after each generation how many of its candidates have no score, and why, where some have none.

    Args:
        say: gets the lines.

    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._reasons, self._candidates = Counter[str](), 0

    def take(self, outcome: Result | Failure) -> None:
        """Count a candidate of the generation in progress."""
        self._candidates += 1
        if isinstance(outcome, Failure):
            self._reasons[outcome.reason] += 1

    def end_generation(self, number: int) -> None:
        """Say what came of the generation of this number."""
        if self._reasons:
            reasons = "; ".join(f"{reason}: {count}" for reason, count in self._reasons.most_common(3))
            of = f"{self._reasons.total()} of {self._candidates} candidates of generation {number}"
            self._say(f"{of} have no score ({reasons})")
        self._reasons, self._candidates = Counter[str](), 0


class _InterimReport:
    """Writes ``report.html`` while a search runs, not too often: who opens it sees what is known; a killed search leaves it."""

    def __init__(
        self,
        plan: Plan,
        folder: OutputFolder,
        tracker: Tracker,
        *,
        history: Sequence[EpochRecord],
        generations: int,
        total: int,
    ) -> None:
        self._plan, self._folder, self._tracker, self._history = plan, folder, tracker, history
        self._generations, self._total = generations, total
        self._started = time.monotonic()
        self._next = float("-inf")
        """When another report may be written."""
        self._recorded = float("-inf")

    def write(self, candidates: Sequence[Candidate], *, generation: int) -> None:
        """Write what is known in ``generation``, counted from 1, unless the last report was just written."""
        now = time.monotonic()
        if now < self._next:
            return
        path = write_report(self._folder.path, self._summary(candidates, generation), candidates=candidates)
        done = time.monotonic()
        self._next = done + max(EVERY, (done - now) / MOST)
        if now - self._recorded >= EVERY_RECORDED:
            self._tracker.log_artifact(path)
            self._recorded = now

    def _summary(self, candidates: Sequence[Candidate], generation: int) -> Summary:
        """Of the closing summary all that is known before the end."""
        known = known_so_far(self._plan, self._folder, self._tracker, candidates=candidates, history=self._history)
        return replace(
            known,
            written=datetime.now(UTC).isoformat(timespec="seconds"),
            progress=Progress(generation, self._generations, len(candidates), self._total),
            seconds={**known.seconds, "search": known.seconds.get("search", 0.0) + time.monotonic() - self._started},
        )
