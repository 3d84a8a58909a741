"""Which candidates are best: one order for champion, parents and front, so that they never disagree."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

from raysearch.errors import UserError
from raysearch.search.candidate import Candidate
from raysearch.search.protocol import Result

if TYPE_CHECKING:
    from raysearch.space.cost import Cost

T = TypeVar("T")

# moocore is imported where it is used: evaluators import this package and rank nothing.

Objective = Literal["score", "params", "macs", "latency"]
"""What a front weighs: the task's score, parameters, multiply-accumulates, milliseconds (measured, or else predicted)."""

SCORE_AND_PARAMS: tuple[Objective, ...] = ("score", "params")


def order(score: float, loss: float | None, params: int, index: int) -> tuple[float, float, int, int]:
    """Sort key, best first: higher score, then lower loss (none counts as worst), fewer parameters, asked earlier."""
    return -score, math.inf if loss is None else loss, params, index


def preference(result: Result, *, index: int) -> tuple[float, float, int, int]:
    """The :func:`order` of a result, with its candidate's place in the order asked."""
    return order(result.score, result.loss, result.params, index)


def require_objectives(objectives: Sequence[Objective]) -> None:
    """Raises UserError unless there are two or more objectives, none of them twice."""
    if len(objectives) < 2 or len(set(objectives)) < len(objectives):
        raise UserError(f"objectives are {' '.join(objectives) or 'none'}; name two or more, each once, as: score params")


def objective_values(result: Result, cost: Cost, objectives: Sequence[Objective]) -> tuple[float, ...]:
    """One number per objective, lower is better. Raises UserError for a latency neither measured nor predicted."""
    values: list[float] = []
    for objective in objectives:
        if objective == "score":
            values.append(-result.score)
        elif objective == "latency":
            latency = cost.latency_ms if result.latency_ms is None else result.latency_ms
            if latency is None:
                raise UserError("objective latency: neither measured nor predicted; measure it or choose macs instead")
            values.append(latency)
        else:
            values.append(result.params if objective == "params" else result.macs)
    return tuple(values)


def _competing(candidates: Iterable[Candidate]) -> list[tuple[Candidate, Result]]:
    """Those that were scored and not excluded, best first."""
    results = [(c, c.result) for c in candidates]
    competing = [(c, result) for c, result in results if result is not None and result.competes]
    return sorted(competing, key=lambda told: preference(told[1], index=told[0].proposal.index))


def ranked(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The candidates that compete, best first: scored and not excluded."""
    return [c for c, _ in _competing(candidates)]


def champion(candidates: Iterable[Candidate]) -> Candidate:
    """The best candidate that competes. Raises UserError when there is none."""
    best = ranked(candidates)
    if not best:
        raise UserError("no candidate competes, so there is no champion: the reasons stand in the candidate table")
    return best[0]


def nondominated(ranked: Sequence[T], points: Sequence[Sequence[float]]) -> list[T]:
    """Those whose point no other beats in all coordinates at once, lower is better; ascending in all but the first.

    Of equal points the first one stands for all, so the preferred one of what is ``ranked`` best first.
    """
    if not ranked:
        return []
    import moocore

    on_front = moocore.is_nondominated(points)
    front = [(tuple(point)[1:], thing) for point, thing, stays in zip(points, ranked, on_front, strict=True) if stays]
    return [thing for _, thing in sorted(front, key=lambda entry: entry[0])]


def pareto_front(candidates: Iterable[Candidate], *, objectives: Sequence[Objective] = SCORE_AND_PARAMS) -> list[Candidate]:
    """The candidates that no other beats in all objectives at once, ascending in the second (as: fewest parameters first).

    Of candidates equal in all objectives the preferred one stands for all: lower loss, fewer parameters, asked earlier. Raises
    UserError for objectives that make no front.
    """
    require_objectives(objectives)
    competing = _competing(candidates)
    points = [objective_values(result, c.cost, objectives) for c, result in competing]
    return nondominated([c for c, _ in competing], points)


def spread(members: Sequence[T], count: int) -> list[T]:
    """So many members, evenly along the order in which they stand, with both ends; one: the first."""
    if len(members) <= count or count < 1:
        return list(members[: max(0, count)])
    return [members[round(i * (len(members) - 1) / max(1, count - 1))] for i in range(count)]


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
        UserError: the reference does not have one value per objective.

    """
    require_objectives(objectives)
    if len(reference) != len(objectives):
        raise UserError(f"reference {tuple(reference)} does not have one value for each of {' '.join(objectives)}")
    import moocore

    points = [objective_values(result, c.cost, objectives) for c, result in _competing(candidates)]
    worst = [-value if name == "score" else value for name, value in zip(objectives, reference, strict=True)]
    return float(moocore.hypervolume(points, ref=worst)) if points else 0.0
