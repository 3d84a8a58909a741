"""AutoFormer as a family: what everything above the spaces knows of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysearch.spaces.autoformer.config import AutoFormerConfig
from raysearch.spaces.autoformer.fitted import fitted
from raysearch.spaces.autoformer.geometry import AutoFormerGeometry
from raysearch.spaces.autoformer.published import geometry_of, read_published
from raysearch.spaces.autoformer.space import AutoFormerArchitecture, AutoFormerSpace
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
    undecayed=("cls_token", "pos_embed"),
    read_foreign=read_foreign,
    fitted=fitted,
    timm=TimmNames("raysearch.spaces.autoformer.timm_models", ARCHITECTURE, folder_config),
)
"""What ``--family autoformer`` means."""
