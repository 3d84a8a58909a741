"""What a search says of itself: the numbers of its end, or of its progress, as report, MLflow, export and console read them.

``summary.json`` holds them under the names of these fields; a part that does not apply is null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self, cast

from raysearch.search.protocol import Kind
from raysearch.space.cost import Quantity
from raysearch.statistics import Interval
from raysearch.store.json_values import from_values
from raysearch.store.scores import Scale


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What one finished epoch of training reports."""

    epoch: int
    """0-based."""
    loss: float
    """Mean over all items of all processes."""
    lr: float
    """Learning rate of the last step."""
    seconds: float
    skipped: int = 0
    """Steps left out because loss or gradient was not finite."""


@dataclass(frozen=True, slots=True)
class Network:
    """One subnet beside others."""

    id: str
    arch: dict[str, Any]
    """The architecture as JSON values."""
    score: float | None
    """On all items of the search split; None when it could not be scored."""
    test_score: float | None
    """On the test split."""
    params: int
    macs: int
    latency_ms: float | None = None
    """Measured, where the search measures."""
    score_interval: Interval | None = None
    """95 % interval of the score, from the number of items alone. It does not hold that the champion was selected by it."""
    test_interval: Interval | None = None
    """The same of the test score."""


@dataclass(frozen=True, slots=True)
class RandomNetworks:
    """Random subnets that cost as much as the champion: the medians, and each of them. Those of 0.1.0: of the whole budget."""

    score: float
    test_score: float
    params: float
    macs: float
    subnets: int
    """How many."""
    scores: list[float] = field(default_factory=list[float])
    test_scores: list[float] = field(default_factory=list[float])
    ids: list[str] = field(default_factory=list[str])
    archs: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    latency_ms: float | None = None
    """Median of those that were measured."""
    within: float | None = None
    """By which share of the champion's cost theirs differ at most, as 0.05; None for those of the whole budget."""
    score_interval: Interval | None = None
    """The median with its interval over subnets (:func:`~raysearch.statistics.over_seeds`)."""
    test_interval: Interval | None = None
    """The same of the test scores."""


@dataclass(frozen=True, slots=True)
class Networks:
    """What the closing report compares."""

    champion: Network
    largest: Network
    smallest: Network
    random: RandomNetworks | None = None
    """None when none was asked for or could be scored."""
    quantity: Quantity = "params"
    """What counts as cost: the budget's own."""
    over_largest: Interval | None = None
    """Test score of the champion minus that of the largest, in pairs of items, with its 95 % interval."""
    over_random: Interval | None = None
    """Test score of the champion minus the mean one of the random subnets, in the same way."""


Weights = Literal["inherited", "fine-tuned"]
"""Which weights a network has: those that it inherits from the supernet, or what came of them in a training of its own."""


@dataclass(frozen=True, slots=True)
class TunedNetwork:
    """One network with the weights that it inherits, and after it was trained further from there."""

    id: str
    arch: dict[str, Any]
    """The architecture as JSON values."""
    params: int
    macs: int
    score: float | None = None
    """On the search split, after; None, as all numbers here, when it could not be trained or scored."""
    score_interval: Interval | None = None
    """95 % interval of that score, from the number of items alone."""
    gain: Interval | None = None
    """On the search and finalist items: the score after minus that before, in pairs of items, with its 95 % interval."""
    inherited_test: float | None = None
    """Test score before."""
    test: float | None = None
    """Test score after."""
    test_interval: Interval | None = None
    """The interval of that."""
    test_gain: Interval | None = None
    """The difference of these in pairs of items."""
    history: list[EpochRecord] = field(default_factory=list[EpochRecord])
    failed: str | None = None
    """Why it could not be trained further."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`. Raises UserError that names what is missing or impossible."""
        return from_values(cls, values)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What further training made of the champion and, beside it, of one random subnet of equal cost."""

    epochs: int
    lr: float
    """Highest learning rate."""
    items: int
    """Search and finalist items, on which it was decided which weights of the champion are deployed."""
    deployed: Weights
    """Those in ``champion.safetensors``: the fine-tuned ones where they score higher on those items."""
    champion: TunedNetwork
    random: TunedNetwork | None = None
    """None where the search compared none."""
    distill: float = 0.0
    """Weight of the outputs of the supernet's largest subnet beside the labels; 0: it taught nothing."""
    over_random: Interval | None = None
    """Test score of the champion minus that of the random subnet, both fine-tuned, in pairs of items."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A network beside the champion that no search chose, trained on the same images."""

    name: str
    """In timm; of the whole network that a pretrained supernet began with, what it is."""
    began: Literal["whole", "pretrained", "fresh"]
    """The weights that its training began with: those of the network that the supernet began as, timm's, or drawn anew."""
    epochs: int
    params: int
    macs: int
    lr: float | None = None
    """Highest learning rate."""
    distill: float = 0.0
    """Weight of the outputs of the supernet's largest subnet beside the labels."""
    score: float | None = None
    """On the search split; None, as the others, when it could not be trained or scored."""
    score_interval: Interval | None = None
    test: float | None = None
    """Test score."""
    test_interval: Interval | None = None
    latency_ms: float | None = None
    """Measured, where the search measures."""
    lead: Interval | None = None
    """Test score of the champion, as deployed, minus this one's, in pairs of items."""
    history: list[EpochRecord] = field(default_factory=list[EpochRecord])
    failed: str | None = None
    """Why it could not be trained."""

    @property
    def title(self) -> str:
        """What a table calls it."""
        return f"{self.name}, {'from scratch' if self.began == 'fresh' else 'fine-tuned'}"


@dataclass(frozen=True, slots=True)
class Finalist:
    """One of the best of the search, judged again on items that chose nobody."""

    id: str
    rank_in_search: int
    score_in_search: float
    score: float
    """On the fresh items; that of the search where there are none."""
    behind_champion: float
    """The champion's score minus this one's, on the same items."""
    p_value: float
    """How often chance alone gives the best of the search such a lead over an equal network (one-sided paired test on the fresh
    items), no less than for a cheaper one: at most 0.05 for those who are beaten and for no others. 1 for the best itself and
    where there are no fresh items. In 0.1.0: of the champion, two-sided, of each comparison alone."""
    params: int
    macs: int
    interval: Interval | None = None
    """95 % interval of the score on the fresh items."""
    beaten: bool = False
    """Whether the best of the search beats it beyond chance: all such claims together are right with 95 %."""
    latency_ms: float | None = None
    """Measured, where the search measures."""


@dataclass(frozen=True, slots=True)
class Finalists:
    """How the champion was chosen."""

    images: int
    """Items that finalists were judged on and nobody was chosen by; 0 where none are kept. In 0.1.0: those of the search and
    others."""
    images_in_search: int
    """Items that the search scored on."""
    selection_bias: float | None
    """Mean of the finalists' scores in the search minus that on the fresh items; None without these."""
    beaten: int
    """How many others the best of the search beats beyond chance."""
    others: int
    rows: list[Finalist]
    """In the order of the search."""
    best: str | None = None
    """Id of the best of the search among those that were judged: the yardstick. None in 0.1.0, where it was the champion."""
    choose: Literal["cheapest", "best"] = "best"
    """Who became the champion: the cheapest that the yardstick does not beat, or the highest score on the fresh items."""
    quantity: Quantity = "params"
    """What cheap means."""
    bias_interval: Interval | None = None
    """The selection bias with its 95 % interval."""


@dataclass(frozen=True, slots=True)
class RacingSavings:
    """How racing was set and what it saved."""

    error: float
    block: int
    candidates: int
    raced: int
    images_seen: int
    images_of_full_scoring: int


@dataclass(frozen=True, slots=True)
class InformativeUse:
    """How many candidates were scored on the images that tell candidates apart, and on how many of all."""

    candidates: int
    sampled: int
    """Of them, those whose scores are estimates from some of the images."""
    images: int
    """That each of these saw, the median."""
    of: int
    """Images that the others saw."""
    samples: int
    """How often images were drawn: once, and again whenever candidates had moved."""


@dataclass(frozen=True, slots=True)
class LatencyRecord:
    """Where latency was measured, how well the table predicts it, and the champion's."""

    device: str
    batch_size: int
    precision: str
    fitted: int
    held_out: int
    median_error: float | None
    largest_error: float | None
    champion_ms: float | None
    champion_predicted_ms: float
    slow: int
    """Candidates that were too slow when measured."""


@dataclass(frozen=True, slots=True)
class Tau:
    """A rank correlation with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ProxyAgreement:
    """How well a zero-cost proxy, and parameter count, rank random subnets."""

    name: str
    subnets: int
    proxy: Tau | None
    params: Tau | None


@dataclass(frozen=True, slots=True)
class Usage:
    """Where the evaluators' time went, while the candidates of one split were scored."""

    evaluators: int
    """How many took part."""
    seconds: float
    """From the first score's begin to the last one's end."""
    busy: float
    """Share of the evaluators' time in which they scored, 0 to 1."""
    waiting_at_barrier: float | None = None
    """Share in which an evaluator was free and no candidate was queued: the algorithm waited for results."""


@dataclass(frozen=True, slots=True)
class Training:
    """How the supernet was trained; no epochs for a given one."""

    epochs: int
    history: list[EpochRecord]


@dataclass(frozen=True, slots=True)
class Counts:
    """Candidates by what became of them, and items by split."""

    candidates: int
    train_images: int
    search_images: int
    finalist_images: int = 0
    """That choose the champion and scored nobody in the search; searches of 0.1.0 had none."""
    scored: int | None = None
    raced: int = 0
    slow: int = 0
    failed: int = 0
    generations: int | None = None
    test_images: int | None = None
    """None until they were read."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a search in progress is."""

    generation: int
    """Counted from 1."""
    generations: int
    candidates: int
    total: int


@dataclass(frozen=True, slots=True)
class Summary:
    """All of it. That of a search in progress has ``progress`` and no ``networks``."""

    recipe: str
    seed: int
    command: str
    constraint: str
    """The budget as people write it."""
    search_id: str
    mlflow_run_id: str
    counts: Counts
    seconds: dict[str, float]
    """By phase, over all runs."""
    training: Training
    versions: dict[str, str]
    score_name: str = "accuracy"
    """What the score is called."""
    score_kind: Kind = "bits"
    """Of the outcomes whose mean the score is: a share of right answers, or the mean of numbers."""
    data_notes: list[str] = field(default_factory=list[str])
    """What was left out of the data and why, which items are copies of others; a sentence each."""
    seen: str | None = None
    """Where the supernet may have learned from items that it is scored on: what a reader must know of it."""
    finished: str | None = None
    """ISO time."""
    written: str | None = None
    """ISO time of a report in progress."""
    progress: Progress | None = None
    mlflow_uri: str | None = None
    """Without a password."""
    mlflow_experiment_id: str | None = None
    networks: Networks | None = None
    finalists: Finalists | None = None
    tuning: Tuning | None = None
    """None where the champion keeps the weights that it inherits, as in searches of 0.1.0."""
    baselines: list[Baseline] = field(default_factory=list[Baseline])
    """What stands beside the champion besides subnets of its space: the whole of a pretrained network, networks of timm's."""
    racing: RacingSavings | None = None
    informative: InformativeUse | None = None
    proxy: ProxyAgreement | None = None
    utilisation: Usage | None = None
    """Of the last run; None when a resumed search had nothing left to score."""
    latency: LatencyRecord | None = None
    unregistered: tuple[str, ...] = ()
    """Ids of networks whose export for MLflow's registry failed."""

    @property
    def scale(self) -> Scale:
        """How its scores are written."""
        return Scale(self.score_name, self.score_kind)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`; reads those of 0.1.0 too. Raises UserError that names what is missing or impossible."""
        upgraded = dict(values)
        if isinstance(finalists := upgraded.get("finalists"), dict) and "curse" in finalists:
            earlier = cast(dict[str, Any], finalists)
            upgraded["finalists"] = {**earlier, "selection_bias": earlier["curse"]}
        return from_values(cls, upgraded)
