"""The main job, phase by phase: images, supernet, search, closing report. Each phase continues where a killed run stopped."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import statistics
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Annotated, Any

import tyro
from rich.console import Console

from raysearch.data.cache import write_cache
from raysearch.data.datasets import load_splits
from raysearch.data.splits import Splits
from raysearch.data.transforms import Normalisation
from raysearch.distributed.cluster import connected
from raysearch.distributed.evaluators import SupernetScorer
from raysearch.distributed.files import serve, share
from raysearch.distributed.journal import Journal
from raysearch.distributed.scoring import ScoringService
from raysearch.distributed.searcher import SEARCH_SPLIT, SearchRun, run_search
from raysearch.distributed.training import TrainingJob, train_supernet, trained_weights
from raysearch.evaluation import Classification
from raysearch.export import save_subnet
from raysearch.output import OutputFolder, open_folder, read_json, write_json
from raysearch.progress import phase
from raysearch.recipes import Recipe
from raysearch.report import closing_table, write_report
from raysearch.search import (
    Candidate,
    Evolution,
    RandomConfig,
    RandomSearch,
    Result,
    SearchAlgorithm,
    SearchProblem,
    champion,
    pareto_front,
    write_candidates,
)
from raysearch.spaces.autoformer import AutoFormerArchitecture, AutoFormerGeometry
from raysearch.tracking import Tracker, default_uri, ui_command, ui_url, without_password
from raysearch.training import checkpoint
from raysearch.training.supernets import SupernetFile, read_supernet

TEST_SPLIT = "test"


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
    tracking_uri: str | None = None
    """MLflow store. Default: MLFLOW_TRACKING_URI, or SQLite beside the output folders."""
    ray_address: str | None = None
    """Ray cluster. Default: Ray's own rule, a cluster that runs on this node or else a new one on this machine."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What follows from the command before anything is computed."""

    recipe: Recipe
    splits: Splits
    geometry: AutoFormerGeometry
    settings: dict[str, Any]
    """Constructor arguments of the supernet."""
    problem: SearchProblem[AutoFormerArchitecture]
    given: SupernetFile | None


def run(command: SearchCommand, *, line: str, console: Console) -> dict[str, Any]:
    """Run or continue a search; returns what ``summary.json`` holds.

    Raises ValueError, in one line with the remedy, for what the user can mend; nothing of an earlier search is changed then.
    """
    started = time.perf_counter()
    plan = _plan(command)
    recipe = plan.recipe
    output = _output(command)
    config = {
        "command": line,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": {
            **recipe.to_dict(),
            "images": plan.splits.digest[:12],
            "supernet": None if command.supernet is None else _digest(command.supernet)[:12],
        },
    }
    with open_folder(output, config, resume=command.resume) as folder:
        if folder.finished:
            summary = read_json(folder.summary)
            console.print(f"{folder.path} is finished already:")
            _close(summary, folder, console)
            return summary
        _check_held(folder)
        uri = command.tracking_uri or default_uri(output.absolute().parent)
        with (
            Tracker(
                uri=uri,
                experiment=recipe.name,
                search_id=folder.search_id,
                run_name=output.name,
                params=_flat({**recipe.to_dict(), "command": folder.config["command"]}),
            ) as tracker,
            connected(command.ray_address),
        ):
            console.print(
                f"{recipe.name}: {plan.problem.space.size():,} subnets, {plan.problem.constraint}; "
                f"{len(plan.splits.train):,} images to train, {len(plan.splits.search):,} to search, "
                f"{len(plan.splits.test):,} to test  ->  {output}",
                highlight=False,
                soft_wrap=True,
            )
            folder.add_seconds("prepare", time.perf_counter() - started)
            history = _train(plan, folder, tracker, console)
            summary = _search_and_report(plan, folder, tracker, console, history=history, line=line)
        folder.finish()
    _close(summary, folder, console)
    return summary


# --- before anything is computed --------------------------------------------------------------------------------------


def _plan(command: SearchCommand) -> _Plan:
    recipe = command.recipe
    if command.data is not None:
        recipe = replace(recipe, dataset=replace(recipe.dataset, root=command.data))
    splits = load_splits(recipe.dataset, seed=recipe.seed)
    geometry = recipe.net.geometry(recipe.dataset, num_classes=len(splits.classes))
    settings = {**_sizes(geometry), "drop_path_rate": recipe.train.drop_path}
    given = None
    if command.supernet is not None:
        given = read_supernet(command.supernet)
        held = AutoFormerGeometry(**{k: v for k, v in given.settings.items() if k != "drop_path_rate"})
        if differing := [k for k, v in _sizes(held).items() if v != _sizes(geometry)[k]]:
            pairs = ", ".join(f"{k} {_sizes(held)[k]} instead of {_sizes(geometry)[k]}" for k in differing)
            raise ValueError(f"--supernet {command.supernet} does not fit the recipe {recipe.name}: {pairs}")
    space = recipe.space.build()
    geometry.check(space.largest())
    problem = SearchProblem(space, geometry.cost, recipe.constraint)
    problem.check()
    return _Plan(recipe, splits, geometry, settings, problem, given)


def _sizes(geometry: AutoFormerGeometry) -> dict[str, Any]:
    return {name: getattr(geometry, name) for name in geometry.__dataclass_fields__}


def _output(command: SearchCommand) -> Path:
    if command.output is not None:
        return command.output
    name = command.recipe.name
    if command.resume:
        earlier = sorted(p.parent for p in Path("runs").glob(f"{name}-*/config.json"))
        if not earlier:
            raise ValueError(f"--resume: there is no search of {name} in runs/; name its folder with --output")
        return earlier[-1]
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"  # local time: a person reads it


def _check_held(folder: OutputFolder) -> None:
    """Raises ValueError for a damaged file of an earlier run, before anything is computed or recorded."""
    _ = folder.seconds
    if folder.supernet.exists():
        read_supernet(folder.supernet)
        read_json(folder.path / "training.json")
        if folder.journal.exists():
            Journal(folder.journal, weights=_digest(folder.supernet)).close()
    elif folder.journal.exists():
        raise ValueError(
            f"{folder.supernet} is missing, whose scores {folder.journal} holds; restore it or choose another --output"
        )
    elif folder.training.exists():
        checkpoint.read(folder.training)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flat(values: dict[str, Any], place: str = "") -> dict[str, object]:
    """Nested settings as ``train.epochs``: names that MLflow's tables show well."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{place}{name}.") if isinstance(value, dict) else {place + name: value}
    return flat


@contextmanager
def _timed(folder: OutputFolder, name: str) -> Generator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        folder.add_seconds(name, time.perf_counter() - started)


# --- the supernet -----------------------------------------------------------------------------------------------------


def _train(plan: _Plan, folder: OutputFolder, tracker: Tracker, console: Console) -> list[dict[str, Any]]:
    """Leave the supernet in the folder. Returns the records of its epochs; none for a given supernet."""
    recipe = plan.recipe
    epochs = folder.path / "training.json"
    if folder.supernet.exists():
        history = read_json(epochs)["history"]
    elif plan.given is not None:
        history = []
        write_json(epochs, {"history": history})
        plan.given.write(folder.supernet)
    else:
        with _timed(folder, "train"), phase(console, "train", recipe.train.epochs) as shown:
            job = TrainingJob(
                family="autoformer",
                settings=plan.settings,
                space=plan.problem.space,
                data=recipe.dataset,
                augment=recipe.augment,
                train=recipe.train,
                task=Classification(label_smoothing=recipe.train.label_smoothing),
                seed=recipe.seed,
                images=plan.splits.digest,
            )
            records = train_supernet(
                job,
                folder.training,
                on_epoch=lambda r: shown.show(
                    r.epoch + 1, step=f"epoch {r.epoch + 1}/{recipe.train.epochs}", best=f"loss {r.loss:.3f}"
                ),
            )
        history = [r.to_dict() for r in records]
        write_json(epochs, {"history": history})
        SupernetFile("autoformer", plan.settings, trained_weights(folder.training)).write(folder.supernet)
        folder.training.unlink()
    for r in history:
        tracker.log_metrics({"train/loss": r["loss"], "train/lr": r["lr"]}, step=r["epoch"])
    return history


# --- the search and its report ----------------------------------------------------------------------------------------


def _algorithm(plan: _Plan) -> SearchAlgorithm:
    recipe = plan.recipe
    if recipe.algorithm == "random":
        candidates = recipe.search.population * recipe.search.generations
        return RandomSearch(plan.problem, RandomConfig(candidates, recipe.search.population), seed=recipe.seed)
    return Evolution(plan.problem, recipe.search, seed=recipe.seed)


def _search_and_report(
    plan: _Plan, folder: OutputFolder, tracker: Tracker, console: Console, *, history: list[dict[str, Any]], line: str
) -> dict[str, Any]:
    recipe = plan.recipe
    normalise = Normalisation(recipe.dataset.mean, recipe.dataset.std)
    server = serve()
    weights = share(folder.supernet, server=server)
    make_scorer = partial(SupernetScorer, weights, task=Classification(), normalise=normalise, config=recipe.evaluators)
    with ScoringService(
        make_scorer,
        recipe.evaluators,
        name=f"pool-{folder.search_id}",
        journal=folder.journal,
        weights=weights.digest,
    ) as service:
        with _timed(folder, "search"):
            cache = folder.path / "cache" / "search.arrow"
            write_cache(plan.splits.search, cache, recipe.dataset)
            service.add_images(SEARCH_SPLIT, share(cache, server=server))
            candidates = _search(plan, folder, tracker, console, service)
        with _timed(folder, "report"):
            best = champion(candidates)
            write_candidates(folder.path / "candidates.parquet", candidates)
            write_json(folder.path / "front.json", [c.row() for c in pareto_front(candidates)])
            # Only here, when the choice is made, are the test images read.
            cache = folder.path / "cache" / "test.arrow"
            write_cache(plan.splits.test, cache, recipe.dataset)
            service.add_images(TEST_SPLIT, share(cache, server=server))
            networks = _networks(plan, best, service, console)
    supernet = read_supernet(folder.supernet).build()
    arch = best.proposal.arch
    card = {
        **networks["champion"],
        "classes": list(plan.splits.classes),
        "preprocessing": {
            "img_size": recipe.dataset.img_size,
            "in_chans": recipe.dataset.in_chans,
            "mean": recipe.dataset.mean,
            "std": recipe.dataset.std,
            "interpolation": recipe.dataset.interpolation,
            "crop_pct": recipe.dataset.crop_pct,
        },
        "search_id": folder.search_id,
    }
    settings = {name: value for name, value in plan.settings.items() if name != "drop_path_rate"}
    save_subnet(
        folder.path / "champion.json",
        supernet.extract(arch),
        family="autoformer",
        settings=settings,
        card=card,
    )
    failed = sum(c.result is None for c in candidates)
    summary: dict[str, Any] = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "command": line,
        "constraint": str(plan.problem.constraint),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "search_id": folder.search_id,
        "mlflow_run_id": tracker.run_id,
        "mlflow_uri": without_password(tracker.uri),
        "mlflow_experiment_id": tracker.experiment_id,
        "counts": {
            "candidates": len(candidates),
            "scored": len(candidates) - failed,
            "failed": failed,
            "generations": 1 + max(c.proposal.generation for c in candidates),
            "train_images": len(plan.splits.train),
            "search_images": len(plan.splits.search),
            "test_images": len(plan.splits.test),
        },
        "seconds": folder.seconds,
        "networks": networks,
        "training": {"epochs": len(history), "history": history},
        "versions": _versions(),
    }
    write_json(folder.summary, summary)
    write_report(folder.path)
    for name in ("report.html", "candidates.parquet", "front.json", "champion.json", "champion.safetensors", "config.json"):
        tracker.log_artifact(folder.path / name)
    tracker.log_metrics(
        {f"{which}/{key}": networks[which][key] for which in networks for key in ("score", "test_score", "params", "macs")},
        step=0,
    )
    return summary


def _search(
    plan: _Plan, folder: OutputFolder, tracker: Tracker, console: Console, service: ScoringService
) -> Sequence[Candidate]:
    recipe = plan.recipe
    algorithm = _algorithm(plan)
    best = [float("-inf")]
    generations = recipe.search.generations
    table = folder.path / "candidates.parquet"
    with phase(console, "search", algorithm.total) as shown:

        def on_candidate(candidate: Candidate) -> None:
            result, generation = candidate.result, candidate.proposal.generation
            if result is not None:
                best[0] = max(best[0], result.score)
            tracker.log_candidate(candidate)
            shown.show(
                candidate.proposal.index + 1,
                step=f"generation {generation + 1}/{generations}",
                best=f"best {best[0]:.2%}" if best[0] >= 0 else "",
            )

        search = SearchRun(algorithm, cost=plan.problem.cost, known=service.known(SEARCH_SPLIT), on_candidate=on_candidate)
        run_search(search, service.pool, pool_name=service.name)
    candidates = search.candidates
    by_generation: dict[int, list[float]] = {}
    for c in candidates:
        if c.result is not None:
            by_generation.setdefault(c.proposal.generation, []).append(c.result.score)
    best_so_far = float("-inf")
    for generation, scores in sorted(by_generation.items()):
        best_so_far = max(best_so_far, *scores)
        tracker.log_metrics({"search/best": best_so_far, "search/median": statistics.median(scores)}, step=generation)
    if not by_generation:
        reasons = {c.outcome.reason for c in candidates if c.result is None and not isinstance(c.outcome, Result)}
        raise ValueError(f"no candidate could be scored ({'; '.join(sorted(reasons))}); is {table.parent} of a sound supernet?")
    return candidates


def _networks(plan: _Plan, best: Candidate, service: ScoringService, console: Console) -> dict[str, dict[str, Any]]:
    """Champion, largest, smallest and random subnets on the search split and, once, on the test split."""
    problem, seed = plan.problem, plan.recipe.seed
    arch = best.proposal.arch
    assert isinstance(arch, AutoFormerArchitecture)
    random: list[AutoFormerArchitecture] = []
    for i in range(plan.recipe.report.random_subnets):
        drawn = problem.sample(Random(f"{seed}/report/{i}"), exclude=random)
        if drawn is not None:
            random.append(drawn)
    chosen = list(dict.fromkeys([arch, problem.space.largest(), problem.space.smallest(), *random]))
    scores: dict[str, dict[AutoFormerArchitecture, Result]] = {SEARCH_SPLIT: {}, TEST_SPLIT: {}}
    with phase(console, "report", len(chosen) * len(scores)) as shown:
        done = 0
        for split, results in scores.items():
            for subnet, outcome in service.score(split, chosen):
                done += 1
                shown.show(done, step=f"{split} split")
                if isinstance(outcome, Result):
                    results[subnet] = outcome

    def network(subnet: AutoFormerArchitecture) -> dict[str, Any]:
        result, test = scores[SEARCH_SPLIT].get(subnet), scores[TEST_SPLIT].get(subnet)
        cost = problem.cost(subnet)
        return {
            "id": subnet.id,
            "arch": subnet.to_dict(),
            "score": result.score if result else None,
            "test_score": test.score if test else None,
            "params": cost.params,
            "macs": cost.macs,
        }

    networks = {
        "champion": network(arch),
        "largest": network(problem.space.largest()),
        "smallest": network(problem.space.smallest()),
    }
    drawn = [n for n in map(network, random) if n["score"] is not None and n["test_score"] is not None]
    if drawn:
        medians = {key: statistics.median(n[key] for n in drawn) for key in ("score", "test_score", "params", "macs")}
        networks["random"] = {
            **medians,
            "subnets": len(drawn),
            "scores": [n["score"] for n in drawn],
            "test_scores": [n["test_score"] for n in drawn],
            "ids": [n["id"] for n in drawn],
        }
    return networks


def _versions() -> dict[str, str]:
    names = ("raysearch", "torch", "timm", "ray", "mlflow", "pyarrow")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def _close(summary: dict[str, Any], folder: OutputFolder, console: Console) -> None:
    console.print(closing_table(summary))
    seconds = summary["seconds"]
    console.print(
        f"{summary['counts']['candidates']} candidates in {sum(seconds.values()):.0f} s ("
        + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())
        + f"); report: {folder.path / 'report.html'}; network: {folder.path / 'champion.json'}",
        highlight=False,
        soft_wrap=True,
    )
    opened = ui_command(summary["mlflow_uri"])
    url = ui_url(summary["mlflow_uri"], summary["mlflow_experiment_id"])
    console.print(
        f"every candidate in MLflow: {opened + '  then open  ' if opened else ''}{url}", highlight=False, soft_wrap=True
    )
