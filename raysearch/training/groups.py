"""Which parameters an optimiser treats alike: weight decay by what they are, learning rates by their layers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

LR_SCALE = "lr_scale"
"""Entry of a group by which the learning rate of a step is multiplied for it."""


def parameter_groups(
    network: nn.Module, *, weight_decay: float, undecayed: Collection[str] = (), layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Groups of an optimiser, as PyTorch takes them.

    Parameters of one dimension, as biases and norms, are not decayed, nor are those whose last part of the name is in
    ``undecayed``. With a ``layer_decay`` below 1, each layer learns at that share of the rate of the layer above it, the head
    at the full rate (BEiT, Bao et al. 2022, by timm); for networks that say what their layers are (``group_matcher``, timm's
    protocol), and for others not.
    """
    if layer_decay < 1 and hasattr(network, "group_matcher"):
        # Seconds to import, for the trainings that use it.
        from timm.optim import param_groups_layer_decay  # pyright: ignore[reportPrivateImportUsage]

        patterns = [pattern for name in undecayed for pattern in (name, f"*.{name}")]
        return param_groups_layer_decay(
            network, weight_decay=weight_decay, no_weight_decay_list=patterns, layer_decay=layer_decay
        )
    decayed = {name: p.ndim > 1 and name.rpartition(".")[2] not in undecayed for name, p in network.named_parameters()}
    return [
        {"params": [p for name, p in network.named_parameters() if decayed[name] == decay], "weight_decay": rate}
        for decay, rate in ((True, weight_decay), (False, 0.0))
    ]
