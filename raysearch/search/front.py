"""Which candidates are best: one order for champion, parents and front, so that they never disagree."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from raysearch.search.candidate import Candidate
from raysearch.search.protocol import Result

if TYPE_CHECKING:
    from raysearch.space.cost import Cost

# moocore is imported where it is used: evaluators import this package and rank nothing.

Objective = Literal["score", "params", "macs", "latency"]
"""What a front weighs: the task's score, parameters, multiply-accumulates, milliseconds (measured, or else predicted)."""

SCORE_AND_PARAMS: tuple[Objective, ...] = ("score", "params")


def preference(result: Result, *, index: int) -> tuple[float, float, int, int]:
    """Sort key, best first: :func:`order` of a result."""
    return order(result.score, result.loss, result.params, index)


def order(score: float, loss: float | None, params: int, index: int) -> tuple[float, float, int, int]:
    """Sort key, best first: higher score, then lower loss (none counts as worst), fewer parameters, asked earlier."""
    return -score, math.inf if loss is None else loss, params, index


def best_first(results: Iterable[tuple[int, Result]]) -> list[int]:
    """The places in the order asked of these results, sorted by :func:`preference`."""
    return [index for index, _ in sorted(results, key=lambda entry: preference(entry[1], index=entry[0]))]


def require_objectives(objectives: Sequence[Objective]) -> None:
    """Raises ValueError unless there are two or more objectives, none of them twice."""
    if len(objectives) < 2 or len(set(objectives)) < len(objectives):
        raise ValueError(f"objectives are {' '.join(objectives) or 'none'}; name two or more, each once, as: score params")


def objective_values(result: Result, cost: Cost, objectives: Sequence[Objective]) -> tuple[float, ...]:
    """One number per objective, lower is better. Raises ValueError for a latency neither measured nor predicted."""
    values: list[float] = []
    for objective in objectives:
        if objective == "score":
            values.append(-result.score)
        elif objective == "latency":
            latency = cost.latency_ms if result.latency_ms is None else result.latency_ms
            if latency is None:
                raise ValueError("objective latency: neither measured nor predicted; measure it or choose macs instead")
            values.append(latency)
        else:
            values.append(result.params if objective == "params" else result.macs)
    return tuple(values)


def _ranked(candidates: Iterable[Candidate]) -> list[tuple[Candidate, Result]]:
    """The candidates that compete, best first: scored and not excluded."""
    competing = [(c, c.result) for c in candidates]
    keyed = [(preference(r, index=c.proposal.index), c, r) for c, r in competing if r is not None and r.competes]
    return [(c, r) for _, c, r in sorted(keyed, key=lambda entry: entry[0])]


def ranked(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The candidates that compete, best first: scored and not excluded."""
    return [c for c, _ in _ranked(candidates)]


def champion(candidates: Iterable[Candidate]) -> Candidate:
    """The best candidate that competes. Raises ValueError when there is none."""
    ranked = _ranked(candidates)
    if not ranked:
        raise ValueError("no candidate competes, so there is no champion: the reasons stand in the candidate table")
    return ranked[0][0]


def undominated(points: Sequence[Sequence[float]]) -> list[bool]:
    """Which points no other beats in all values at once, lower is better; of equal points the first alone."""
    import moocore

    return moocore.is_nondominated(points).tolist() if points else []


def pareto_front(candidates: Iterable[Candidate], *, objectives: Sequence[Objective] = SCORE_AND_PARAMS) -> list[Candidate]:
    """The candidates that no other beats in all objectives at once, ascending in the second (as: fewest parameters first).

    Of candidates equal in all objectives the preferred one stands for all: lower loss, fewer parameters, asked earlier. Raises
    ValueError for objectives that make no front.
    """
    require_objectives(objectives)
    ranked = _ranked(candidates)
    points = [objective_values(result, c.cost, objectives) for c, result in ranked]
    on_front = undominated(points)  # of equal points the first, so the preferred one
    front = [(point[1:], c) for point, (c, _), stays in zip(points, ranked, on_front, strict=True) if stays]
    return [c for _, c in sorted(front, key=lambda entry: entry[0])]


def hypervolume(
    candidates: Iterable[Candidate],
    reference: Sequence[float],
    *,
    objectives: Sequence[Objective] = SCORE_AND_PARAMS,
) -> float:
    """What the front covers up to ``reference``: the product of the objectives' units, larger is better.

    Args:
        candidates: of one search; those that do not compete, and those worse than the reference, add nothing.
        reference: one value per objective in its own unit, as ``(0.9, 6e6)``: the worst that counts.
        objectives: what the front weighs.

    Raises:
        ValueError: the reference does not have one value per objective.

    """
    require_objectives(objectives)
    if len(reference) != len(objectives):
        raise ValueError(f"reference {tuple(reference)} does not have one value for each of {' '.join(objectives)}")
    import moocore

    points = [objective_values(result, c.cost, objectives) for c, result in _ranked(candidates)]
    worst = [-value if name == "score" else value for name, value in zip(objectives, reference, strict=True)]
    return float(moocore.hypervolume(points, ref=worst)) if points else 0.0
