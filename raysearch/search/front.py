"""Which candidates are best: one order for champion, parents and front, so that they never disagree."""

from __future__ import annotations

import math
from collections.abc import Iterable

from raysearch.search.protocol import Direction, Result
from raysearch.search.record import Candidate


def preference(result: Result, *, index: int, direction: Direction) -> tuple[float, float, int, int]:
    """Sort key, best first: score, then lower loss (none counts as worst), fewer parameters, asked earlier."""
    score = -result.score if direction == "max" else result.score
    return score, math.inf if result.loss is None else result.loss, result.params, index


def _ranked(candidates: Iterable[Candidate], direction: Direction) -> list[Candidate]:
    """The candidates that compete, best first: scored and not excluded."""
    competing = [(c, c.result) for c in candidates]
    keyed = [
        (preference(r, index=c.proposal.index, direction=direction), c)
        for c, r in competing
        if r is not None and r.excluded is None
    ]
    return [c for _, c in sorted(keyed, key=lambda pair: pair[0])]


def champion(candidates: Iterable[Candidate], direction: Direction = "max") -> Candidate:
    """The best candidate that competes. Raises ValueError when there is none."""
    ranked = _ranked(candidates, direction)
    if not ranked:
        raise ValueError("no candidate competes, so there is no champion: the reasons stand in the candidate table")
    return ranked[0]


def pareto_front(candidates: Iterable[Candidate], direction: Direction = "max") -> list[Candidate]:
    """The candidates that no other beats in score and parameters at once, fewest parameters first.

    Of candidates with equal score and equal parameters the preferred one stands for all: lower loss, then asked earlier.
    """
    front: list[Candidate] = []
    fewest, last = math.inf, math.nan
    for candidate in _ranked(candidates, direction):
        result = candidate.result
        assert result is not None
        # Best score first: only a candidate with fewer parameters than all better ones adds to the front.
        if result.params < fewest:
            if result.score == last:
                front.pop()  # the same score with more parameters came first for its lower loss
            front.append(candidate)
            fewest, last = result.params, result.score
    return front[::-1]
