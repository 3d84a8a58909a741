"""Whether the cluster has room for a process: refused where there never can be, waited for with words where others work.

Ray waits in silence for room that may never be: a process that asks for more than any node has, or a cluster that is full.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import ray
from ray._private import state as ray_state
from ray._private.worker import global_worker
from ray.autoscaler.v2.sdk import get_cluster_resource_state

from raysearch.distributed.cluster import answer
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
    comes: bool | None = None
    """Whether the cluster can start nodes that hold one; None: nobody knows."""
    wait: float = math.inf
    """Seconds that are waited for the first of those nodes."""

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


def node_lives(node_id: str) -> bool:
    """Whether a node is part of the cluster still."""
    return any(node["NodeID"] == node_id and node["Alive"] for node in cast("list[dict[str, Any]]", ray.nodes()))


def has_head(node: Node) -> bool:
    """Whether a node is the cluster's head."""
    return "node:__internal_head__" in node.total


def starts_nodes() -> bool:
    """Whether the cluster may get nodes that it does not have: an autoscaler or operator started one of those that it has."""
    return any(node["Labels"].get("ray.io/node-group") for node in cast("list[dict[str, Any]]", ray.nodes()) if node["Alive"])


def waits(need: Need) -> bool:
    """Whether the cluster has a request for such a process that it finds no room for; one that is starting has its room."""
    state = _requests()
    return pending(need) > 0 or bool(state.pending_gang_resource_requests)


def pending(need: Need) -> int:
    """How many such processes find no room."""
    asked = _requests().pending_resource_requests
    return sum(each.count for each in asked if dict(each.request.resources_bundle) == dict(need.resources))


def _requests() -> Any:
    client: Any = cast("Any", global_worker).gcs_client
    return get_cluster_resource_state(client)  # what Ray's autoscaler goes by


def check_room(need: Need) -> None:
    """Raises UserError when no node could ever hold such a process: none is large enough, and none that is may come."""
    nodes = present_nodes()
    comes = starts_nodes() if need.comes is None else need.comes
    if nodes and not comes and not any(_holds(node.total, need) for node in nodes):
        raise UserError(_refusal(need, nodes))


def fitting(node: Mapping[str, float], resources: Mapping[str, float]) -> int:
    """How many processes that ask for ``resources`` a node can hold."""
    return min(int(node.get(name, 0.0) / amount + _SLACK) for name, amount in resources.items() if amount)


def _holds(amounts: Mapping[str, float], need: Need) -> bool:
    return fitting(amounts, need.resources) >= 1


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


class NoNodeError(UserError):
    """No node came for processes that wait for one.

    Args:
        message: for the user.
        waited: what was waited for, and how long.

    """

    def __init__(self, message: str, *, waited: str) -> None:
        super().__init__(message)
        self.waited = waited

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors travel between processes."""
        return _no_node, (str(self), self.waited)


def _no_node(message: str, waited: str) -> NoNodeError:
    return NoNodeError(message, waited=waited)


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
        self._none_since: float | None = None
        self._for_nodes = False

    def look(self, missing: int, *, of: int) -> None:
        """Take note that ``missing`` of so many processes are not there; to be called every few seconds.

        Raises NoNodeError when none was there for as long as is waited for nodes that the cluster starts.
        """
        now = self.clock()
        nodes = present_nodes() if missing else []
        for_nodes = bool(missing and self.need.comes and sum(fitting(n.total, self.need.resources) for n in nodes) < of)
        if missing == 0 or not (for_nodes or waits(self.need)):
            if self._for_nodes and missing == 0 and self._since is not None and self._next > FIRST:
                self.say(f"all {of} {_plural(self.need.what)} have room, after {now - self._since:.0f} s")
            self._since, self._next, self._none_since, self._for_nodes = None, FIRST, None, False
            return
        self._for_nodes = for_nodes
        if self._since is None:
            self._since = now
        self._none_since = (self._none_since or now) if missing == of else None
        waited = now - self._since
        if for_nodes and self._none_since is not None and now - self._none_since >= self.need.wait:
            raise self._over(now - self._none_since)
        if waited < self._next:
            return
        if for_nodes:
            self.say(
                f"{of - missing} of {of} {_plural(self.need.what)}: waiting for {self._kind} nodes (asked {waited:.0f} s ago)"
            )
        else:
            self.say(f"{self.line(missing, of=of)}; waiting for {waited:.0f} s")
        # While others of them work, once is enough.
        self._next = waited + EVERY if missing == of else float("inf")

    @property
    def _kind(self) -> str:
        """Of the nodes that are waited for, as ``GPU``."""
        return next((name for name in self.need.resources if name != "CPU"), "more")

    def _over(self, seconds: float) -> NoNodeError:
        waited = f"no {self._kind} node came within {seconds:.0f} s for {_plural(self.need.what)}"
        return NoNodeError(
            f"{waited}: `ray status` on the head says why. nodes.wait waits longer, nodes.otherwise present goes on with the "
            "nodes that are there (--train.nodes... and --evaluators.nodes...); --resume continues what has begun",
            waited=waited,
        )

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


def awaited(asked: Any, need: Need, say: Callable[[str], None]) -> Any:
    """What one remote call gives that asked for ``need``. ``say`` gets a line a minute while it finds no room.

    Raises NoNodeError when no node came that has some; the call is cancelled then.
    """
    waiting = Waiting(need, say)
    try:
        while not ray.wait([asked], timeout=1)[0]:
            waiting.look(1, of=1)
    except NoNodeError:
        ray.cancel(asked)
        raise
    return answer(asked)
