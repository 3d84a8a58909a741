"""Which machines a cluster shall start for a search, where it can start some."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from raysearch.bounds import CountOrNone, Positive, check_numbers


@dataclass(frozen=True, slots=True)
class NodesConfig:
    """Nodes that a cluster starts for one kind of work (docs/cluster.md)."""

    most: CountOrNone | None = None
    """For how many processes nodes are started at most, where the number of processes is not given; 0: for none, the nodes that
    are there do. Default: for as many as the cluster may hold."""
    offer: Literal["auto", "gpu", "kept-gpu", "kept-cpu"] = "auto"
    """What the nodes have that come, where the cluster's configuration cannot be read, as on Kubernetes: GPUs; GPUs and, for
    each, the resource training or evaluation; processors and that resource. auto: none are counted on then."""
    wait: Positive = 1800.0
    """Seconds that are waited for the first node."""
    otherwise: Literal["end", "present"] = "end"
    """What follows when none came: the job ends, to be resumed; or goes on with the nodes that are there, without GPUs if need
    be."""

    def __post_init__(self) -> None:
        """Raises UserError for numbers that cannot be."""
        check_numbers(self)
