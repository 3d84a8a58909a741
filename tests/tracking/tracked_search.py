"""Candidates of a small made-up space, and what the store holds of a search."""

import math
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from raysearch.search.candidate import Candidate
from raysearch.search.protocol import Failure, Proposal, Result
from raysearch.space import Architecture
from raysearch.space.cost import Cost


@dataclass(frozen=True)
class StagedArchitecture(Architecture):
    """Scalars, numbers per block, a block left out, and a choice that has no mean."""

    embed_dim: int
    num_heads: tuple[int, ...]
    window: tuple[tuple[int | None, ...], ...]
    pooling: tuple[str, ...]

    @property
    def depth(self) -> int:
        return len(self.num_heads)


def arch(i: int) -> StagedArchitecture:
    return StagedArchitecture(64 + i, (3, 4), ((7, None), (14,)), ("avg", "max"))


def candidate(i: int) -> Candidate:
    """The ``i``-th candidate: every fifth from 4 on has failed, every third has a loss that is not finite."""
    parents = (arch(i - 1).id, arch(i - 2).id) if i > 1 else ()
    proposal = Proposal(arch(i), index=i, generation=i // 4, origin="crossover" if parents else "random", parents=parents)
    cost = Cost(params=1000 + i, macs=5000 + i)
    if i % 5 == 4:
        return Candidate(proposal, cost, Failure(f"evaluator lost: node {i}"))
    loss = math.inf if i % 3 == 2 else 0.25
    result = Result(score=0.5 + i / 100, items_seen=397, params=1000 + i, macs=5000 + i, loss=loss, seconds=2.5)
    return Candidate(proposal, cost, result)


def settings(uri: str, search_id: str) -> dict[str, Any]:
    return {"uri": uri, "experiment": "digits", "search_id": search_id, "run_name": "digits 1", "params": {"seed": 1}}


def children(uri: str, parent_id: str) -> list[Run]:
    client = MlflowClient(uri)
    parent = client.get_run(parent_id)
    return list(client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent_id}'"))
