"""What all algorithms check and write down about how they were started."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from raysearch.errors import UserError
from raysearch.space import Architecture, MutationRates, SearchSpace
from raysearch.space.problem import SearchProblem

A = TypeVar("A", bound=Architecture)


def checked_initial(initial: Sequence[A], problem: SearchProblem[A], *, places: int) -> tuple[A, ...]:
    """The architectures that open a search, each once.

    Raises UserError for one outside the space or the band, and for more than the ``places`` of a first generation.
    """
    distinct = tuple(dict.fromkeys(initial))
    if len(distinct) > places:
        raise UserError(f"{len(distinct)} initial architectures, but a generation holds {places}")
    for arch in distinct:
        if not problem.space.contains(arch):
            raise UserError(f"initial architecture {arch} is not in the space")
        if not problem.in_band(arch):
            raise UserError(f"initial architecture {arch} ({problem.cost(arch)}) is not within {problem.constraint}")
    return distinct


def search_settings(
    algorithm: str, config: Any, problem: SearchProblem[Any], *, seed: int, initial: Sequence[Architecture]
) -> dict[str, Any]:
    """Everything but the results that decides a search's candidates, as JSON values."""
    settings = {
        "algorithm": algorithm,
        **asdict(config),
        "seed": seed,
        "initial": [arch.id for arch in initial],
        "space": problem.space.to_dict(),
        "constraint": asdict(problem.constraint),
    }
    return json.loads(json.dumps(settings))


def require_same_settings(ours: dict[str, Any], stored: dict[str, Any]) -> None:
    """Raises UserError that names the first setting in which a stored search differs from this one.

    A state of 0.1.0 also held the direction of its score, where only "max" is left, and with each choice a mark that decided
    nothing: neither is a difference.
    """
    stored = {name: value for name, value in stored.items() if (name, value) != ("direction", "max")}
    choices = [{k: v for k, v in choice.items() if k != "weight_free"} for choice in stored["space"]["choices"]]
    stored["space"] = {**stored["space"], "choices": choices}
    for name in sorted(ours.keys() | stored.keys()):
        mine, theirs = ours.get(name), stored.get(name)
        if mine != theirs:
            raise UserError(
                f"the stored search has {name} = {theirs}, this one {mine}: continue it with its own settings or start anew"
            )


def redraw_rates(space: SearchSpace[Any], redraws: float) -> MutationRates:
    """Rates at which a mutation redraws so many of the space's decisions on average (a redraw may return the old value)."""
    rate = min(1.0, redraws / len(space.param_space))
    return MutationRates(depth=rate, net=rate, block=rate)
