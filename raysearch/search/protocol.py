"""What a search algorithm is told and asked: the contract between algorithms and whatever runs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Bool

from raysearch.space import Architecture
from raysearch.space.problem import SearchProblem

Direction = Literal["max", "min"]
"""Whether a higher or a lower score is better."""

Exclusion = Literal["raced", "slow"]
"""Why a scored candidate can be neither parent nor champion: racing stopped it, or its measured latency breaks the limit."""


@dataclass(frozen=True, slots=True)
class Result:
    """One candidate scored with inherited weights."""

    score: float
    """The task's score, as top-1 accuracy in 0..1. Always finite."""
    images_seen: int
    """How many images were scored."""
    params: int
    macs: int
    loss: float | None = None
    """Mean loss over the same images: tells candidates of equal score apart."""
    correct: bytes = b""
    """Per-image correctness: ``numpy.packbits`` over the images in the order of the split; False for an image not seen."""
    latency_ms: float | None = None
    """Measured on the evaluator's device, where that was asked for."""
    excluded: Exclusion | None = None
    """None: the candidate competes. A raced one has the score of the images that it saw, fewer than all."""
    seconds: float = 0.0
    """Time that the evaluator took. Never part of a decision."""

    @property
    def competes(self) -> bool:
        """Whether it may be parent, champion and part of the front."""
        return self.excluded is None

    def correct_images(self, images: int) -> Bool[np.ndarray, " images"]:
        """Per-image correctness over a split of so many images."""
        return unpacked(self.correct, images)


def unpacked(correct: bytes, images: int) -> Bool[np.ndarray, " images"]:
    """Per-image correctness as :attr:`Result.correct` packs it."""
    return np.unpackbits(np.frombuffer(correct, np.uint8), count=images).astype(bool)


@dataclass(frozen=True, slots=True)
class Failure:
    """A candidate that could not be scored, with the reason in one line."""

    reason: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """Where a candidate comes from."""

    arch: Architecture
    index: int
    """Place in the order asked, from 0."""
    generation: int
    origin: Literal["random", "mutation", "crossover", "predicted", "seed"]
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
        """The outcome of a candidate that was asked. Raises ValueError for one that was not, or was told before."""
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
