"""Initial weights, by the same rules for a supernet and for a subnet that is trained alone."""

from __future__ import annotations

import math

import torch
from torch import nn

from raysearch.spaces.supernet import WeightInit


def draw_weights(
    network: nn.Module, *, weight_init: WeightInit, pos_embed_std: float, generator: torch.Generator | None
) -> None:
    """Draw all weights of a supernet or a subnet anew.

    ``trunc_normal`` is the published choice: linear layers, class token and relative-position tables from a normal of
    standard deviation 0.02 cut at +-2, PyTorch's default for the patch convolution. ``xavier`` draws linear layers and
    the patch convolution (as the linear map that it is) from Glorot's uniform, which trains faster on small data. Biases
    are 0, norms 1 and 0. ``pos_embed_std`` is the standard deviation of the position embedding. ``generator`` None:
    torch's global one.
    """
    inputs = {name: weight[0].numel() for name, weight in network.named_parameters() if _of_patches(name) and weight.ndim > 1}
    for name, weight in network.named_parameters():
        if name == "pos_embed":
            nn.init.trunc_normal_(weight, std=pos_embed_std, generator=generator)
        elif name == "cls_token" or "embeddings_table" in name:
            nn.init.trunc_normal_(weight, std=0.02, generator=generator)
        elif "norm" in name:
            nn.init.constant_(weight, float(name.endswith("weight")))
        elif _of_patches(name) and weight_init == "trunc_normal":
            bound = 1 / math.sqrt(inputs[f"{name.rpartition('.')[0]}.weight"])
            nn.init.uniform_(weight, -bound, bound, generator=generator)
        elif name.endswith("bias"):
            nn.init.zeros_(weight)
        elif weight_init == "xavier":
            nn.init.xavier_uniform_(weight.flatten(1), generator=generator)
        else:
            nn.init.trunc_normal_(weight, std=0.02, generator=generator)


def _of_patches(name: str) -> bool:
    return name.startswith("patch_embed")
