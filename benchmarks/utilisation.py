"""How busy many evaluators are when their scores take different times: generations beside searches without a barrier.

Real Tune, a real pool and 64 real actors, whose scores are naps: a search of 64 GPUs on one small machine. A nap's length grows
with the subnet, as a forward pass does, and half of it again is chance, as on machines that are not alike.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import uuid
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

import tyro
from rich.console import Console
from shared import console, print_heading, table

from raysearch.distributed.cluster import connected
from raysearch.distributed.evaluators import EvaluatorConfig
from raysearch.distributed.files import NodeFile, serve, share
from raysearch.distributed.growth import share_of
from raysearch.distributed.scoring import ScoringService
from raysearch.distributed.search_run import SEARCH_SPLIT, SearchRun, run_search
from raysearch.distributed.usage import Usage
from raysearch.search import (
    AgeingConfig,
    AlgorithmConfig,
    EvolutionConfig,
    Failure,
    Part,
    PredictorConfig,
    Result,
    SearchProblem,
    make_algorithm,
)
from raysearch.space import Architecture, Choice, SearchSpace
from raysearch.space.cost import Constraint, Cost

STEADY = (0.15, 0.85)
"""Part of a search that counts: without its start, when evaluators get their first candidate, and its end."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of the measurements."""

    evaluators: int = 64
    """Simulated: each is an actor that sleeps."""
    seconds: float = 4.0
    """Median length of a score. With 64 evaluators, 16 candidates a second: less than the driver can hand over."""
    rounds: int = 10
    """Candidates of each search for each evaluator."""
    quick: bool = False
    """A few candidates on a few evaluators: shows that the script works."""


@dataclass(frozen=True, slots=True)
class Network(Architecture):
    """A transformer as far as time goes: an evaluator that knows the real ones would import PyTorch, 64 times 350 MiB."""

    embed_dim: int
    mlp_ratio: tuple[float, ...]

    @property
    def depth(self) -> int:
        """Blocks."""
        return len(self.mlp_ratio)


SPACE = SearchSpace(
    Network,
    [Choice("embed_dim", (192, 216, 240)), Choice("mlp_ratio", (3.0, 3.5, 4.0), per="block")],
    depth=(12, 13, 14),
)


def cost(network: Network) -> Cost:
    """Parameters of the blocks; as many multiply-accumulates for each of 197 tokens."""
    params = sum(round((4 + 2 * ratio) * network.embed_dim**2) for ratio in network.mlp_ratio)
    return Cost(params, 197 * params)


MEDIAN_PARAMS = statistics.median(cost(SPACE.sample(Random(i))).params for i in range(101))


def nap(network: Network, seconds: float) -> float:
    """How long its score takes: in proportion to its parameters, times 0.75 to 1.25 by chance of its own."""
    return seconds * cost(network).params / MEDIAN_PARAMS * Random(network.id).uniform(0.75, 1.25)


class Sleeper:
    """Knows every score after a nap."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def score(self, arch: Network, images: NodeFile, part: Part | None = None) -> Result | Failure:
        """A score between 0 and 1 that grows a little with the subnet."""
        time.sleep(nap(arch, self.seconds))
        params = cost(arch).params
        return Result(0.9 + 1e-9 * params + 0.01 * Random(f"{arch.id}/score").random(), 10_000, params, 197 * params)


def searches(settings: Settings) -> dict[str, AlgorithmConfig]:
    """Algorithms with about the same number of candidates, by what the table calls them."""
    total, n = settings.rounds * settings.evaluators, settings.evaluators

    def evolution(population: int) -> EvolutionConfig:
        half = population // 2
        return EvolutionConfig(population, max(2, total // population), mutations=half, crossovers=population - half)

    def ageing(look_ahead: int) -> AgeingConfig:
        return AgeingConfig(total, population=min(100, total), look_ahead=look_ahead)

    chosen: dict[str, AlgorithmConfig] = {
        "evolution, 50 per generation (published)": evolution(min(50, total // 2)),
        f"evolution, {2 * n} per generation": evolution(2 * n),
        "predictor, 25 per generation (default)": PredictorConfig(25, max(2, total // 25), inner_generations=2),
        f"predictor, {2 * n} per generation": PredictorConfig(2 * n, max(2, total // (2 * n)), inner_generations=2),
        f"predictor, {n} per generation, one ahead": PredictorConfig(n, max(2, total // n), ahead=1, inner_generations=2),
        **{f"ageing, look-ahead {k * n}": ageing(k * n) for k in (1, 2, 3)},
    }
    return {label: chosen[label] for label in [*chosen][::5]} if settings.quick else chosen


def measured(settings: Settings, config: AlgorithmConfig, folder: Path) -> Usage:
    """How the evaluators spent the steady part of one search."""
    name = f"pool-{uuid.uuid4().hex[:8]}"
    problem = SearchProblem(SPACE, cost, Constraint())
    share_of_node = share_of("evaluation").cpus / settings.evaluators
    evaluators = EvaluatorConfig(cpus=share_of_node, max_evaluators=settings.evaluators)
    images = folder / "images"
    images.write_bytes(b"pixels")
    scorer = partial(Sleeper, settings.seconds)
    with ScoringService(scorer, evaluators, name=name, journal=folder / f"{name}.jsonl", weights="none") as service:
        service.add_images(SEARCH_SPLIT, share(images, server=serve()))
        service.wait_for(settings.evaluators)  # 64 processes start slowly on two cores, which is not what is asked here
        algorithm = make_algorithm(config, problem, seed=0)
        run_search(SearchRun(algorithm, cost=cost, known={}, on_candidate=lambda _: None), service)
        usage = service.usage(SEARCH_SPLIT, part=STEADY)
    assert usage is not None
    return usage


def main(settings: Settings) -> None:
    """Measure every search once."""
    if settings.quick:
        settings = replace(settings, evaluators=4, seconds=0.05, rounds=3)
    screen: Console = console()
    print_heading(screen, f"Utilisation: {settings.evaluators} evaluators whose scores take different times")
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory(prefix="raysearch-benchmark-") as folder, connected("local"):
        for label, config in searches(settings).items():
            usage = measured(settings, config, Path(folder))
            rows.append([label, f"{usage.evaluators}", f"{usage.busy:.3f}", f"{usage.waiting_at_barrier:.3f}"])
    rows.append(["goal", "", "0.95", ""])
    caption = (
        f"Shares of the evaluators' time in the steady part ({STEADY[0]:.0%} to {STEADY[1]:.0%}) of a search of about "
        f"{settings.rounds * settings.evaluators} candidates; scores sleep {settings.seconds} s in the median. Waiting: "
        "free, and the algorithm asks nothing before it hears results."
    )
    screen.print(table("Share of time", ["", "evaluators", "busy", "waiting for results"], rows, caption=caption))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
