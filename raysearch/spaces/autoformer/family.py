"""AutoFormer as a family: what everything above the spaces knows of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from raysearch.errors import UserError
from raysearch.spaces.autoformer.config import AutoFormerConfig
from raysearch.spaces.autoformer.fitted import fitted
from raysearch.spaces.autoformer.geometry import AutoFormerGeometry
from raysearch.spaces.autoformer.published import geometry_of, read_published
from raysearch.spaces.autoformer.space import (
    PUBLISHED_BASE,
    PUBLISHED_SMALL,
    PUBLISHED_TINY,
    AutoFormerArchitecture,
    AutoFormerSpace,
)
from raysearch.spaces.autoformer.subnet import AutoFormerSubnet
from raysearch.spaces.autoformer.supernet import AutoFormerSupernet
from raysearch.spaces.autoformer.timm_folder import ARCHITECTURE, folder_config
from raysearch.spaces.family import Family, Foreign, Geometry, TimmNames
from raysearch.tasks.task import Ends


def build(config: AutoFormerConfig, ends: Ends) -> Geometry[AutoFormerArchitecture]:
    """Space and sizes for square images. Raises UserError when they do not fit together."""
    sizes, space = config.geometry(ends), config.space.build()
    sizes.check(space.largest())
    return Geometry(
        space,
        sizes.settings(),
        sizes.cost,
        latency_features=sizes.latency_features,
        latency_parts=sizes.latency_parts(space),
        axes=("depth", "embed_dim", "num_heads_mean", "mlp_ratio_mean"),
        remarks=tuple(sizes.remarks()),
    )


def subnet(settings: Mapping[str, Any], arch: AutoFormerArchitecture) -> AutoFormerSubnet:
    """An extracted subnet's module, with fresh weights, from the supernet's constructor arguments."""
    sizes = {name: value for name, value in settings.items() if name != "drop_path_rate"}
    return AutoFormerSubnet(AutoFormerGeometry(**sizes), arch, settings.get("drop_path_rate", 0.0))


def read_foreign(path: Path) -> Foreign:
    """A published checkpoint. Raises UserError for a file that is none."""
    weights = read_published(path)
    return Foreign({**geometry_of(weights).settings(), "drop_path_rate": 0.0}, weights)


def for_ends(settings: Mapping[str, Any], ends: Ends) -> dict[str, Any]:
    """The same supernet for square images of another size, and other classes. Raises UserError where no patches fit."""
    if len(ends.input_shape) != 3 or ends.input_shape[1] != ends.input_shape[2]:
        raise UserError(f"AutoFormer takes square images (chans, size, size), not {ends.input_shape}")
    chans, size, _ = ends.input_shape
    made: dict[str, Any] = {**settings, "img_size": size, "in_chans": chans, "num_classes": ends.outputs}
    sizes = {name: value for name, value in made.items() if name != "drop_path_rate"}
    AutoFormerGeometry(**sizes)  # which checks them
    return made


def resized(weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights for images of another size or other channels, by timm: the position embedding is interpolated.

    Tables of relative position know distances in patches, clipped at the farthest, and stay as they are. So does what lies
    before other channels than it was made for: their weights are timm's sums or repetitions of the old ones'.
    """
    from timm.layers.pos_embed import resample_abs_pos_embed  # seconds to import, for those who resize
    from timm.models import adapt_input_conv

    made = dict(weights)
    side = settings["img_size"] // settings["patch_size"]
    if (table := made.get("pos_embed")) is not None and table.shape[1] != side**2 + 1:
        made["pos_embed"] = resample_abs_pos_embed(table, new_size=[side, side], num_prefix_tokens=1)
    for name in ("patch_embed.proj.weight", "patch_embed_super.proj.weight"):
        if name in made and made[name].shape[1] != settings["in_chans"]:
            made[name] = adapt_input_conv(settings["in_chans"], made[name])
    return made


FAMILY = Family(
    name="autoformer",
    config=AutoFormerConfig,
    architecture=AutoFormerArchitecture,
    build=build,
    supernet=AutoFormerSupernet,
    subnet=subnet,
    description="A vision transformer cut out of a weight-entangled supernet (the method of AutoFormer, ICCV 2021)",
    presets={
        "imagenet-tiny": AutoFormerConfig.published(AutoFormerSpace.tiny(), AutoFormerGeometry.tiny()),
        "imagenet-small": AutoFormerConfig.published(AutoFormerSpace.small(), AutoFormerGeometry.small()),
        "imagenet-base": AutoFormerConfig.published(AutoFormerSpace.base(), AutoFormerGeometry.base()),
    },
    published={"autoformer-tiny": PUBLISHED_TINY, "autoformer-small": PUBLISHED_SMALL, "autoformer-base": PUBLISHED_BASE},
    undecayed=("cls_token", "pos_embed"),
    read_foreign=read_foreign,
    fitted=fitted,
    for_ends=for_ends,
    resized=resized,
    timm=TimmNames("raysearch.spaces.autoformer.timm_models", ARCHITECTURE, folder_config),
)
"""What ``--family autoformer`` means."""
