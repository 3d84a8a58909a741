"""AutoFormer (Chen et al., ICCV 2021): the weight-entangled vision transformer space, its presets and published checkpoints."""

from raysearch.spaces.autoformer.config import AutoFormerConfig, SpaceConfig
from raysearch.spaces.autoformer.family import FAMILY
from raysearch.spaces.autoformer.geometry import AutoFormerGeometry, SupernetSizes
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

__all__ = [
    "FAMILY",
    "PUBLISHED_BASE",
    "PUBLISHED_SMALL",
    "PUBLISHED_TINY",
    "AutoFormerArchitecture",
    "AutoFormerConfig",
    "AutoFormerGeometry",
    "AutoFormerSpace",
    "AutoFormerSubnet",
    "AutoFormerSupernet",
    "SpaceConfig",
    "SupernetSizes",
    "geometry_of",
    "read_published",
]
