"""What is asked for, and what follows from it before anything is computed."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import tyro

from raysearch.jobs.proxy_start import ProxyStart
from raysearch.recipes.recipe import Recipe
from raysearch.scoring.latency import LatencyTable
from raysearch.scoring.proxies import PROXIES
from raysearch.search import SearchProblem
from raysearch.space.cost import Cost
from raysearch.spaces.autoformer import AutoFormerArchitecture, AutoFormerGeometry
from raysearch.store.candidates import CANDIDATES
from raysearch.store.warm_start import best_of_search, listed_architectures
from raysearch.tasks.images.datasets import load_splits
from raysearch.tasks.images.splits import Splits
from raysearch.tracking import artifact_of_run, default_uri
from raysearch.training.supernets import SupernetFile, read_supernet


@dataclass(frozen=True, slots=True)
class SearchCommand:
    """One search from images to champion, as the command line gives it."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    output: Path | None = None
    """Folder for all results. Default: a new one, runs/RECIPE-DATE-TIME; with --resume the newest of this recipe."""
    resume: bool = False
    """Continue the search in the output folder where it stopped."""
    data: Path | None = None
    """Folder of the images, for the recipes that need one."""
    supernet: Path | None = None
    """A trained supernet: our own checkpoint or a published AutoFormer file. Training is skipped."""
    warm_start: str | None = None
    """Start with the best of an earlier search: its folder, its candidates.parquet, its MLflow run id, or a JSON list; or with
    what a zero-cost proxy likes of random subnets: snip, dss or grad_norm."""
    warm_start_count: int = 10
    """How many of them."""
    tracking_uri: str | None = None
    """MLflow store. Default: MLFLOW_TRACKING_URI, or SQLite beside the output folders."""
    ray_address: str | None = None
    """Ray cluster. Default: Ray's own rule, a cluster that runs on this node or else a new one on this machine."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What follows from the command before anything is computed."""

    recipe: Recipe
    splits: Splits
    settings: dict[str, Any]
    """Constructor arguments of the supernet."""
    problem: SearchProblem[AutoFormerArchitecture]
    given: SupernetFile | None
    geometry: AutoFormerGeometry
    initial: tuple[AutoFormerArchitecture, ...] = ()
    """Architectures that open the search."""
    proxy: ProxyStart | None = None
    """Who named them, where that was a proxy."""
    latency: LatencyTable | None = None
    """What predicts latency, where it is asked for; fitted before anything else is computed."""

    def with_latency(self, table: LatencyTable) -> Plan:
        """The same plan, in which every cost has its predicted latency.

        Raises InfeasibleError when no subnet keeps the limit.
        """

        def cost(arch: AutoFormerArchitecture) -> Cost:
            predicted = table.predict(self.geometry.latency_features(arch))
            return replace(self.geometry.cost(arch), latency_ms=predicted)

        problem = SearchProblem(self.problem.space, cost, self.problem.constraint)
        problem.check()
        return replace(self, problem=problem, latency=table)


def plan_search(command: SearchCommand) -> Plan:
    """Check a command against its images, files and budget. Raises ValueError, in one line with the remedy."""
    recipe = command.recipe
    if recipe.racing.enabled and recipe.algorithm not in ("evolution", "ageing"):
        raise ValueError(
            f"racing.enabled does not fit algorithm {recipe.algorithm}, which needs the whole score of every candidate; "
            "choose algorithm evolution or ageing"
        )
    if command.data is not None:
        recipe = replace(recipe, dataset=replace(recipe.dataset, root=command.data))
    splits = load_splits(recipe.dataset, seed=recipe.seed)
    geometry = recipe.net.geometry(recipe.dataset, num_classes=len(splits.classes))
    settings = {**geometry.settings(), "drop_path_rate": recipe.train.drop_path}
    given = None
    if command.supernet is not None:
        given = read_supernet(command.supernet)
        sizes = geometry.settings()
        if differing := [name for name, size in sizes.items() if given.settings.get(name) != size]:
            pairs = ", ".join(f"{name} {given.settings.get(name)} instead of {sizes[name]}" for name in differing)
            raise ValueError(f"--supernet {command.supernet} does not fit the recipe {recipe.name}: {pairs}")
        if given.images not in (None, splits.digest):
            raise ValueError(
                f"--supernet {command.supernet} was trained on other images, or on another division of these: it may know "
                "search and test images of this search; repeat the --seed, --data and --dataset flags of its training"
            )
    space = recipe.space.build()
    geometry.check(space.largest())
    problem = SearchProblem(space, geometry.cost, recipe.constraint)
    problem.check()
    if (images := recipe.finalists.search_images) is not None and images > len(splits.search):
        raise ValueError(f"finalists.search-images is {images}, the search split has {len(splits.search)}; give fewer or none")
    plan = Plan(recipe, splits, settings, problem, given, geometry)
    if command.warm_start is None:
        return plan
    if command.warm_start_count < 1:
        raise ValueError(f"--warm-start-count is {command.warm_start_count}, must be at least 1")
    if command.warm_start in PROXIES:
        proxy = ProxyStart(
            command.warm_start,
            settings=settings,
            train=recipe.train,
            data=recipe.dataset,
            images=splits.train,
            seed=recipe.seed,
        )
        return replace(plan, initial=proxy.best(problem, count=command.warm_start_count), proxy=proxy)
    return replace(plan, initial=_initial(command, command.warm_start, problem))


def _initial(
    command: SearchCommand, source: str, problem: SearchProblem[AutoFormerArchitecture]
) -> tuple[AutoFormerArchitecture, ...]:
    """What ``--warm-start`` names, best first. Raises ValueError when that is nothing which this search can use."""
    count, path = command.warm_start_count, Path(source)
    if path.suffix == ".json":
        return listed_architectures(path, problem)[:count]
    with tempfile.TemporaryDirectory(prefix="raysearch-") as folder:
        if not path.exists() and re.fullmatch("[0-9a-f]{32}", source):
            uri = command.tracking_uri or default_uri(output_path(command).absolute().parent)
            path = artifact_of_run(uri, source, CANDIDATES, folder=Path(folder))
        found = best_of_search(path / CANDIDATES if path.is_dir() else path, problem, count=count).architectures
    if not found:
        raise ValueError(f"--warm-start {source} has no scored candidate inside this space and {problem.constraint}")
    return found


def output_path(command: SearchCommand) -> Path:
    """The folder for a command's results. Raises ValueError when there is nothing to resume."""
    if command.output is not None:
        return command.output
    name = command.recipe.name
    if command.resume:
        earlier = sorted(p.parent for p in Path("runs").glob(f"{name}-*/config.json"))
        if not earlier:
            raise ValueError(f"--resume: there is no search of {name} in runs/; name its folder with --output")
        return earlier[-1]
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"  # local time: a person reads it
