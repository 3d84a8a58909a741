"""Space families by name: what a checkpoint or a recipe names and a program builds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raysearch.space import Architecture
from raysearch.spaces.autoformer import AutoFormerArchitecture, AutoFormerGeometry, AutoFormerSubnet, AutoFormerSupernet
from raysearch.spaces.supernet import Subnet, Supernet


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of search space."""

    architecture: type[Architecture]
    supernet: type[Supernet[Any]]
    subnet: Callable[[dict[str, Any], Any], Subnet]
    """From the supernet's settings and an architecture: an extracted subnet's module, with fresh weights."""


def _autoformer_subnet(settings: dict[str, Any], arch: AutoFormerArchitecture) -> Subnet:
    sizes = {name: value for name, value in settings.items() if name != "drop_path_rate"}
    return AutoFormerSubnet(AutoFormerGeometry(**sizes), arch, settings.get("drop_path_rate", 0.0))


FAMILIES: dict[str, Family] = {"autoformer": Family(AutoFormerArchitecture, AutoFormerSupernet, _autoformer_subnet)}
"""All families by name."""


def family(name: str) -> Family:
    """A family by name. Raises ValueError for one that is not known."""
    if name not in FAMILIES:
        raise ValueError(f"unknown space family {name!r}; known: {', '.join(FAMILIES)}")
    return FAMILIES[name]


def build_subnet(name: str, settings: dict[str, Any], arch: dict[str, Any]) -> Subnet:
    """The module of an extracted subnet, with fresh weights, from JSON values."""
    kind = family(name)
    return kind.subnet(settings, kind.architecture.from_dict(arch))
