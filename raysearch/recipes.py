"""Named, typed configurations: a recipe says what is searched, on which images, how, and at what expense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from raysearch.cost import Constraint
from raysearch.data.config import DIGITS, FASHION_MNIST, IMAGENET, IMAGES, DataConfig
from raysearch.data.transforms import AugmentConfig
from raysearch.distributed.evaluators import EvaluatorConfig
from raysearch.latency import LatencyConfig
from raysearch.search import (
    AgeingConfig,
    AlgorithmConfig,
    EvolutionConfig,
    NSGA2Config,
    PredictorConfig,
    RacingConfig,
    RandomConfig,
)
from raysearch.spaces.autoformer import AutoFormerGeometry, AutoFormerSpace
from raysearch.training.config import TrainingConfig


@dataclass(frozen=True, slots=True)
class SpaceConfig:
    """The choices of an AutoFormer space."""

    embed_dim: tuple[int, ...] = (192, 216, 240)
    """Widths of the tokens, one for the whole net."""
    num_heads: tuple[int, ...] = (3, 4)
    """Attention heads, chosen for each block."""
    mlp_ratio: tuple[float, ...] = (3.5, 4.0)
    """Feed-forward widths relative to embed_dim, chosen for each block."""
    depth: tuple[int, ...] = (12, 13, 14)
    """Numbers of blocks."""

    def build(self) -> AutoFormerSpace:
        """The declared space."""
        return AutoFormerSpace(embed_dim=self.embed_dim, num_heads=self.num_heads, mlp_ratio=self.mlp_ratio, depth=self.depth)


@dataclass(frozen=True, slots=True)
class SupernetConfig:
    """The tensors that all subnets share; each at least as large as the largest choice."""

    patch_size: int = 16
    """Side of a square patch, in pixels."""
    embed_dim: int = 256
    depth: int = 14
    num_heads: int = 4
    mlp_ratio: float = 4.0
    head_dim: int = 64
    """Width of a head, the same in every subnet."""
    global_pool: Literal["avg", "token"] = "avg"
    """What the head sees: the mean of the patch tokens, or the class token."""
    relative_position: bool = True
    """2-D relative position on keys and values."""
    abs_pos: bool = True
    """Learned absolute position embedding."""
    max_relative_position: int = 14
    """Distance in patches beyond which relative positions are the same."""

    def geometry(self, dataset: DataConfig, *, num_classes: int) -> AutoFormerGeometry:
        """With image size and channels of a data set, and its number of classes. Raises ValueError when they do not fit."""
        return AutoFormerGeometry(img_size=dataset.img_size, in_chans=dataset.in_chans, num_classes=num_classes, **asdict(self))


@dataclass(frozen=True, slots=True)
class ReportConfig:
    """What the champion is compared with."""

    random_subnets: int = 25
    """Random subnets of the same band; their median stands beside the champion."""
    register: bool = True
    """Register champion and front (ten at most) as models in MLflow; a second or more for each at the end of the search."""

    def __post_init__(self) -> None:
        """Raises ValueError for a negative number."""
        if self.random_subnets < 0:
            raise ValueError(f"report.random-subnets is {self.random_subnets}, must be at least 0")


@dataclass(frozen=True, slots=True)
class FinalistsConfig:
    """The best of the search, from whom the champion is chosen."""

    count: int = 10
    """How many of the best candidates are scored on all images of the search split."""
    search_images: int | None = None
    """On how many images of the search split the search scores its candidates; on all when not given."""

    def __post_init__(self) -> None:
        """Raises ValueError for numbers below one."""
        if self.count < 1:
            raise ValueError(f"finalists.count is {self.count}, must be at least 1")
        if self.search_images is not None and self.search_images < 1:
            raise ValueError(f"finalists.search-images is {self.search_images}, must be at least 1")


@dataclass(frozen=True, slots=True)
class Recipe:
    """One search, whole."""

    name: str
    """Of the recipe, and of the experiment in MLflow."""
    dataset: DataConfig
    """Images and splits."""
    augment: AugmentConfig
    """Variation of the training images."""
    space: SpaceConfig
    """What may be chosen."""
    net: SupernetConfig
    """The supernet."""
    train: TrainingConfig
    """Training of the supernet."""
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
    finalists: FinalistsConfig = field(default_factory=FinalistsConfig)
    """Who is scored again before the champion is named."""
    report: ReportConfig = field(default_factory=ReportConfig)
    """The closing comparison."""
    seed: int = 0
    """Decides splits, weights, training and every candidate."""

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
        """JSON values."""
        values = asdict(self)
        values["dataset"]["root"] = None if self.dataset.root is None else str(Path(self.dataset.root).resolve())
        return values


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


DIGITS_RECIPE = Recipe(
    name="digits",
    dataset=DIGITS,
    augment=AugmentConfig(shift=1),
    space=SpaceConfig(embed_dim=(32, 64, 96), num_heads=(1, 2, 3, 4), mlp_ratio=(1.0, 2.0, 3.0), depth=(2, 3, 4, 5)),
    net=SupernetConfig(patch_size=4, embed_dim=96, depth=5, num_heads=4, mlp_ratio=3.0, head_dim=32, max_relative_position=1),
    train=TrainingConfig(
        epochs=300,
        batch_size=200,
        lr=3e-3,
        warmup_lr=1e-4,
        warmup_epochs=30,
        drop_path=0.0,
        weight_init="xavier",
        pos_embed_std=0.2,
    ),
    search=EvolutionConfig(generations=10),
    ageing=AgeingConfig(candidates=500),
    nsga2=NSGA2Config(generations=10),
    predictor=PredictorConfig(generations=20),
    constraint=Constraint(min_params=50e3, max_params=200e3),
)
"""``experiments/search.py digits``: 1,797 handwritten digits that scikit-learn brings. 2 CPU cores, a few minutes, 97 %."""

FASHION_MNIST_RECIPE = Recipe(
    name="fashion-mnist",
    dataset=FASHION_MNIST,
    augment=AugmentConfig(shift=2, hflip=0.5),
    space=SpaceConfig(embed_dim=(96, 128, 160), num_heads=(2, 3, 4), mlp_ratio=(2.0, 3.0, 4.0), depth=(4, 5, 6)),
    net=SupernetConfig(patch_size=4, embed_dim=160, depth=6, num_heads=4, mlp_ratio=4.0, head_dim=32, max_relative_position=7),
    train=TrainingConfig(
        epochs=100,
        batch_size=256,
        lr=1e-3,
        warmup_lr=1e-5,
        warmup_epochs=5,
        drop_path=0.05,
        weight_init="xavier",
        pos_embed_std=0.2,
    ),
    constraint=Constraint(min_params=0.6e6, max_params=0.9e6),
)
"""``experiments/search.py fashion-mnist``: 60,000 pictures of clothes. Made for one GPU; hours on a CPU. Not run to its end."""


def _imagenet(name: str, space: AutoFormerSpace, net: AutoFormerGeometry, band: tuple[float, float]) -> Recipe:
    """A published search: its space, its supernet, its parameter band and its training schedule."""
    options = {c.name: c.options for c in space.choices}
    return Recipe(
        name=name,
        dataset=IMAGENET,
        augment=AugmentConfig.published(),
        space=SpaceConfig(depth=space.depth, **options),  # pyright: ignore[reportArgumentType]  # options are typed per choice
        net=SupernetConfig(embed_dim=net.embed_dim, depth=net.depth, num_heads=net.num_heads),
        train=TrainingConfig(mixup=0.8, cutmix=1.0, loader_workers=8),
        algorithm="evolution",  # these recipes repeat what is published
        constraint=Constraint(min_params=band[0], max_params=band[1]),
        evaluators=EvaluatorConfig(batch_size=500),
        racing=RacingConfig(block=500),  # a look after each batch of the evaluators
    )


IMAGENET_TINY = _imagenet("imagenet-tiny", AutoFormerSpace.tiny(), AutoFormerGeometry.tiny(), (5e6, 6e6))
"""``experiments/search.py imagenet-tiny --data DIR``: AutoFormer-T, 8 GPUs, published 74.7 % top-1. Not run here."""
IMAGENET_SMALL = _imagenet("imagenet-small", AutoFormerSpace.small(), AutoFormerGeometry.small(), (22e6, 23e6))
"""``experiments/search.py imagenet-small --data DIR``: AutoFormer-S, 8 GPUs, published 81.7 % top-1. Not run here."""
IMAGENET_BASE = _imagenet("imagenet-base", AutoFormerSpace.base(), AutoFormerGeometry.base(), (52e6, 54e6))
"""``experiments/search.py imagenet-base --data DIR``: AutoFormer-B, 8 GPUs, published 82.4 % top-1. Not run here."""

IMAGES_RECIPE = Recipe(
    name="images",
    dataset=IMAGES,
    augment=AugmentConfig.published(),
    space=IMAGENET_TINY.space,
    net=IMAGENET_TINY.net,
    train=TrainingConfig(epochs=300, batch_size=256, lr=5e-4, mixup=0.8, cutmix=1.0, loader_workers=4),
    constraint=Constraint(min_params=5e6, max_params=6e6),
)
"""``experiments/search.py images --data DIR``: a folder of your own, one sub-folder per class. Made for GPUs."""

RECIPES: dict[str, tuple[str, Recipe]] = {
    "digits": ("scikit-learn's 1,797 handwritten digits: minutes on 2 CPU cores", DIGITS_RECIPE),
    "fashion-mnist": ("60,000 pictures of clothes, 28 px: torchvision's files or Debian's package", FASHION_MNIST_RECIPE),
    "images": ("a folder of your own (--data DIR), one sub-folder per class", IMAGES_RECIPE),
    "imagenet-tiny": ("AutoFormer-T as published, 5-6 M parameters (--data DIR)", IMAGENET_TINY),
    "imagenet-small": ("AutoFormer-S as published, 22-23 M parameters (--data DIR)", IMAGENET_SMALL),
    "imagenet-base": ("AutoFormer-B as published, 52-54 M parameters (--data DIR)", IMAGENET_BASE),
}
"""Recipes by the name that the command line takes, each with one line of help."""
