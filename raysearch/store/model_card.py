"""The model card: what a person who was given a network must know. ``champion.json`` and ``model.json`` hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, Self

from raysearch.search.protocol import Kind
from raysearch.statistics import Interval
from raysearch.store.json_values import from_values
from raysearch.store.scores import Scale


@dataclass(frozen=True, slots=True)
class CardData:
    """What the network has learned from and was scored on."""

    recipe: str
    dataset: str
    train_images: int
    search_images: int
    test_images: int
    seed: int
    """Of the splits."""
    digest: str
    """Of the splits."""
    finalist_images: int = 0
    """That chose the champion among the best of the search; searches of 0.1.0 had none."""


@dataclass(frozen=True, slots=True)
class LatencyPlace:
    """Where and how latency was measured."""

    device: str
    batch_size: int
    precision: str


How = Literal["fine-tuned", "trained from scratch", "transferred"]
"""What was done with a network beside the search: from weights that it had, from fresh ones, or on other data."""


@dataclass(frozen=True, slots=True)
class CardTraining:
    """How a network came to its weights, where it does not have those that it inherits from the supernet."""

    how: How
    began: str
    """What it began with, in words."""
    epochs: int
    lr: float
    """Highest learning rate."""
    batch_size: int
    taught: str | None = None
    """By which network it was taught beside the labels, in words."""
    earlier_test: float | None = None
    """Test score of the weights that it began with, on the same items."""
    test_gain: Interval | None = None
    """Test score minus that, in pairs of items, with its 95 % interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """One network. What is None is not known, and stands neither in the JSON file nor in the Markdown beside it.

    All but family, settings, weights and architecture may be unknown: a subnet that was saved without a search has a card too.
    """

    family: str
    """Name of the network's family."""
    settings: dict[str, Any]
    """Constructor arguments of the supernet, as JSON values."""
    weights: str = ""
    """Name of the file with the weights, in the same folder; set when it is written."""
    id: str | None = None
    arch: dict[str, Any]
    """The architecture as JSON values."""
    score: float | None = None
    """On the search split."""
    test_score: float | None = None
    """On the test split."""
    params: int | None = None
    macs: int | None = None
    latency_ms: float | None = None
    """Measured."""
    score_images: int | None = None
    """Items that ``score`` is a mean over; with these and no score, the network was not scored."""
    test_images: int | None = None
    """The same of ``test_score``."""
    precision: str | None = None
    """That scores were computed in."""
    classes: list[str] | None = None
    """Names of the outputs, in their order; empty where outputs have no names."""
    preprocessing: dict[str, Any] | None = None
    """How an item becomes the network's input, as the task says."""
    data: CardData | None = None
    search_id: str | None = None
    command: str | None = None
    """That started the search, without passwords."""
    created: str | None = None
    """ISO time at which the search was begun."""
    versions: dict[str, str] | None = None
    """By package."""
    latency: LatencyPlace | None = None
    origin: str | None = None
    """Where in the search the network comes from; None for the champion."""
    training: CardTraining | None = None
    """None: it has the weights that it inherits from the supernet."""
    remark: str | None = None
    """What was tried with its weights and not kept, a sentence."""
    pretrained: dict[str, str] | None = None
    """Of a supernet that began with pretrained weights: where these are from and on which terms, by names as ``license``."""
    seen: str | None = None
    """Where the supernet may have learned from items that it was scored on: what a reader must know of it."""
    score_name: str = "accuracy"
    score_kind: Kind = "bits"
    programs_take: Literal["pixels"] | None = None
    """What programs beside the JSON file take: uint8 pixels of any size, or, None, prepared images."""

    @property
    def scale(self) -> Scale:
        """How its scores are written."""
        return Scale(self.score_name, self.score_kind)

    def to_dict(self) -> dict[str, Any]:
        """JSON values. What is not known is left out, but a score that could not be taken is null."""
        values = asdict(self)
        tried = {name for name, items in (("score", self.score_images), ("test_score", self.test_images)) if items is not None}
        for field in fields(self):
            if field.name not in tried and field.default is not MISSING and values[field.name] == field.default:
                del values[field.name]
        if self.data is not None and not self.data.finalist_images:
            del values["data"]["finalist_images"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`. Raises UserError that names what is missing or impossible."""
        return from_values(cls, values)
