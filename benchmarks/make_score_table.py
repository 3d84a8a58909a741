"""Scores a fixed table of subnets once, so that searches can be replayed on it (benchmarks/algorithms.py).

Trains a small supernet on Fashion-MNIST with a tiny search of its own, then scores random and structured subnets of its band,
and then neighbours of the best so far, all on the same images with the search's own evaluators. The journal in the output
folder lets an interrupted run continue.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

import torch
import tyro
from rich.console import Console
from score_tables import ScoreTable
from shared import console, machine, versions

from raysearch.distributed.cluster import connected
from raysearch.distributed.evaluators import EvaluatorConfig
from raysearch.distributed.files import content_digest, serve, share
from raysearch.distributed.scoring import ScoringService
from raysearch.distributed.supernet_scorer import SupernetScorer
from raysearch.jobs.plan import SearchCommand, plan_search
from raysearch.jobs.progress import phase
from raysearch.jobs.search import run
from raysearch.recipes.autoformer import FASHION_MNIST_RECIPE, Search
from raysearch.recipes.recipe import ReportConfig
from raysearch.scoring.proxies import PROXIES
from raysearch.search import EvolutionConfig, Result, SearchProblem
from raysearch.search.settings import redraw_rates
from raysearch.space.cost import Constraint
from raysearch.spaces.autoformer import FAMILY, AutoFormerArchitecture, AutoFormerConfig, SpaceConfig
from raysearch.tasks.images.cache import open_cache
from raysearch.training.supernets import build_supernet, read_supernet

RECIPE = replace(
    FASHION_MNIST_RECIPE,
    task=replace(
        FASHION_MNIST_RECIPE.task, dataset=replace(FASHION_MNIST_RECIPE.task.dataset, search_images=1000, finalist_images=0)
    ),
    config=AutoFormerConfig(
        SpaceConfig(embed_dim=(32, 48, 64), num_heads=(1, 2, 3, 4), mlp_ratio=(1.0, 2.0, 3.0, 4.0), depth=(3, 4, 5, 6)),
        replace(FASHION_MNIST_RECIPE.config.net, patch_size=7, embed_dim=64, head_dim=16, max_relative_position=3),
    ),
    train=replace(FASHION_MNIST_RECIPE.train, epochs=5, batch_size=128, lr=2e-3, warmup_epochs=1, drop_path=0.0),
    constraint=Constraint(min_params=80e3, max_params=110e3),
    algorithm="evolution",
    search=EvolutionConfig(generations=1),
    report=ReportConfig(random_subnets=0),
)
"""53,686,272 subnets of 16 patches each: small enough that two cores train the supernet and score 3,000 of them in minutes."""

ROUNDS = 4
"""Rounds of neighbours; each starts from half as many of the best as the one before."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes, and where files are."""

    output: Path = Path("runs/score-table")
    """Folder of the supernet's own search and of the journal."""
    supernet: Path | None = None
    """A supernet that an earlier run trained."""
    table: Path = Path("benchmarks/fashion_table.parquet")
    """File that is written."""
    random: int = 1_500
    """Random subnets of the band."""
    structured: int = 500
    """Subnets whose two halves are uniform."""
    neighbours: int = 1_000
    """Neighbours of the best: one or two decisions redrawn."""
    proxy_images: int = 64
    """Batch of the zero-cost proxies."""
    proxy_subnets: int = 500
    """So many of the random subnets have proxies."""
    quick: bool = False
    """Next to no training and few subnets: shows that the script works."""


def structured(problem: SearchProblem[AutoFormerArchitecture], space: SpaceConfig, count: int) -> list[AutoFormerArchitecture]:
    """Members of the band with one number of heads and one ratio in the first half of the blocks, and one in the second."""
    heads, ratios = itertools.product(space.num_heads, repeat=2), itertools.product(space.mlp_ratio, repeat=2)
    found: list[AutoFormerArchitecture] = []
    for width, depth, (h1, h2), (r1, r2) in itertools.product(space.embed_dim, space.depth, list(heads), list(ratios)):
        first = depth // 2
        arch = AutoFormerArchitecture(width, (h1,) * first + (h2,) * (depth - first), (r1,) * first + (r2,) * (depth - first))
        if problem.in_band(arch):
            found.append(arch)
    Random("structured").shuffle(found)
    return found[:count]


def neighbours(
    problem: SearchProblem[AutoFormerArchitecture],
    known: dict[AutoFormerArchitecture, Result],
    parents: Sequence[AutoFormerArchitecture],
    count: int,
) -> list[AutoFormerArchitecture]:
    """So many new members of the band, each a few redrawn decisions from one of ``parents``."""
    rng, rates = Random(f"neighbours/{len(known)}"), redraw_rates(problem.space, 2.0)
    found: dict[AutoFormerArchitecture, None] = {}
    for _ in range(200 * count):
        arch = problem.space.mutate(rng.choice(parents), rng, rates)
        if arch not in known and problem.in_band(arch):
            found[arch] = None
        if len(found) == count:
            break
    return list(found)


def main(settings: Settings) -> None:
    """Train or read the supernet, score, compute the proxies, write the table."""
    screen, recipe = console(), RECIPE
    if settings.quick:
        settings = replace(settings, random=12, structured=4, neighbours=8)
        recipe = replace(
            recipe,
            task=replace(recipe.task, dataset=replace(recipe.task.dataset, search_images=100)),
            train=replace(recipe.train, epochs=1, batch_size=2048),
            search=EvolutionConfig(population=4, generations=1, parents=2, mutations=1, crossovers=1),
        )
    weights = settings.supernet or settings.output / "supernet.safetensors"
    if settings.supernet is None:
        command = SearchCommand(recipe, output=settings.output, resume=settings.output.exists())
        run(command, line="benchmarks/make_score_table.py", console=screen)
    settings.output.mkdir(parents=True, exist_ok=True)
    table = scored(settings, recipe, weights, screen)
    settings.table.parent.mkdir(parents=True, exist_ok=True)
    table.write(settings.table)
    best = max(r.score for r in table.results)
    screen.print(f"{len(table.archs):,} subnets, best score {best:.2%} -> {settings.table}", highlight=False)


def scored(settings: Settings, recipe: Search, weights: Path, screen: Console) -> ScoreTable[AutoFormerArchitecture]:
    """The table: every subnet on all search images."""
    plan = plan_search(SearchCommand(recipe, supernet=weights))
    problem = plan.problem
    cache = settings.output / "table-search.arrow"
    recipe.task.write_cache(plan.splits.search, cache)
    config = EvaluatorConfig(batch_size=500)
    results: dict[AutoFormerArchitecture, Result] = {}
    origins: dict[AutoFormerArchitecture, str] = {}
    total = settings.random + settings.structured + settings.neighbours
    with connected(None), phase(screen, "score", total) as shown:
        server = serve()
        shared = share(weights, server=server)
        service = ScoringService(
            partial(SupernetScorer, shared, family=FAMILY, task=recipe.task, config=config),
            config,
            name="score-table",
            journal=settings.output / "table.jsonl",
            weights=shared.digest,
        )
        with service:
            service.add_images("search", share(cache, server=server))

            def score(archs: Sequence[AutoFormerArchitecture], origin: str) -> None:
                for arch, outcome in service.score("search", archs):
                    assert isinstance(outcome, Result), outcome
                    results[arch], origins[arch] = outcome, origin
                    shown.show(len(results), step=origin, best=f"best {max(r.score for r in results.values()):.2%}")

            score(structured(problem, recipe.config.space, settings.structured), "structured")
            drawn: dict[AutoFormerArchitecture, None] = {}
            for i in range(settings.random):
                arch = problem.sample(Random(f"table/{i}"), {**results, **drawn})
                assert arch is not None, "the band holds fewer subnets than asked for"
                drawn[arch] = None
            score(list(drawn), "random")
            for n in range(ROUNDS):
                best = sorted(results, key=lambda arch: (-results[arch].score, results[arch].loss))
                score(neighbours(problem, results, best[: 80 >> n], settings.neighbours // ROUNDS), "neighbour")
    random = [arch for arch, origin in origins.items() if origin == "random"][: settings.proxy_subnets]
    values = proxy_values(random, settings, recipe, weights, cache, screen)
    proxies = {name: tuple(column.get(arch) for arch in results) for name, column in values.items()}
    training = settings.output / "training.json"
    about = {
        "recipe": recipe.to_dict(),
        "splits": plan.splits.digest,
        "supernet": content_digest(weights),
        "training": json.loads(training.read_text())["history"] if training.exists() else None,
        "command": ".venv/bin/python benchmarks/make_score_table.py",
        "machine": machine().partition("; load")[0],
        "versions": versions(),
    }
    return ScoreTable(tuple(results), tuple(origins.values()), tuple(results.values()), proxies, about)


def proxy_values(
    archs: Sequence[AutoFormerArchitecture],
    settings: Settings,
    recipe: Search,
    weights: Path,
    cache: Path,
    screen: Console,
) -> dict[str, dict[AutoFormerArchitecture, float]]:
    """Each proxy of each subnet, with trained weights and with fresh ones, on the first of the search images."""
    torch.set_num_threads(1)  # matrices this small are slower on two
    trained, held = read_supernet(weights, FAMILY), open_cache(cache)
    how = {"weight_init": recipe.train.weight_init, "pos_embed_std": recipe.train.pos_embed_std, "seed": recipe.seed}
    supernets = {"trained": trained.build(), "fresh": build_supernet(trained.family, trained.settings, **how)}
    images = recipe.task.normalise(torch.from_numpy(held.images[: settings.proxy_images].copy()))
    labels = torch.from_numpy(held.labels[: settings.proxy_images].copy())
    values: dict[str, dict[AutoFormerArchitecture, float]] = {f"{p}, {s}": {} for s in supernets for p in PROXIES}
    with phase(screen, "proxies", len(archs)) as shown:
        for i, arch in enumerate(archs):
            for which, supernet in supernets.items():
                subnet = supernet.extract(arch).eval()
                for name, proxy in PROXIES.items():
                    values[f"{name}, {which}"][arch] = proxy(subnet, images, labels)
            shown.show(i + 1, step="subnets")
    return values


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
