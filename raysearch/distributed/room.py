"""Whether the cluster has room for a process: refused where there never can be, waited for with words where others work.

Ray waits in silence for room that may never be: a process that asks for more than any node has, or a cluster that is full.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import ray
from ray._private import state as ray_state
from ray._private.worker import global_worker
from ray.autoscaler.v2.sdk import get_cluster_resource_state

from raysearch.errors import UserError

FIRST = 5.0
"""Seconds after which a process that finds no room is spoken of."""
EVERY = 60.0
"""Seconds between two lines about the same lack."""

_SLACK = 1e-6
_PLURALS = {"CPU": "CPUs", "GPU": "GPUs"}


@dataclass(frozen=True, slots=True)
class Need:
    """What each process of one kind asks for."""

    what: str
    """The kind, as ``evaluator``."""
    resources: Mapping[str, float]
    """Amounts by Ray's names: CPU, GPU, or a custom resource."""
    remedy: str
    """What the user may do; ``{most}`` in it is how much of the first lacking resource the largest node has."""

    @property
    def options(self) -> dict[str, Any]:
        """As Ray's actors and tasks are asked for it."""
        named = {"CPU": "num_cpus", "GPU": "num_gpus"}
        custom = {name: amount for name, amount in self.resources.items() if name not in named}
        asked = {named[name]: amount for name, amount in self.resources.items() if name in named}
        return {"num_cpus": 0, **asked, **({"resources": custom} if custom else {})}


@dataclass(frozen=True, slots=True)
class Node:
    """One node that lives."""

    total: Mapping[str, float]
    free: Mapping[str, float]


def present_nodes() -> list[Node]:
    """The nodes of the cluster that live."""
    free = cast("dict[str, dict[str, float]]", ray_state.state.available_resources_per_node())
    nodes = cast("list[dict[str, Any]]", ray.nodes())
    return [Node(node["Resources"], free.get(node["NodeID"], {})) for node in nodes if node["Alive"]]


def grows() -> bool:
    """Whether the cluster may get nodes that it does not have: an autoscaler or operator started one of those that it has."""
    if ray_state.state.get_max_resources_from_cluster_config():
        return True
    return any(node["Labels"].get("ray.io/node-group") for node in cast("list[dict[str, Any]]", ray.nodes()) if node["Alive"])


def waits(need: Need) -> bool:
    """Whether the cluster has a request for such a process that it finds no room for; one that is starting has its room."""
    client: Any = cast("Any", global_worker).gcs_client
    state = get_cluster_resource_state(client)  # what Ray's autoscaler goes by
    alone = any(dict(r.request.resources_bundle) == dict(need.resources) for r in state.pending_resource_requests)
    return alone or bool(state.pending_gang_resource_requests)


def check_room(need: Need) -> None:
    """Raises UserError when no node could ever hold such a process: none is large enough, and the cluster does not grow."""
    nodes = present_nodes()
    if nodes and not any(_holds(node.total, need) for node in nodes) and not grows():
        raise UserError(_refusal(need, nodes))


def _holds(amounts: Mapping[str, float], need: Need) -> bool:
    return all(amounts.get(name, 0.0) >= amount - _SLACK for name, amount in need.resources.items())


def _largest(nodes: list[Node], need: Need) -> tuple[Node, str]:
    """The node that comes nearest, and the first resource of which it has too little."""
    node = max(nodes, key=lambda n: min((n.total.get(name, 0.0) / amount for name, amount in need.resources.items() if amount)))
    lacking = [name for name, amount in need.resources.items() if node.total.get(name, 0.0) < amount - _SLACK]
    return node, next(iter(lacking), next(iter(need.resources)))


def _refusal(need: Need, nodes: list[Node]) -> str:
    node, lacking = _largest(nodes, need)
    most = node.total.get(lacking, 0.0)
    offer = _amounts({name: node.total.get(name, 0.0) for name in need.resources})
    start = f"start a node that has {_PLURALS.get(lacking, lacking)}"
    remedy = need.remedy.format(most=f"{most:g}") if most else start
    return f"no node can hold one {need.what}: each asks for {_amounts(need.resources)}, the largest node has {offer}; {remedy}"


def _amounts(resources: Mapping[str, float]) -> str:
    """As ``4 CPUs and 1 GPU``."""
    parts = [f"{amount:g} {name if amount == 1 else _PLURALS.get(name, name)}" for name, amount in resources.items()]
    return " and ".join(parts)


def _plural(what: str) -> str:
    return f"{what}es" if what.endswith("s") else f"{what}s"


class Waiting:
    """Says what is waited for while processes find no room: after seconds, then once a minute until one of them runs.

    Args:
        need: what each asks for.
        say: gets the lines.
        clock: seconds; another one in tests.

    """

    def __init__(self, need: Need, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self.need, self.say, self.clock = need, say, clock
        self._since: float | None = None
        self._next = FIRST

    def look(self, missing: int, *, of: int) -> None:
        """Take note that ``missing`` of so many processes are not there; to be called every few seconds."""
        if missing == 0 or not waits(self.need):
            self._since, self._next = None, FIRST
            return
        now = self.clock()
        if self._since is None:
            self._since = now
        if now - self._since < self._next:
            return
        self.say(f"{self.line(missing, of=of)}; waiting for {now - self._since:.0f} s")
        # While others of them work, once is enough.
        self._next = now - self._since + EVERY if missing == of else float("inf")

    def line(self, missing: int, *, of: int) -> str:
        """What is waited for, and what the largest node has."""
        nodes = present_nodes()
        if not nodes:
            return f"no node of the cluster answers: {missing} of {of} {_plural(self.need.what)} find no room"
        node, _ = _largest(nodes, self.need)
        free = max(nodes, key=lambda n: min((n.free.get(name, 0.0) for name in self.need.resources), default=0.0)).free
        offer = _amounts({name: node.total.get(name, 0.0) for name in self.need.resources})
        left = _amounts({name: free.get(name, 0.0) for name in self.need.resources})
        return (
            f"{missing} of {of} {_plural(self.need.what)} find no room yet: each asks for {_amounts(self.need.resources)}, "
            f"the largest node has {offer}, and {left} are free on one node"
        )
