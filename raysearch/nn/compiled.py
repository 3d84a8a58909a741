"""PyTorch's compiler, for networks made of blocks."""

from __future__ import annotations

import torch
from torch import nn


def compile_blocks(network: nn.Module) -> None:
    """Have ``torch.compile`` compile the blocks of ``network`` (the members of its module lists) when they first run.

    A process compiles each kind of block once, whatever the number of networks that have it: a block's kind is its sizes.
    """
    # A process meets more kinds than the 8 that torch expects of one function.
    torch._dynamo.config.recompile_limit = 1024  # pyright: ignore[reportPrivateUsage]
    for module in network.modules():
        if isinstance(module, nn.ModuleList):
            for block in module:
                block.compile()
