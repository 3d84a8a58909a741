"""What retraining says of a search's ranking: ``validation.json``, as the report and the console read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from raysearch.search.protocol import Kind
from raysearch.statistics import Gap, Interval
from raysearch.store.json_values import from_values
from raysearch.store.scores import Scale

VALIDATION = "validation.json"
"""The file in a search's folder."""

Role = Literal["champion", "best random", "drawn"]
"""Why a subnet is among those retrained."""


@dataclass(frozen=True, slots=True)
class ValidationSettings:
    """What decides which subnets are trained and how; a validation is continued under the same alone."""

    subnets: int
    epochs: int
    seed: int
    weights: str
    """Digest of the supernet."""


@dataclass(frozen=True, slots=True)
class RetrainedSubnet:
    """One subnet with both of its scores on the same items."""

    id: str
    arch: dict[str, Any]
    """The architecture as JSON values."""
    role: Role
    params: int
    inherited: float
    """Score with inherited weights."""
    retrained: float
    """Score after a training of its own."""
    loss: float | None
    """Training loss of the last epoch."""
    seconds: float
    """Of training and scoring."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Kendall's tau-b with retrained scores over a group of subnets; None where it is undefined."""

    subnets: int
    """How many."""
    inherited: Interval | None
    """Of inherited scores."""
    params: Interval | None
    """Of parameter counts."""
    lead: Interval | None
    """Of the first over the second."""


@dataclass(frozen=True, slots=True)
class ChampionGap:
    """The champion's score minus that of the best random candidate of the search, on the same items."""

    inherited: Gap
    retrained: Gap


@dataclass(frozen=True, slots=True)
class Validation:
    """All of it."""

    settings: ValidationSettings
    recipe_epochs: int
    """Epochs of the supernet."""
    search_images: int
    """Items that all were scored on."""
    agreement: dict[str, Agreement]
    """By group: ``all`` subnets, and those ``drawn`` across the band, which no score chose. Groups of 3 or more alone."""
    gap: ChampionGap | None
    """None when one of the two failed or the search had no random candidate."""
    failed: dict[str, str]
    """Reasons by architecture id."""
    subnets: list[RetrainedSubnet]
    score_name: str = "accuracy"
    score_kind: Kind = "bits"

    @property
    def scale(self) -> Scale:
        """How its scores are written."""
        return Scale(self.score_name, self.score_kind)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`. Raises UserError that names what is missing or impossible."""
        return from_values(cls, values)
