"""Searches that begin with a pretrained vision transformer of timm's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from raysearch.recipes.recipe import ChampionConfig, Recipe
from raysearch.spaces.elastic_vit import ElasticConfig
from raysearch.training.config import DistillConfig, TrainingConfig

TRAINING = TrainingConfig(
    epochs=60,
    batch_size=256,
    lr=2e-4,
    min_lr=1e-6,
    warmup_lr=1e-6,
    warmup_epochs=3,
    layer_decay=0.75,
    drop_path=0.1,
    clip_grad=1.0,
    largest_first=0.25,
    widen=0.25,
    draw_from="band",
    distill=DistillConfig(source="largest", weight=0.5),
    ema=0.999,
)
"""First the whole network is fine-tuned, then the choices widen to the whole space, of which single subnets inside the budget
are trained, taught by the whole network. The weights that are scored are a moving average."""

SETTLED = frozenset(
    f"train.{name}" for name in ("lr", "warmup_lr", "drop_path", "weight_init", "pos_embed_std", "mixup", "cutmix")
)
"""Settings that do not follow from images and machine where weights are trained already."""


def of_pretrained(recipe: Recipe[Any, Any]) -> Recipe[Any, ElasticConfig]:
    """The same search with the schedule of a pretrained supernet, whatever its family's own."""
    return replace(recipe, train=TRAINING, champion=ChampionConfig(epochs=10, lr=0.5))
