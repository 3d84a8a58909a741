"""Elastic vision transformers as a family: what everything above the spaces knows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from raysearch.errors import UserError
from raysearch.spaces.elastic_vit.config import ElasticConfig
from raysearch.spaces.elastic_vit.network import ElasticNet
from raysearch.spaces.elastic_vit.sizes import ElasticSizes
from raysearch.spaces.elastic_vit.space import ElasticArchitecture
from raysearch.spaces.family import Family, Geometry
from raysearch.spaces.pretrained import Loss, Prepared, PretrainedNetwork, Pretraining
from raysearch.spaces.supernet import LeadingSupernet
from raysearch.tasks.task import Ends


def build(config: ElasticConfig, ends: Ends) -> Geometry[ElasticArchitecture]:
    """Space and sizes. Raises UserError when they do not fit together."""
    sizes, space = config.sizes(ends), config.space.build(config.net)
    return Geometry(
        space,
        sizes.settings(),
        sizes.cost,
        latency_features=sizes.latency_features,
        latency_parts=sizes.latency_parts(space),
        axes=("depth", "embed_dim", "num_heads_mean", "hidden_features_mean"),
    )


def supernet(*, drop_path_rate: float = 0.0, **settings: Any) -> LeadingSupernet[ElasticArchitecture]:
    """The whole network, whose leading heads, neurons and channels serve all others."""
    sizes = ElasticSizes(**settings)
    return LeadingSupernet(
        partial(ElasticNet, sizes, drop_path_rate=drop_path_rate),
        sizes.largest,
        cost=sizes.cost,
        settings={**sizes.settings(), "drop_path_rate": drop_path_rate},
    )


def subnet(settings: Mapping[str, Any], arch: ElasticArchitecture) -> ElasticNet:
    """An extracted subnet's module, with fresh weights, from the supernet's constructor arguments."""
    sizes = {name: value for name, value in settings.items() if name != "drop_path_rate"}
    return ElasticNet(ElasticSizes(**sizes), arch, settings.get("drop_path_rate", 0.0))


def for_ends(settings: Mapping[str, Any], ends: Ends) -> dict[str, Any]:
    """The same supernet for images of another size, and other classes. Raises UserError where no patches fit."""
    if len(ends.input_shape) != 3:
        raise UserError(f"a vision transformer takes images (chans, height, width), not {ends.input_shape}")
    chans, height, width = ends.input_shape
    made: dict[str, Any] = {**settings, "img_size": [height, width], "in_chans": chans, "num_classes": ends.outputs}
    ElasticSizes(**{name: value for name, value in made.items() if name != "drop_path_rate"})  # which checks them
    return made


def resized(weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights for images of another size or other channels, by timm: the position embedding is interpolated.

    A table that is not of a square grid stays as it is: from which grid it came its length does not say.
    """
    from timm.layers.pos_embed import resample_abs_pos_embed  # seconds to import, for those who resize
    from timm.models import adapt_input_conv

    made = dict(weights)
    sizes = ElasticSizes(**{name: value for name, value in settings.items() if name != "drop_path_rate"})
    prefix = sizes.prefix if sizes.positions == "all" else 0
    for name, weight in weights.items():
        if name.endswith("pos_embed") and weight.shape[1] != sizes.positioned:
            old = weight.shape[1] - prefix
            if isqrt(old) ** 2 == old:
                made[name] = resample_abs_pos_embed(weight, new_size=list(sizes.grid), num_prefix_tokens=prefix)
        elif name.endswith("patch_embed.proj.weight") and weight.shape[1] != sizes.in_chans:
            made[name] = adapt_input_conv(sizes.in_chans, weight)
    return made


def read_pretrained(name: str, file: Path | None) -> PretrainedNetwork:
    """See :func:`raysearch.spaces.elastic_vit.pretrained.read_pretrained`."""
    from raysearch.spaces.elastic_vit import pretrained  # here, as evaluators need nothing of it

    return pretrained.read_pretrained(name, file)


def prepare(
    settings: Mapping[str, Any], weights: Mapping[str, Tensor], batches: Sequence[tuple[Tensor, Tensor]], loss: Loss
) -> Prepared:
    """See :func:`raysearch.spaces.elastic_vit.pretrained.prepare`."""
    from raysearch.spaces.elastic_vit import pretrained

    return pretrained.prepare(settings, weights, batches, loss)


def timm_files(subnet: ElasticNet, card: Mapping[str, Any]) -> Mapping[str, bytes]:
    """See :func:`raysearch.spaces.elastic_vit.timm_files.timm_files`."""
    from raysearch.spaces.elastic_vit import timm_files as files

    return files.timm_files(subnet, card)


FAMILY = Family(
    name="elastic_vit",
    config=ElasticConfig,
    architecture=ElasticArchitecture,
    build=build,
    supernet=supernet,
    subnet=subnet,
    description="A vision transformer cut out of a pretrained one of timm's that was made elastic",
    undecayed=("cls_token", "reg_token", "pos_embed", "q_bias"),
    for_ends=for_ends,
    resized=resized,
    timm_files=timm_files,
    pretrained=Pretraining(read_pretrained, prepare, decides=("order",)),
)
"""What ``--family elastic_vit`` means."""
