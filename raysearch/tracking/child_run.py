"""A candidate as the child run that MLflow keeps of it: tags, parameters and metrics. Plain values, no MLflow yet."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, fields
from typing import Any, Literal, cast

from raysearch.search.candidate import Candidate
from raysearch.search.protocol import Result
from raysearch.space import Architecture

SEARCH_ID = "raysearch.search_id"
"""Tag on every run of a search, parent and children."""
KEY = "raysearch.key"
"""Tag on a child run: the id of its architecture."""
ROLE = "raysearch.role"
"""Tag: ``search`` on the parent run, ``candidate`` on the run of a candidate, ``supernet`` on that of the training."""

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


def architecture_params(arch: Architecture) -> dict[str, str]:
    """An architecture as MLflow parameters that plot well.

    Scalar fields as they are; each place of a field per block or stage as ``<field>.00``, ``<field>.01``, and the mean of its
    numbers as ``<field>_mean``; ``depth`` where the class has it; the whole as JSON in ``architecture``.
    """
    params: dict[str, str] = {}
    if (depth := getattr(arch, "depth", None)) is not None:
        params["depth"] = text(depth)
    for name, value in arch.to_dict().items():
        params |= _places(name, value)
        if numbers := _numbers(value) if isinstance(value, list) else []:
            params[f"{name}_mean"] = text(round(statistics.fmean(numbers), 6))
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


def _numbers(value: Any) -> list[float]:
    """All numbers in a list of lists; the None of a block that is left out does not count."""
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]  # pyright: ignore[reportUnknownVariableType]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def text(value: object) -> str:
    """``value`` as MLflow stores a parameter."""
    return str(value)[:LONGEST_VALUE]


def milliseconds() -> int:
    """Now, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
