"""Pretrained vision transformers of timm's made elastic: a supernet that begins as the very network it came from.

``supernet, space = from_timm(model)``: ``supernet(images, space.largest())`` equals ``model(images)``.
"""

from __future__ import annotations

from torch import nn

from raysearch.space import SearchSpace
from raysearch.spaces.elastic_vit.config import ElasticConfig, SpaceConfig
from raysearch.spaces.elastic_vit.family import FAMILY, supernet
from raysearch.spaces.elastic_vit.network import ElasticNet
from raysearch.spaces.elastic_vit.sizes import ElasticSizes, NetConfig
from raysearch.spaces.elastic_vit.space import ElasticArchitecture
from raysearch.spaces.supernet import LeadingSupernet

__all__ = [
    "FAMILY",
    "ElasticArchitecture",
    "ElasticConfig",
    "ElasticNet",
    "ElasticSizes",
    "NetConfig",
    "SpaceConfig",
    "from_timm",
]


def from_timm(
    model: nn.Module, *, space: SpaceConfig | None = None, drop_path_rate: float = 0.0
) -> tuple[LeadingSupernet[ElasticArchitecture], SearchSpace[ElasticArchitecture]]:
    """The elastic supernet of a vision transformer of timm's, with its weights, and the space of its subnets.

    The supernet is in evaluation mode, on the CPU, in float32. Its largest subnet was compared with ``model``.

    Args:
        model: a ``timm.models.vision_transformer.VisionTransformer`` with a head, on the CPU.
        space: what may be chosen.
        drop_path_rate: stochastic depth of the last block, in training mode.

    Raises:
        UserError: the model has a feature that elastic networks do not have, which is named, or they compute otherwise.

    """
    from raysearch.spaces.elastic_vit.timm_vit import canonical, check_parity, read_sizes  # timm takes seconds to import

    sizes = read_sizes(model)
    made = supernet(drop_path_rate=drop_path_rate, **sizes.settings())
    made.net.load_state_dict(canonical(model.state_dict(), sizes))
    check_parity(model, made.net, sizes)
    return made.eval(), (space or SpaceConfig()).build(sizes)
