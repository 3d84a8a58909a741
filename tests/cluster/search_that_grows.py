"""A driver on a cluster that has a head alone: nodes for training, then for a search. What it saw is its last line, as JSON."""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))

import ray
import toy

from raysearch.distributed.cluster import connected
from raysearch.distributed.evaluators import EvaluatorConfig, plan_evaluators
from raysearch.distributed.files import NodeFile, serve, share
from raysearch.distributed.growth import ask_for_nodes, remarks, share_of
from raysearch.distributed.scoring import ScoringService
from raysearch.distributed.search_run import SEARCH_SPLIT, SearchRun, run_search
from raysearch.nodes import NodesConfig
from raysearch.search import Failure, Part, Result
from raysearch.space import Architecture

NONE = NodesConfig(most=0)


class PlaceScorer:
    """Says how much of evaluation its node has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def score(self, arch: Architecture, images: NodeFile, part: Part | None = None) -> Result | Failure:
        node = ray.get_runtime_context().get_node_id()
        (self.folder / node).touch()
        time.sleep(0.2)  # so that one evaluator does not score all before the other is there
        found = toy.cost(arch)  # pyright: ignore[reportArgumentType]
        return Result(toy.toy_score(arch), 1, found.params, found.macs)


def kinds() -> dict[str, int]:
    """How many nodes there are for each kind of work."""
    nodes: list[dict[str, Any]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return {work: sum(work in node for node in nodes) for work in ("training", "evaluation")}


def main(address: str, folder: Path) -> None:
    said, seen = list[str](), dict[str, Any]()
    with connected(address):
        ray.cloudpickle.register_pickle_by_value(toy)
        seen["small"] = (
            plan_evaluators(EvaluatorConfig(nodes=NONE))[0],
            dict(plan_evaluators(EvaluatorConfig(nodes=NONE))[1].resources),
        )
        seen["remarks"] = remarks("digits", NONE, NONE)
        seen["at first"] = kinds()

        training = share_of("training")
        seen["training"] = training.wanted(training.asks(), given=None)
        ask_for_nodes(training.need("training process", training.asks()), seen["training"], say=said.append)
        seen["for training"] = kinds()

        places = folder / "places"
        places.mkdir()
        images = folder / "images"
        images.write_bytes(b"pixels")
        scorer = partial(PlaceScorer, places)
        with ScoringService(
            scorer, EvaluatorConfig(), name="pool", journal=folder / "journal", weights="w", say=said.append
        ) as service:
            service.add_images(SEARCH_SPLIT, share(images, server=serve()))
            service.wait_for(2)
            run = SearchRun(toy.evolution(), cost=toy.cost, known={}, on_candidate=lambda candidate: None)
            run_search(run, service)
        seen["scored"] = toy.ids([candidate.proposal.arch for candidate in run.candidates])
        with_mark = {node["NodeID"] for node in ray.nodes() if node["Resources"].get("evaluation")}
        seen["places"] = [path.name in with_mark for path in places.iterdir()]
        begun = time.monotonic()
        while any(kinds().values()) and time.monotonic() < begun + 120:
            time.sleep(0.5)
        seen["at last"] = kinds()
    print(json.dumps({**seen, "said": said}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
