"""A network with weights of its own, as it travels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from raysearch.distributed.files import NodeFile, local_path
from raysearch.space import Architecture
from raysearch.spaces import Family, Subnet, build_subnet
from raysearch.training import checkpoint


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """A network that any node can build: its architecture, and the file of its weights."""

    family: Family[Any, Any]
    settings: Mapping[str, Any]
    """Constructor arguments of the supernet."""
    arch: Architecture
    weights: NodeFile
    """Under the network's own names."""

    def open(self) -> Subnet:
        """The network, on the CPU."""
        with torch.random.fork_rng(devices=[]):  # weights are drawn only to be replaced
            network = build_subnet(self.family, self.settings, self.arch.to_dict())
        network.load_state_dict(checkpoint.read(local_path(self.weights))[0])
        return network
