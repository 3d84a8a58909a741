"""What retraining says of a search's ranking: ``validation.json``, as the report and the console read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from raysearch.search.protocol import Kind
from raysearch.statistics import Agreement, Gap, Interval, Noise
from raysearch.store.json_values import from_values
from raysearch.store.scores import Scale

VALIDATION = "validation.json"
"""The file in a search's folder."""

Role = Literal["champion", "best random", "drawn"]
"""Why a subnet is among those retrained; the second of version 0.1.0 alone."""


@dataclass(frozen=True, slots=True)
class ValidationSettings:
    """What decides which subnets are trained and how; a validation is continued under the same alone."""

    subnets: int
    epochs: int
    seed: int
    weights: str
    """Digest of the supernet."""
    within: float | None = None
    """How far costs may be from the champion's, as a share of it; None: version 0.1.0 took the search's whole budget."""


@dataclass(frozen=True, slots=True)
class RetrainedSubnet:
    """One subnet with all of its scores, on the same items."""

    id: str
    arch: dict[str, Any]
    """The architecture as JSON values."""
    role: Role
    params: int
    inherited: float
    """Score with inherited weights."""
    retrained: float
    """Score after a training of its own; the mean where it was trained more than once."""
    loss: float | None
    """Training loss of the last epoch of the first training."""
    seconds: float
    """Of all its trainings and their scoring."""
    macs: int | None = None
    retrainings: tuple[float, ...] = ()
    """Score after each training from scratch."""
    finetuned: float | None = None
    """Score after one epoch of training that begins with the inherited weights; None where it failed."""
    proxies: dict[str, float] = field(default_factory=dict[str, float])
    """Zero-cost proxies of its fresh weights, by name."""

    @property
    def scores(self) -> tuple[float, ...]:
        """After each training from scratch."""
        return self.retrainings or (self.retrained,)


@dataclass(frozen=True, slots=True)
class OldAgreement:
    """Kendall's tau-b with retrained scores over a group of subnets, of version 0.1.0; None where it is undefined."""

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
    """The champion's score minus that of the best random candidate of the search, on the same items, of version 0.1.0."""

    inherited: Gap
    retrained: Gap


@dataclass(frozen=True, slots=True)
class Regret:
    """How much better the best of the subnets is than the champion, all retrained."""

    best: str
    """Id of the one with the highest score; the champion's where it is that."""
    measured: float
    """The best score minus the champion's, 0 where it is the best; too large on average, as the best one was also lucky."""
    true: Interval | None
    """Without that luck (:func:`~raysearch.statistics.regret`); None where noise is not known."""


@dataclass(frozen=True, slots=True)
class Validation:
    """All of it."""

    settings: ValidationSettings
    recipe_epochs: int
    """Epochs of the supernet."""
    search_images: int
    """Items that all were scored on."""
    failed: dict[str, str]
    """Reasons by architecture id."""
    subnets: list[RetrainedSubnet]
    agreement: dict[str, OldAgreement] = field(default_factory=dict[str, OldAgreement])
    """Of version 0.1.0, by group: ``all`` subnets, and those ``drawn`` across the budget, which no score chose."""
    gap: ChampionGap | None = None
    """Of version 0.1.0."""
    score_name: str = "accuracy"
    score_kind: Kind = "bits"
    band: str = ""
    """The budget around the champion from which subnets were drawn, in words."""
    rankings: dict[str, Agreement] = field(default_factory=dict[str, Agreement])
    """With the retrained scores of the drawn subnets, by what ranks them: inherited, fine-tuned, params, macs and the proxies.
    Partial taus are given params. Empty where fewer than 3 could be trained."""
    noise: Noise | None = None
    """Of the trainings from scratch of the drawn subnets; None where none was trained twice."""
    regret: Regret | None = None
    """None where the champion could not be trained."""
    over_drawn: Interval | None = None
    """The champion's score minus the mean of the drawn subnets', retrained: with the interval of these items."""

    @property
    def scale(self) -> Scale:
        """How its scores are written."""
        return Scale(self.score_name, self.score_kind)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`; reads version 0.1.0 too. Raises UserError that names what is missing or impossible."""
        return from_values(cls, values)
