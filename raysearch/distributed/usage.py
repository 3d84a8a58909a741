"""How much of their time evaluators score, and how much they wait because nothing is there to score."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from raysearch.store.summary import Usage

Span = tuple[float, float]
"""Begin and end, in seconds of one clock."""


class UsageLog:
    """Notes of a pool: when evaluators were there, when they scored what, and when no candidate was queued."""

    def __init__(self) -> None:
        self._arrived: dict[Hashable, float] = {}
        self._left: dict[Hashable, float] = {}
        self._scored: dict[str, dict[Hashable, list[Span]]] = {}
        self._queued: int = 0
        self._empty_since: float | None = None
        self._empty: list[Span] = []

    @property
    def waiting(self) -> int:
        """How many candidates wait for an evaluator."""
        return self._queued

    def arrived(self, evaluator: Hashable, now: float) -> None:
        """An evaluator can score from now on."""
        self._arrived[evaluator] = now

    def left(self, evaluator: Hashable, now: float) -> None:
        """An evaluator was lost."""
        self._left[evaluator] = now

    def queued(self, change: int, now: float) -> None:
        """So many candidates more (or, below zero, fewer) wait for an evaluator."""
        # The queue runs empty while the last candidates of a generation are scored: that is the barrier. Before the first
        # candidate nothing is noted: evaluators that start early wait for the search, not for an algorithm.
        if self._queued == 0 and change > 0 and self._empty_since is not None:
            self._empty.append((self._empty_since, now))
        self._queued += change
        if self._queued == 0:
            self._empty_since = now

    def scored(self, split: str, evaluator: Hashable, begin: float, end: float) -> None:
        """An evaluator scored a candidate of a split."""
        self._scored.setdefault(split, {}).setdefault(evaluator, []).append((begin, end))

    def usage(self, split: str, *, part: Span = (0.0, 1.0)) -> Usage | None:
        """Usage while the candidates of ``split`` were scored; None before the first is.

        Args:
            split: whose candidates.
            part: the part of that time to look at, as (0.1, 0.9) for a steady state without its beginning and end.

        """
        by_evaluator = self._scored.get(split)
        if not by_evaluator:
            return None
        # From the first score's begin to the last one's end, and of that the part asked for. A search begins with evaluators
        # that are still starting and ends with a last barrier; neither says how busy a long search keeps them, so a steady
        # state is measured inside. Every span is cut at this window's edges: a score that began before it counts from there.
        spans = [span for spans in by_evaluator.values() for span in spans]
        first, last = min(begin for begin, _ in spans), max(end for _, end in spans)
        window = (first + part[0] * (last - first), first + part[1] * (last - first))
        # The emptiness that lasts has no end yet. It counts to the window's.
        empty = [*self._empty, (self._empty_since, window[1])] if self._queued == 0 and self._empty_since else self._empty
        there = busy = barrier = 0.0
        evaluators = 0
        for evaluator, arrived in self._arrived.items():
            # One that was lost counts as long as it was there and its replacement from its arrival on: nobody waits in between.
            # One that was there outside the window only takes no part.
            presence = _clipped([(arrived, self._left.get(evaluator, window[1]))], window)
            evaluators += bool(presence)
            scoring = sorted(_clipped(by_evaluator.get(evaluator, []), window))
            there += _length(presence)
            busy += _length(scoring)
            for span in presence:
                # Free from its arrival to the first score, between scores, and from the last one to its end. Free time with an
                # empty queue is the barrier's; with candidates queued, it is the handing over's, which neither share counts.
                free = list(
                    zip([span[0], *(end for _, end in scoring)], [*(begin for begin, _ in scoring), span[1]], strict=True)
                )
                barrier += sum(_length(_clipped(empty, idle)) for idle in free)
        return Usage(evaluators, window[1] - window[0], busy / there, barrier / there)


def _clipped(spans: Iterable[Span], window: Span) -> list[Span]:
    return [(max(begin, window[0]), min(end, window[1])) for begin, end in spans if end > window[0] and begin < window[1]]


def _length(spans: Iterable[Span]) -> float:
    return sum(end - begin for begin, end in spans)
