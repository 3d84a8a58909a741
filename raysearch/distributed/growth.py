"""What a cluster offers one kind of work: its nodes, and those that it starts when they are asked for.

Nodes are asked for by processes that wait for room: Ray's autoscaler starts some for these, and ends them when they are idle.
A request beside them (``ray.autoscaler.sdk.request_resources``) would outlive a driver that is killed, and nodes with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import psutil
import ray
import yaml
from ray.util.placement_group import placement_group, remove_placement_group

from raysearch.distributed.room import Need, NoNodeError, Waiting, fitting, has_head, present_nodes, starts_nodes
from raysearch.errors import UserError
from raysearch.nodes import NodesConfig

log = logging.getLogger(__name__)

Work = Literal["training", "evaluation"]


@dataclass(frozen=True, slots=True)
class NodeType:
    """A kind of node that the cluster may start."""

    name: str
    resources: Mapping[str, float]
    most: int
    """How many of them at a time."""


@dataclass(frozen=True, slots=True)
class Growth:
    """What the cluster's own configuration says it may grow to, beside the head."""

    types: tuple[NodeType, ...]
    most: int
    """Nodes of all types together."""


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a cluster that one kind of work may use."""

    work: Work
    config: NodesConfig
    present: tuple[Mapping[str, float], ...]
    """Resources of the nodes that are there."""
    head: tuple[Mapping[str, float], ...]
    """Of these the head's."""
    growth: Growth | None
    """What it may start for this work; None: nothing, or it is not known what."""
    mark: str | None
    """Custom resource to be asked for beside each GPU or processor, where the cluster keeps nodes for this kind of work."""
    accelerated: bool
    """Whether its processes use a GPU each."""

    @property
    def marks(self) -> dict[str, float]:
        """Custom resources of one process."""
        return {self.mark: 1} if self.mark else {}

    def asks(self, *, cpus: float = 1.0) -> dict[str, float]:
        """What one process asks for: a GPU, or so many processors where there are none."""
        return {"GPU": 1.0, **self.marks} if self.accelerated else {"CPU": cpus, **self.marks}

    @property
    def cpus(self) -> float:
        """Processors of all nodes for this work."""
        present = sum(node.get("CPU", 0.0) for node in self.present if not self.mark or node.get(self.mark))
        return max(present, sum(self._may_start("CPU", {"CPU": 1.0, **self.marks})))

    def now(self, resources: Mapping[str, float]) -> int:
        """How many such processes the nodes that are there may hold."""
        return sum(fitting(node, resources) for node in self.present)

    def ever(self, resources: Mapping[str, float]) -> int:
        """How many with the nodes that may be started."""
        started = sum(fitting(node, resources) for node in self.head) if self.growth else 0
        return max(self.now(resources), started + int(sum(self._may_start(None, resources))))

    def _may_start(self, resource: str | None, resources: Mapping[str, float]) -> list[float]:
        """Of the nodes that may be started: each type's amount of ``resource``, or its number of such processes."""
        if self.growth is None:
            return []
        left, amounts = self.growth.most, list[float]()
        for kind in sorted(self.growth.types, key=lambda kind: -fitting(kind.resources, resources)):
            if count := min(kind.most, left) if fitting(kind.resources, resources) else 0:
                each = fitting(kind.resources, resources) if resource is None else kind.resources.get(resource, 0.0)
                amounts.append(count * each)
                left -= count
        return amounts

    def wanted(self, resources: Mapping[str, float], *, given: int | None) -> int:
        """How many processes there shall be, at least one; ``given``: by the user, at most.

        Raises UserError where their number must be given, as nobody can say how many nodes may come.
        """
        if self.unknown:
            if (count := given or self.config.most) is None:
                group, flag = _FLAGS[self.work]
                raise UserError(
                    f"{group}.nodes.offer says what nodes have that come, but not how many may: give --{flag}, a number"
                )
            return count
        most = self.ever(resources)
        if given is not None:
            return max(1, min(given, most))
        if self.config.most is not None:
            most = max(self.now(resources), min(self.config.most, most))
        return max(1, most)

    @property
    def unknown(self) -> bool:
        """Whether nodes come of which nothing is known but what the user said."""
        return self.config.offer != "auto" and self.config.most != 0 and self.growth is None

    def need(self, what: str, resources: Mapping[str, float], remedy: str = "") -> Need:
        """What each process of one kind asks for, and whether nodes may come that have it."""
        comes = True if self.unknown else None
        if self.growth is not None:
            comes = any(fitting(kind.resources, resources) for kind in self.growth.types)
        elif self.config.most == 0 and configured_growth() is not None:
            comes = False
            remedy = remedy or f"--{_FLAGS[self.work][0]}.nodes.most, a number, has the cluster start nodes for so many"
        return Need(what, resources, remedy, comes, self.config.wait)


_FLAGS: dict[Work, tuple[str, str]] = {
    "training": ("train", "train.workers"),
    "evaluation": ("evaluators", "evaluators.max-evaluators"),
}
"""Where the settings of each kind of work stand on the command line."""


def share_of(work: Work, config: NodesConfig | None = None) -> Share:
    """What the connected cluster holds for ``work``, and what it may start for it as ``config`` allows.

    A cluster may keep nodes for one kind of work: its node types then declare a custom resource of that name, as many as GPUs,
    or as processors (cluster/gpu.yaml).
    """
    config = config or NodesConfig()
    nodes = present_nodes()
    growth = None if config.most == 0 else configured_growth()
    resources = [node.total for node in nodes] + [kind.resources for kind in (growth.types if growth else ())]
    said = config.offer if config.offer != "auto" and config.most != 0 and growth is None else ""
    mark = work if said.startswith("kept") or any(each.get(work) for each in resources) else None
    kept = [each for each in resources if mark is None or each.get(mark)]
    accelerated = said.endswith("gpu") or (said != "kept-cpu" and any(each.get("GPU", 0) >= 1 for each in kept))
    present = tuple(node.total for node in nodes)
    head = tuple(node.total for node in nodes if has_head(node))
    return Share(work, config, present, head, growth, mark, accelerated)


def configured_growth() -> Growth | None:
    """What the configuration of the connected cluster's autoscaler allows; None where there is none that can be read here.

    That is the file which the autoscaler reads, on the head: of ``ray up`` it is ``~/ray_bootstrap_config.yaml``.
    """
    path = _autoscaler_file(ray.get_runtime_context().gcs_address)
    if path is None:
        return None
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        growth = growth_of(values)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    # Machines that are named by their addresses have resources which nobody wrote down.
    return growth if any(kind.resources for kind in growth.types) or not growth.types else None


def growth_of(config: Mapping[str, Any]) -> Growth:
    """What a cluster's configuration allows (Ray's cluster YAML)."""
    most = int(config.get("max_workers", 0))
    kinds: Mapping[str, Mapping[str, Any]] = config.get("available_node_types") or {}
    head = config.get("head_node_type")
    types = [
        NodeType(name, cast("Mapping[str, float]", kind.get("resources") or {}), int(kind.get("max_workers", most)))
        for name, kind in kinds.items()
        if name != head or kind.get("max_workers")
    ]
    return Growth(tuple(kind for kind in types if kind.most), most)


@lru_cache(maxsize=8)
def _autoscaler_file(gcs_address: str) -> Path | None:
    """The configuration that this machine's autoscaler of the cluster at ``gcs_address`` was started with."""
    port = gcs_address.rpartition(":")[2]
    for process in psutil.process_iter(["cmdline"]):
        words = cast("list[str]", process.info["cmdline"] or [])
        options = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
        own = any(word.endswith("monitor.py") for word in words[:4]) and "--autoscaling-config" in options
        if own and options.get("--gcs-address", "").rpartition(":")[2] == port:
            return Path(options["--autoscaling-config"]).expanduser()
    return None


def ask_for_nodes(need: Need, count: int, *, say: Callable[[str], None] = log.warning) -> None:
    """Return when the cluster has nodes for ``count`` processes, which it may have to start.

    Ray Train would wait for them without a word and without an end. Raises NoNodeError when the time for that is over.
    """
    if not need.comes or sum(fitting(node.total, need.resources) for node in present_nodes()) >= count:
        return
    group = placement_group([dict(need.resources)] * count)
    waiting = Waiting(need, say)
    try:
        while not group.wait(1):
            waiting.look(count, of=count)
        waiting.look(0, of=count)
    finally:
        remove_placement_group(group)


def instead(config: NodesConfig, error: NoNodeError, say: Callable[[str], None]) -> NodesConfig:
    """What applies after no node came: the nodes that are there, where the user allows that. Raises the error where not."""
    if config.otherwise == "end":
        raise error
    say(f"{error.waited}: going on with the nodes that are there, as nodes.otherwise says")
    return replace(config, most=0, offer="auto")


def remarks(name: str, training: NodesConfig, evaluation: NodesConfig) -> list[str]:
    """What a user must know of where a search named ``name`` will run: that it does not use GPUs which there could be."""
    lines: list[str] = []
    for work, config in (("training", training), ("evaluation", evaluation)):
        share = share_of(cast(Work, work), config)
        group, _ = _FLAGS[cast(Work, work)]
        whole = share if config.most != 0 else share_of(cast(Work, work), replace(config, most=None))
        if whole.accelerated and not share.accelerated:
            kinds = ", ".join(kind.name for kind in whole.growth.types if kind.resources.get("GPU")) if whole.growth else ""
            lines.append(
                f"{work} runs on the {share.cpus:g} processors that are there: {name} asks for no GPU nodes, though this "
                f"cluster can start some ({kinds}); --{group}.nodes.most, a number of processes, asks for them"
            )
        elif not share.accelerated and share.growth is None and not share.unknown and config.most != 0 and starts_nodes():
            lines.append(
                f"{work} runs on the {share.cpus:g} processors that are there: this cluster may start nodes, but its "
                f"configuration cannot be read here; --{group}.nodes.offer gpu and --{_FLAGS[cast(Work, work)][1]} ask for some"
            )
    return lines
