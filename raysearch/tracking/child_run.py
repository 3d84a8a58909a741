"""A candidate as the child run that MLflow keeps of it: tags, parameters and metrics. Plain values, no MLflow yet."""

from __future__ import annotations

import math
import statistics
import time
import types
import typing
from dataclasses import dataclass, fields
from typing import Any, Literal, cast

from raysearch.search.candidate import Candidate
from raysearch.search.protocol import Result
from raysearch.space import Architecture
from raysearch.space.architecture import field_types
from raysearch.store.names import readable

SEARCH_ID = "raysearch.search_id"
"""Tag on every run of a search, parent and children."""
KEY = "raysearch.key"
"""Tag on a child run: the id of its architecture."""
ROLE = "raysearch.role"
"""Tag: ``search`` on the parent run, ``candidate`` on the run of a candidate, ``supernet`` and others on those of trainings."""

LONGEST_VALUE = 6000
"""Characters of a parameter that MLflow keeps; it cuts longer ones silently."""


@dataclass(frozen=True, slots=True)
class ChildRun:
    """A child run, ready to be written. Times in milliseconds since the epoch."""

    key: str
    status: Literal["FINISHED", "FAILED"]
    start: int
    end: int
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Arguments of the constructor: JSON values."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def child_run(candidate: Candidate) -> ChildRun:
    """The child run of a candidate that was scored just now. Values that are not finite are left out."""
    proposal, outcome, end = candidate.proposal, candidate.outcome, milliseconds()
    tags = {
        KEY: proposal.arch.id,
        ROLE: "candidate",
        "raysearch.status": candidate.status,
    }
    if proposal.parents:
        tags["raysearch.parents"] = ",".join(proposal.parents)
    values: dict[str, float | None] = {
        "params": candidate.cost.params,
        "macs": candidate.cost.macs,
        "predicted_latency_ms": candidate.cost.latency_ms,
    }
    seconds = 0.0
    if isinstance(outcome, Result):
        seconds = outcome.seconds
        # Runs are sorted by score: one over the few images of a lost race must not come first.
        place = "partial_" if outcome.excluded == "raced" else ""
        values |= {f"{place}score": outcome.score, f"{place}loss": outcome.loss}
        values |= {"images_seen": outcome.items_seen, "seconds": seconds, "latency_ms": outcome.latency_ms}
    else:
        tags["raysearch.reason"] = outcome.reason[:LONGEST_VALUE]
    return ChildRun(
        key=proposal.arch.id,
        status="FINISHED" if isinstance(outcome, Result) else "FAILED",
        start=end - round(1000 * seconds),
        end=end,
        tags=tags,
        params={
            "index": str(proposal.index),
            "generation": str(proposal.generation),
            "origin": proposal.origin,
            **architecture_params(proposal.arch),
        },
        metrics={name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)},
    )


_TAKEN = ("index", "generation", "origin", "architecture", "skipped")
"""Names that a run's other parameters have: a field of the same name becomes ``arch.<field>``."""


def architecture_params(arch: Architecture) -> dict[str, str]:
    """An architecture as MLflow parameters that plot well: every choice a number or a word under a name of its own.

    - Scalar fields as they are.
    - Each place of a field per block or stage as ``<field>.00``, ``<field>.01``; of a block in a stage as ``<field>.01.00``.
      Nothing for a block that is left out.
    - The mean of a list's numbers as ``<field>_mean``, 0 where all its blocks are left out.
    - ``depth`` where the class has it or its stages show it, and of stages each as ``depth.00``.
    - ``skipped``: how many blocks are left out, where the class can leave any out.
    - The whole as JSON in ``architecture``.
    """
    params: dict[str, str] = {}
    values = arch.to_dict()
    kinds = {name: _kinds(hint) for name, hint in field_types(type(arch)).items()}
    lists = {name: cast(list[Any], value) for name, value in values.items() if isinstance(value, list)}
    depth = getattr(arch, "depth", None)
    if depth is None:  # of a net with stages it is the length of each: of any list per block
        depth = next(([len(stage) for stage in value] for value in lists.values() if _has_stages(value)), None)
    if isinstance(depth, list | tuple):
        stages = list(depth)
        params |= {"depth": text(sum(stages)), **_places("depth", stages)}
    elif depth is not None:
        params["depth"] = text(depth)
    skippable = [value for name, value in lists.items() if types.NoneType in kinds[name]]
    if skippable:  # all of them leave out the same blocks
        params["skipped"] = text(_leaves(skippable[0]).count(None))
    for name, value in values.items():
        params |= _places(f"arch.{name}" if name in _TAKEN else name, value)
        if name in lists and kinds[name] & {int, float}:
            numbers = [leaf for leaf in _leaves(lists[name]) if isinstance(leaf, int | float) and not isinstance(leaf, bool)]
            params[f"{name}_mean"] = text(round(statistics.fmean(numbers), 6) if numbers else 0)
    params["architecture"] = text(arch.to_json())
    return params


def _places(name: str, value: Any) -> dict[str, str]:
    """A value under its name; each place of a list under its own, without the None of a block that is left out."""
    if not isinstance(value, list):
        return {} if value is None else {name: text(value)}
    places: dict[str, str] = {}
    for i, item in enumerate(cast(list[Any], value)):
        places |= _places(f"{name}.{i:02}", item)
    return places


def _has_stages(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(stage, list) for stage in value)


def _leaves(value: Any) -> list[Any]:
    """What a list of lists holds, in order."""
    return [leaf for item in cast(list[Any], value) for leaf in _leaves(item)] if isinstance(value, list) else [value]


def _kinds(hint: Any) -> set[Any]:
    """The types of which a field's type is made up: ``{int, NoneType, ...}`` for ``tuple[int | None, ...]``."""
    parts = typing.get_args(hint)
    return {kind for part in parts for kind in _kinds(part)} if parts else {hint}


def text(value: object) -> str:
    """``value`` as MLflow stores a parameter."""
    return readable(str(value))[:LONGEST_VALUE]


def milliseconds() -> int:
    """Now, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
