"""What a search algorithm is told and asked: the contract between algorithms and whatever runs them."""

from __future__ import annotations

import base64
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Bool, Float32

from raysearch.space import Architecture
from raysearch.space.problem import SearchProblem

Exclusion = Literal["raced", "slow"]
"""Why a scored candidate can be neither parent nor champion: racing stopped it, or its measured latency breaks the limit."""

Kind = Literal["bits", "float32"]
"""What a task says of one item: right or wrong, or a number of which more is better."""

ByItem = Bool[np.ndarray, " items"] | Float32[np.ndarray, " items"]
"""Outcomes of the items of a split (or of some of them): the two kinds as arrays."""


@dataclass(frozen=True, slots=True)
class Result:
    """One candidate scored with inherited weights."""

    score: float
    """The task's score, as top-1 accuracy in 0..1; higher is better, so an error is judged as its negative. Always finite."""
    items_seen: int
    """How many items (images, series) were scored."""
    params: int
    macs: int
    loss: float | None = None
    """Mean loss over the same items: tells candidates of equal score apart."""
    outcomes: bytes = b""
    """Outcome of each item in the order of the split, as :func:`pack` writes it; empty where nobody needs them."""
    kind: Kind = "bits"
    """What :attr:`outcomes` holds."""
    sample: str | None = None
    """Id of the items that it was scored on instead of all (:class:`~raysearch.search.informative.Sample`); the score is then
    an estimate of that on all."""
    latency_ms: float | None = None
    """Measured on the evaluator's device, where that was asked for."""
    excluded: Exclusion | None = None
    """None: the candidate competes. A raced one has the score of the items that it saw, fewer than all."""
    seconds: float = 0.0
    """Time that the evaluator took. Never part of a decision."""

    @property
    def competes(self) -> bool:
        """Whether it may be parent, champion and part of the front."""
        return self.excluded is None

    @property
    def partial(self) -> bool:
        """Whether it was scored on a part of the items."""
        return self.excluded == "raced" or self.sample is not None

    def by_item(self, items: int) -> ByItem:
        """The outcome of each item of a split of so many; False or NaN for an item that was not seen."""
        return unpack(self.outcomes, self.kind, items=items)


def pack(by_item: ByItem) -> bytes:
    """Outcomes as :attr:`Result.outcomes` keeps them: ``numpy.packbits`` of bools, or little-endian float32."""
    return np.packbits(by_item).tobytes() if by_item.dtype == bool else by_item.astype("<f4").tobytes()


def unpack(outcomes: bytes, kind: Kind, *, items: int) -> ByItem:
    """Inverse of :func:`pack` for so many items."""
    if kind == "bits":
        return np.unpackbits(np.frombuffer(outcomes, np.uint8), count=items).astype(bool)
    return np.frombuffer(outcomes, "<f4", count=items).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Failure:
    """A candidate that could not be scored, with the reason in one line."""

    reason: str


_NAMES_OF_0_1_0 = {"images_seen": "items_seen", "correct": "outcomes"}


def outcome_to_dict(outcome: Result | Failure) -> dict[str, Any]:
    """An outcome as JSON values; fields that have their default are left out, bytes are base64."""
    if isinstance(outcome, Failure):
        return {"reason": outcome.reason}
    told = {field.name: value for field in fields(outcome) if (value := getattr(outcome, field.name)) != field.default}
    if "outcomes" in told:
        told["outcomes"] = base64.b64encode(told["outcomes"]).decode()
    return told


def outcome_from_dict(values: dict[str, Any]) -> Result | Failure:
    """Inverse of :func:`outcome_to_dict`, which reads what 0.1.0 wrote too.

    Raises KeyError, TypeError or ValueError for values that are no outcome.
    """
    if "reason" in values:
        return Failure(values["reason"])
    told: dict[str, Any] = {_NAMES_OF_0_1_0.get(name, name): value for name, value in values.items()}
    told["outcomes"] = base64.b64decode(told.get("outcomes", ""))
    return Result(**told)


Origin = Literal["random", "mutation", "crossover", "predicted", "seed"]
"""How a candidate was made; a seed is one that the search was started with."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """Where a candidate comes from."""

    arch: Architecture
    index: int
    """Place in the order asked, from 0."""
    generation: int
    origin: Origin
    parents: tuple[str, ...] = ()
    """Ids of the architectures it was made from."""


class SearchAlgorithm(Protocol):
    """Proposes architectures and learns from their results.

    Knows no Ray, device, clock or global random state: the sequence of candidates depends on the seed and on the results alone,
    not on the order in which the results of one batch are told.
    """

    problem: SearchProblem[Any]
    """The space that candidates come from, what they cost and the budget that they keep."""

    def ask(self) -> Architecture | None:
        """The next candidate; None while results are awaited or when :attr:`finished`. Never the same one twice."""
        ...

    def tell(self, arch: Architecture, outcome: Result | Failure) -> None:
        """The outcome of a candidate that was asked. Raises UserError for one that was not, or was told before."""
        ...

    def proposal(self, arch: Architecture) -> Proposal:
        """Where an asked candidate comes from. Raises KeyError for one that was never asked."""
        ...

    @property
    def threshold(self) -> Architecture | None:
        """The scored candidate that those asked now must at least equal to matter: racing compares them with it.

        It changes only when a generation (or a look-ahead) is planned. None: every candidate matters, as while there are fewer
        parents than wanted.
        """
        ...

    @property
    def finished(self) -> bool:
        """True when nothing is left to ask and every asked candidate has been told."""
        ...

    @property
    def total(self) -> int:
        """How many candidates the search will ask at most."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that continues the search, as JSON values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict` of an algorithm of the same settings."""
        ...
