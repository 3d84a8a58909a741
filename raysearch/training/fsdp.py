"""Networks divided among the processes: each holds a part of every weight and gathers a block's weights to compute (FSDP2).

What this needs of PyTorch is imported where it is used: it brings a compiler, which few trainings ask for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

import torch
import torch.distributed
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def processes() -> int:
    """How many processes train together."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def divide(network: nn.Module, device: torch.device) -> None:
    """Leave each process its part of the weights of ``network``, in place; all call it with equal weights.

    The blocks (the members of its module lists) are gathered one at a time, what is outside them together.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes(),))
    for module in reversed([*network.modules()]):  # from the inside out
        for block in module if isinstance(module, nn.ModuleList) else ():
            if not isinstance(block, nn.ModuleList):
                fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def is_divided(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether it is a part of a tensor that knows the whole."""
    if type(tensor) in (Tensor, nn.Parameter):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """A tensor from its parts; of one that is divided a copy on the CPU, for which all processes call at once."""
    return tensor.full_tensor().cpu() if is_divided(tensor) else tensor


def own_part(tensor: Tensor) -> Tensor:
    """The part that is here."""
    return tensor.to_local() if is_divided(tensor) else tensor


def divided_as(model: Tensor, tensor: Tensor) -> Tensor:
    """``tensor``, which is whole, on the device of ``model`` and divided as that is, if it is."""
    tensor = tensor.to(model.device)
    if not is_divided(model) or tensor.shape != model.shape:  # step counts are whole everywhere
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, model.device_mesh, model.placements)
