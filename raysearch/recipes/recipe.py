"""One search as one typed value: what is searched, on which data, how, and at what expense."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, cast

import tyro

from raysearch.bounds import Count, CountOrNone, Positive, Seed, Share, check_numbers
from raysearch.distributed.evaluators import EvaluatorConfig
from raysearch.errors import SettingError, UserError
from raysearch.scoring.latency import LatencyConfig
from raysearch.search import (
    AgeingConfig,
    AlgorithmConfig,
    EvolutionConfig,
    InformativeConfig,
    NSGA2Config,
    PredictorConfig,
    RacingConfig,
    RandomConfig,
)
from raysearch.space import Constraint
from raysearch.spaces import Family
from raysearch.tasks.task import Task
from raysearch.training.config import TrainingConfig
from raysearch.training.teacher import TeacherConfig

T = TypeVar("T", bound=Task)
C = TypeVar("C")


BESIDE = frozenset(("images", "supernet", "supernet_is", "warm_start", "family_source", "from_timm"))
"""What stands beside a recipe's settings in ``config.json``, so that a search cannot be resumed with other images, weights or
code."""


LONGEST_NAME = 200
"""Bytes of a search's name: with date and time it is the name of a folder."""


@dataclass(frozen=True, slots=True)
class ReportConfig:
    """What the champion is compared with."""

    random_subnets: CountOrNone = 25
    """Random subnets of the same band; their median stands beside the champion."""
    baseline_epochs: Count | None = None
    """Epochs in which each network of --baselines is trained. Default: as many as the champion is trained further, with weights
    of timm's; as many as the supernet, from scratch."""
    register: bool = True
    """Register champion and front (five of it at most) as models in MLflow; seconds for each at the end of the search."""

    def __post_init__(self) -> None:
        """Raises UserError for a negative number."""
        check_numbers(self)


@dataclass(frozen=True, slots=True)
class FinalistsConfig:
    """The best of the search, from whom the champion is chosen (docs/champion.md)."""

    count: Count = 10
    """How many are judged again, on images that chose nobody; up to half of them are cheaper ones that equal the best."""
    choose: Literal["cheapest", "best"] = "cheapest"
    """Who becomes the champion: the cheapest that the best of the search does not beat beyond chance on these images, or who
    has the highest score on them."""
    search_images: Count | None = None
    """On how many images of the search split the search scores its candidates; on all when not given. The others then judge the
    finalists too."""

    def __post_init__(self) -> None:
        """Raises UserError for numbers below one."""
        check_numbers(self)


@dataclass(frozen=True, slots=True)
class ChampionConfig:
    """What becomes of the champion after it was chosen (docs/champion.md)."""

    epochs: CountOrNone = 0
    """Epochs in which the champion, and beside it a random subnet of equal cost, is trained further, to be deployed where that
    scores higher on search and finalist images; 0: it keeps the weights that it inherits."""
    lr: Positive = 0.1
    """Highest learning rate of that training, as a share of train.lr."""
    distill: Share = 0.5
    """Weight of the outputs of the supernet's largest subnet, beside the labels, in what is learned; 0: labels alone."""

    def __post_init__(self) -> None:
        """Raises UserError for a number that cannot be."""
        check_numbers(self)


@dataclass(frozen=True)
class Recipe(Generic[T, C]):
    """One search, whole.

    ``task`` and ``config`` have no name of their own on the command line, in ``config.json`` and in MLflow: their fields stand
    beside the others, as ``--dataset.img-size`` and ``--space.depth``.
    """

    name: str
    """Of the recipe, and of the experiment in MLflow."""
    task: Annotated[T, tyro.conf.arg(name="")]
    """Data, loss and judgement."""
    family: Annotated[Family[C, Any], tyro.conf.Suppress]
    """What kind of networks."""
    config: Annotated[C, tyro.conf.arg(name="")]
    """The family's own settings: space and supernet."""
    train: TrainingConfig
    """Training of the supernet."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """Another network that teaches it, where one is named."""
    search: EvolutionConfig = field(default_factory=EvolutionConfig)
    """Evolution as published, when it is the algorithm."""
    ageing: AgeingConfig = field(default_factory=AgeingConfig)
    """Regularised evolution without generations, when it is the algorithm."""
    nsga2: NSGA2Config = field(default_factory=NSGA2Config)
    """Search for a whole front, when it is the algorithm."""
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    """Evolution inside a regressor of the scores, when it is the algorithm."""
    algorithm: Literal["evolution", "ageing", "nsga2", "predictor", "random"] = "predictor"
    """How candidates are proposed (docs/algorithms.md); random draws as many candidates as evolution would."""
    constraint: Constraint = field(default_factory=Constraint)
    """The budget."""
    evaluators: EvaluatorConfig = field(default_factory=EvaluatorConfig)
    """The processes that score candidates."""
    latency: LatencyConfig = field(default_factory=LatencyConfig)
    """How milliseconds are measured, where they are."""
    racing: RacingConfig = field(default_factory=RacingConfig)
    """Whether candidates that cannot become parents are stopped early."""
    informative: InformativeConfig = field(default_factory=InformativeConfig)
    """Whether candidates are scored on the images that tell them apart."""
    finalists: FinalistsConfig = field(default_factory=FinalistsConfig)
    """Who is scored again before the champion is named."""
    champion: ChampionConfig = field(default_factory=ChampionConfig)
    """Whether the champion is trained further."""
    report: ReportConfig = field(default_factory=ReportConfig)
    """The closing comparison."""
    baselines: tuple[str, ...] = ()
    """Networks of timm's that stand beside the champion, as vit_tiny_patch16_224: fine-tuned as it is, on the same images,
    where timm has weights for them, else trained from scratch; judged on the test split (docs/champion.md)."""
    fits: Annotated[bool, tyro.conf.Suppress] = False
    """Whether settings that are not given follow from data, budget and machine (:mod:`raysearch.recipes.fitted`)."""
    seed: Seed = 0
    """Decides weights, training and every candidate; the division of the data has a seed of its own, --dataset.split-seed."""

    def __post_init__(self) -> None:
        """Raises SettingError for a number that cannot be, of the family's settings too, whoever wrote that.

        Also for a name that cannot be that of a folder, an experiment and a registered model.
        """
        check_numbers(self)
        allowed = self.name.isprintable() and not set(self.name) & set("/:\\") and self.name.strip(". ")
        if not allowed or len(self.name.encode("utf-8", "replace")) > LONGEST_NAME:
            raise SettingError(
                "name",
                f"is {self.name[:60]!r}, must have up to {LONGEST_NAME} characters without / : or line breaks: it is the name "
                "of a folder and of registered models",
            )

    def of_family(self, family: Family[Any, Any], *, taken: Iterable[str] = ()) -> Recipe[T, Any]:
        """The same search in the space of another family, in its own configuration; the budget was this family's and goes.

        Raises UserError where a setting of the family has the name of one that every search has, or one of ``taken``.
        """
        if family is self.family:
            return self
        known = {f.name for part in (self, self.task) for f in fields(cast(Any, part))} | BESIDE | {*taken}
        if both := [f.name for f in fields(family.config) if f.name in known]:
            raise UserError(
                f"family {family.name}: {family.config.__name__}.{both[0]} has the name of a setting that every search has; "
                "choose another"
            )
        return replace(
            cast("Recipe[T, Any]", self), family=family, config=family.configured(self.name), constraint=Constraint()
        )

    @property
    def measures_latency(self) -> bool:
        """Whether the search fits a latency table and measures its candidates."""
        front = self.algorithm == "nsga2" and "latency" in self.nsga2.objectives
        return self.latency.measure or self.constraint.max_latency_ms is not None or front

    @property
    def algorithm_config(self) -> AlgorithmConfig:
        """The settings of the chosen algorithm."""
        match self.algorithm:
            case "evolution":
                return self.search
            case "ageing":
                return self.ageing
            case "nsga2":
                return self.nsga2
            case "predictor":
                return self.predictor
            case "random":
                return RandomConfig(self.search.population * self.search.generations, self.search.population)

    def to_dict(self) -> dict[str, Any]:
        """JSON values. Paths are absolute: a stored recipe means the same from any folder."""
        values: dict[str, Any] = {"name": self.name, "family": self.family.name, "task": self.task.name}
        for part in (self.task, self.config):
            values |= asdict(cast(Any, part))
        own = [f.name for f in fields(self) if f.name not in ("name", "task", "family", "config")]
        for name in own:
            value = getattr(self, name)
            values[name] = asdict(value) if hasattr(value, "__dataclass_fields__") else value
        return cast(dict[str, Any], _absolute(values))


def _absolute(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _absolute(part) for name, part in cast(dict[str, Any], value).items()}
    return str(value.resolve()) if isinstance(value, Path) else value


def flat_settings(values: Mapping[str, Any], place: str = "") -> dict[str, object]:
    """Nested settings as ``train.epochs``: names that tables show well."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        flat |= flat_settings(value, f"{place}{name}.") if isinstance(value, Mapping) else {place + name: value}
    return flat


SETTINGS_OF = {
    "search": ("evolution", "random"),
    "ageing": ("ageing",),
    "nsga2": ("nsga2",),
    "predictor": ("predictor",),
}
"""Groups of settings of a :class:`Recipe`, and the algorithms that read them."""
