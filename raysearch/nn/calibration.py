"""Running statistics of one subnet: those that a supernet gathered are a mixture over all subnets and hold for none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

# torch has no public base of all layers with running statistics.
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def estimate_statistics(subnet: M, batches: Iterable[Tensor]) -> M:
    """Replace the running mean and variance of every normalisation in ``subnet`` by those of ``batches``; returns it.

    Means over all batches, each with the same weight, in one pass in which only these layers are in training mode: dropout
    and stochastic depth stay off (recalibration as in Yu & Huang 2019, "Universally slimmable networks", section 3.3). The
    subnet's mode is as before afterwards. Nothing happens where no layer has running statistics.

    Args:
        subnet: a module with statistics of its own, never one that shares memory with others: they are written in place.
        batches: training inputs as the network sees them, (batch, ...) each, at least one of two items; the subnet moves to
            their device.

    """
    layers = [module for module in subnet.modules() if isinstance(module, _NormBase) and module.running_mean is not None]
    if not layers:
        return subnet
    training = {module: module.training for module in subnet.modules()}
    momenta = {layer: layer.momentum for layer in layers}
    subnet.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative mean instead of a moving one
        layer.train()
    for batch in batches:
        subnet.to(batch.device)(batch)
    for layer in layers:
        layer.momentum = momenta[layer]
    for module, mode in training.items():
        module.training = mode
    return subnet
