"""Searches of AutoFormer's space: the demo, the published ones, one for images of your own."""

from __future__ import annotations

from dataclasses import replace

from raysearch.distributed.evaluators import EvaluatorConfig
from raysearch.nodes import NodesConfig
from raysearch.recipes.recipe import ChampionConfig, FinalistsConfig, Recipe, ReportConfig
from raysearch.search import AgeingConfig, EvolutionConfig, NSGA2Config, PredictorConfig, RacingConfig
from raysearch.space import Constraint
from raysearch.spaces.autoformer import FAMILY, AutoFormerConfig, SpaceConfig, SupernetSizes
from raysearch.tasks.images.classification import ImageClassification
from raysearch.tasks.images.config import DIGITS, FASHION_MNIST, IMAGENET, IMAGES
from raysearch.tasks.images.transforms import AugmentConfig
from raysearch.training.config import TrainingConfig

NONE = NodesConfig(most=0)
"""Of a search of minutes: whatever is there will do."""

Search = Recipe[ImageClassification, AutoFormerConfig]
"""An image classifier's search."""

DIGITS_RECIPE: Search = Recipe(
    name="digits",
    task=ImageClassification(DIGITS, AugmentConfig(shift=1)),
    family=FAMILY,
    config=AutoFormerConfig(
        SpaceConfig(embed_dim=(32, 64, 96), num_heads=(1, 2, 3, 4), mlp_ratio=(1.0, 2.0, 3.0), depth=(2, 3, 4, 5)),
        SupernetSizes(patch_size=4, embed_dim=96, depth=5, num_heads=4, mlp_ratio=3.0, head_dim=32, max_relative_position=1),
    ),
    train=TrainingConfig(
        epochs=300,
        batch_size=200,
        lr=3e-3,
        warmup_lr=1e-4,
        warmup_epochs=30,
        drop_path=0.0,
        weight_init="xavier",
        pos_embed_std=0.2,
        nodes=NONE,
    ),
    evaluators=EvaluatorConfig(nodes=NONE),
    search=EvolutionConfig(generations=10),
    ageing=AgeingConfig(candidates=500),
    nsga2=NSGA2Config(generations=10),
    predictor=PredictorConfig(generations=20),
    constraint=Constraint(max_params=100e3),
)
"""``experiments/search.py digits``: 1,797 handwritten digits that scikit-learn brings. 2 CPU cores, a few minutes, 97 %."""

FASHION_MNIST_RECIPE: Search = Recipe(
    name="fashion-mnist",
    task=ImageClassification(FASHION_MNIST, AugmentConfig(shift=2, hflip=0.5)),
    family=FAMILY,
    config=AutoFormerConfig(
        SpaceConfig(embed_dim=(96, 128, 160), num_heads=(2, 3, 4), mlp_ratio=(2.0, 3.0, 4.0), depth=(4, 5, 6)),
        SupernetSizes(patch_size=4, embed_dim=160, depth=6, num_heads=4, mlp_ratio=4.0, head_dim=32, max_relative_position=7),
    ),
    train=TrainingConfig(
        epochs=100,
        batch_size=256,
        lr=1e-3,
        warmup_lr=1e-5,
        warmup_epochs=5,
        drop_path=0.05,
        weight_init="xavier",
        pos_embed_std=0.2,
        nodes=NodesConfig(most=1),
    ),
    evaluators=EvaluatorConfig(nodes=NodesConfig(most=2)),
    constraint=Constraint(min_params=0.6e6, max_params=0.9e6),
)
"""``experiments/search.py fashion-mnist``: 60,000 pictures of clothes. Made for one GPU; hours on a CPU. Not run to its end."""


def plus(recipe: Search, *, epochs: int, lr: float = 0.1) -> Search:
    """``recipe`` with the training that left the best subnets where ways of training were compared (docs/validation.md).

    Single paths, drawn from the budget's band alone: no step is spent on subnets that could not be chosen. ``epochs`` and
    ``lr`` (as a share of the supernet's): of the champion's fine-tuning, from the labels alone.
    """
    return replace(
        recipe,
        train=replace(recipe.train, draw_from="band"),
        champion=ChampionConfig(epochs=epochs, lr=lr, distill=0.0),
    )


FASHION_RECIPE: Search = plus(
    Recipe(
        name="fashion",
        task=ImageClassification(FASHION_MNIST, AugmentConfig(shift=1, hflip=0.5)),
        family=FAMILY,
        config=AutoFormerConfig(
            SpaceConfig(embed_dim=(32, 48, 64), num_heads=(1, 2, 3, 4), mlp_ratio=(1.0, 2.0, 3.0, 4.0), depth=(3, 4, 5, 6)),
            SupernetSizes(
                patch_size=4, embed_dim=64, depth=6, num_heads=4, mlp_ratio=4.0, head_dim=16, relative_position=False
            ),
        ),
        train=TrainingConfig(
            epochs=24,
            batch_size=128,
            lr=2e-3,
            warmup_lr=1e-5,
            warmup_epochs=2,
            drop_path=0.0,
            weight_init="xavier",
            pos_embed_std=0.2,
            nodes=NodesConfig(most=1),
        ),
        evaluators=EvaluatorConfig(nodes=NodesConfig(most=2)),
        predictor=PredictorConfig(generations=8),
        constraint=Constraint(min_macs=5e6, max_macs=8e6),
        finalists=FinalistsConfig(search_images=2_000),
        report=ReportConfig(random_subnets=10),
    ),
    epochs=8,
    lr=0.5,
)
"""``make fashion``: 60,000 pictures of clothes, subnets of 5 to 8 million multiply-accumulates. Made for 2 CPU cores; 89 %."""


def _imagenet(name: str, band: tuple[float, float]) -> Search:
    """A published search: its space, its supernet, its parameter band and its training schedule."""
    return Recipe(
        name=name,
        task=ImageClassification(IMAGENET, AugmentConfig.published()),
        family=FAMILY,
        config=FAMILY.presets[name],
        train=TrainingConfig(mixup=0.8, cutmix=1.0),
        algorithm="evolution",  # these recipes repeat what is published
        constraint=Constraint(min_params=band[0], max_params=band[1]),
        evaluators=EvaluatorConfig(batch_size=500),
        racing=RacingConfig(block=500),  # a look after each batch of the evaluators
    )


IMAGENET_TINY = _imagenet("imagenet-tiny", (5e6, 6e6))
"""``experiments/search.py imagenet-tiny --data DIR``: AutoFormer-T, 8 GPUs, published 74.7 % top-1. Not run here."""
IMAGENET_SMALL = _imagenet("imagenet-small", (22e6, 23e6))
"""``experiments/search.py imagenet-small --data DIR``: AutoFormer-S, 8 GPUs, published 81.7 % top-1. Not run here."""
IMAGENET_BASE = _imagenet("imagenet-base", (52e6, 54e6))
"""``experiments/search.py imagenet-base --data DIR``: AutoFormer-B, 8 GPUs, published 82.4 % top-1. Not run here."""

PLUS: dict[str, Search] = {
    f"{recipe.name}-plus": replace(plus(recipe, epochs=30), name=f"{recipe.name}-plus")
    for recipe in (IMAGENET_TINY, IMAGENET_SMALL, IMAGENET_BASE)
}
"""The same spaces and bands, their supernets trained by :func:`plus` (docs/imagenet.md). Not run here."""

IMAGES_RECIPE: Search = Recipe(
    name="images",
    task=ImageClassification(IMAGES, AugmentConfig.published()),
    family=FAMILY,
    config=IMAGENET_TINY.config,
    train=TrainingConfig(epochs=300, batch_size=256, lr=5e-4, nodes=NodesConfig(most=1)),
    evaluators=EvaluatorConfig(nodes=NodesConfig(most=2)),
    predictor=PredictorConfig(generations=20),
    fits=True,
)
"""``experiments/search.py images --data DIR``: a folder of your own, one sub-folder per class.

Image size, network, augmentation, batch and epochs that are not given follow from the images, the budget and the machine
(:mod:`raysearch.recipes.fitted`): minutes on 2 CPU cores, hours on GPUs.
"""

RECIPES: dict[str, tuple[str, Search]] = {
    "digits": ("scikit-learn's 1,797 handwritten digits: minutes on 2 CPU cores", DIGITS_RECIPE),
    "fashion": ("60,000 pictures of clothes, 5-8 M MACs, fine-tuned champion: made for 2 CPU cores", FASHION_RECIPE),
    "fashion-mnist": ("the same pictures in larger networks: torchvision's files or Debian's package", FASHION_MNIST_RECIPE),
    "images": (
        "a folder of your own (--data DIR), a sub-folder per class; it and the machine decide the rest",
        IMAGES_RECIPE,
    ),
    "imagenet-tiny": ("AutoFormer-T as published, 5-6 M parameters (--data DIR)", IMAGENET_TINY),
    "imagenet-small": ("AutoFormer-S as published, 22-23 M parameters (--data DIR)", IMAGENET_SMALL),
    "imagenet-base": ("AutoFormer-B as published, 52-54 M parameters (--data DIR)", IMAGENET_BASE),
    **{name: ("the same, trained on its budget alone, with a fine-tuned champion", recipe) for name, recipe in PLUS.items()},
}
"""Recipes by the name that the command line takes, each with one line of help."""
