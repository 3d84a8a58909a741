"""A space without a network, scored by arithmetic: what the search's machinery is tested with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ray

from raysearch.distributed.files import NodeFile
from raysearch.search import Evolution, EvolutionConfig, Failure, Part, Result, SearchProblem
from raysearch.space import Architecture, Choice, SearchSpace
from raysearch.space.cost import Constraint, Cost


@dataclass(frozen=True, slots=True)
class ToyArchitecture(Architecture):
    width: int
    heads: tuple[int, ...]

    @property
    def depth(self) -> int:
        return len(self.heads)


SPACE = SearchSpace(
    ToyArchitecture, [Choice("heads", (1, 2, 3, 4), per="block"), Choice("width", (8, 16, 24))], depth=(2, 3, 4)
)


def cost(arch: ToyArchitecture) -> Cost:
    return Cost(params=arch.width * sum(arch.heads), macs=arch.width * sum(arch.heads))


def toy_score(arch: Architecture) -> float:
    assert isinstance(arch, ToyArchitecture)
    return sum((-1) ** i * h for i, h in enumerate(arch.heads)) + arch.width / 100


def evolution(*, population: int = 8, generations: int = 3, seed: int = 0) -> Evolution[ToyArchitecture]:
    config = EvolutionConfig(
        population=population, generations=generations, parents=4, mutations=population // 2, crossovers=population // 4
    )
    return Evolution(SearchProblem(SPACE, cost, Constraint()), config, seed=seed)


class CountingScorer:
    """Writes down which process scored what; at each of its calls waits until all ``together`` evaluators are at that call."""

    def __init__(self, folder: Path, *, together: int, rendezvous: ray.actor.ActorHandle | None) -> None:
        self.folder, self.together, self.rendezvous = folder, together, rendezvous
        self.calls = 0

    def score(self, arch: Architecture, images: NodeFile, part: Part | None = None) -> Result | Failure:
        self.calls += 1
        if self.rendezvous is not None:
            ray.get(self.rendezvous.meet.remote(self.calls))
        with (self.folder / f"{os.getpid()}").open("a") as file:
            file.write(f"{arch.id}\n")
        arch_cost = cost(arch)  # pyright: ignore[reportArgumentType]
        return Result(score=toy_score(arch), items_seen=1, params=arch_cost.params, macs=arch_cost.macs)


def counted(folder: Path) -> dict[str, list[str]]:
    """Ids scored by each process."""
    return {path.name: path.read_text().split() for path in folder.iterdir()}


def ids(archs: Sequence[Architecture]) -> list[str]:
    return [arch.id for arch in archs]
