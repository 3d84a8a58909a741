"""Trained weights for other inputs and other outputs: what carries over, and a head that is drawn anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from raysearch.errors import UserError
from raysearch.space import Architecture
from raysearch.spaces.family import Family, build_subnet
from raysearch.spaces.supernet import WeightInit
from raysearch.tasks.task import Ends


@dataclass(frozen=True, slots=True)
class Refitted:
    """A network that was made for other ends."""

    settings: dict[str, Any]
    """Constructor arguments of the supernet."""
    weights: dict[str, Tensor]
    """All of its weights."""
    fresh: tuple[str, ...]
    """Names of those that were drawn anew."""


def refitted(
    family: Family[Any, Any],
    settings: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    ends: Ends,
    *,
    arch: Architecture | None,
    weight_init: WeightInit = "trunc_normal",
    seed: int | None = None,
) -> Refitted:
    """The weights of a supernet or a subnet for other inputs and outputs.

    Args:
        family: of the network.
        settings: constructor arguments of the supernet.
        weights: all weights of the supernet or the subnet.
        ends: what the network shall take and give.
        arch: of the subnet; None: they are the supernet's.
        weight_init: how a new head is drawn.
        seed: of a new head; None: the old one is kept, whose outputs must be as many.

    Raises:
        UserError: the family does not say how, the network cannot take such inputs, or the old head gives other outputs.

    """
    if family.for_ends is None:
        raise UserError(
            f"networks of the family {family.name} stay with their inputs and classes: its FAMILY sets no for_ends "
            "(docs/families.md)"
        )
    made = dict(family.for_ends(settings, ends))
    carried = dict(weights) if family.resized is None else dict(family.resized(weights, made))
    head = head_names(family, settings, ends, arch=arch)
    network = _network(family, made, arch)
    expected: dict[str, Tensor] = network.state_dict()
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        network.reset_parameters(weight_init=weight_init, pos_embed_std=0.02, generator=generator)
        carried |= {name: weight for name, weight in network.state_dict().items() if name in head}
    if wrong := [name for name, weight in expected.items() if name not in carried or carried[name].shape != weight.shape]:
        if seed is None and set(wrong) <= set(head):
            raise UserError(f"the network gives {carried[wrong[0]].shape[0]} outputs, not {ends.outputs}; it needs a new head")
        raise UserError(
            f"{wrong[0]} does not fit images of {ends.input_shape}: networks of the family {family.name} cannot take them"
        )
    return Refitted(made, carried, head if seed is not None else ())


def head_names(
    family: Family[Any, Any], settings: Mapping[str, Any], ends: Ends, *, arch: Architecture | None
) -> tuple[str, ...]:
    """Names of the weights of the classifier: those whose sizes follow from the number of outputs."""
    assert family.for_ends is not None
    one, other = (
        _shapes(family, family.for_ends(settings, Ends(ends.input_shape, outputs)), arch)
        for outputs in (ends.outputs, ends.outputs + 1)
    )
    return tuple(name for name, shape in one.items() if other[name] != shape)


def _shapes(family: Family[Any, Any], settings: Mapping[str, Any], arch: Architecture | None) -> dict[str, torch.Size]:
    with torch.device("meta"):  # names and shapes, without memory
        weights: dict[str, Tensor] = _network(family, settings, arch).state_dict()
    return {name: weight.shape for name, weight in weights.items()}


def _network(family: Family[Any, Any], settings: Mapping[str, Any], arch: Architecture | None) -> Any:
    with torch.random.fork_rng(devices=[]):  # weights are drawn only to be replaced
        return family.supernet(**settings) if arch is None else build_subnet(family, settings, arch.to_dict())
