"""The main job, phase by phase: images, supernet, search, closing report. Each phase continues where a killed run stopped."""

from __future__ import annotations

import statistics
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Any

from rich.console import Console

from raysearch.distributed.cluster import connected
from raysearch.distributed.files import NodeFile, content_digest, serve, share
from raysearch.distributed.scoring import ScoringService
from raysearch.distributed.search_run import SEARCH_SPLIT, SearchRun, run_search
from raysearch.distributed.supernet_scorer import SupernetScorer
from raysearch.distributed.training import TrainingJob, train_supernet, trained_weights
from raysearch.jobs.closing import TEST_SPLIT, WHOLE_SEARCH_SPLIT, compare, save_champion, show_summary, write_summary
from raysearch.jobs.finalists import choose
from raysearch.jobs.interim import InterimReport
from raysearch.jobs.latency_table import plan_latency, read_latency
from raysearch.jobs.plan import Plan, SearchCommand, output_path, plan_search
from raysearch.jobs.progress import Phase, phase
from raysearch.recipes.recipe import flat_settings
from raysearch.scoring.latency import LatencyRule
from raysearch.search import Candidate, Failure, SearchAlgorithm, make_algorithm, pareto_front, planned_generations
from raysearch.search.front import SCORE_AND_PARAMS
from raysearch.store.candidates import CANDIDATES, write_candidates
from raysearch.store.folder import CONFIG, OutputFolder, open_folder, read_json, write_json
from raysearch.store.journal import Journal
from raysearch.tasks.images.cache import write_cache
from raysearch.tasks.images.classification import Classification
from raysearch.tasks.images.images import ImageSet
from raysearch.tasks.images.transforms import Normalisation
from raysearch.tracking import Tracker, default_uri
from raysearch.training import checkpoint
from raysearch.training.supernets import SupernetFile, read_supernet
from raysearch.training.trainer import EpochRecord

SPOOL = "tracking.jsonl"
"""File of the records that MLflow did not take yet; there only while some wait."""


def run(command: SearchCommand, *, line: str, console: Console) -> dict[str, Any]:
    """Run or continue a search; returns what ``summary.json`` holds.

    Raises ValueError, in one line with the remedy, for what the user can mend; nothing of an earlier search is changed then.
    """
    started = time.perf_counter()
    plan = plan_search(command)
    recipe = plan.recipe
    output = output_path(command)
    config = {
        "command": line,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": {
            **recipe.to_dict(),
            "images": plan.splits.digest[:12],
            "warm_start": [arch.id for arch in plan.initial],
            "supernet": None if command.supernet is None else content_digest(command.supernet)[:12],
        },
    }
    nothing_yet = not (output / CONFIG).exists()
    with open_folder(output, config, resume=command.resume) as folder:
        if command.resume and nothing_yet:  # killed before it wrote anything, or a slip of the pen
            console.print(f"there is no search in {output} to resume: starting one", highlight=False, soft_wrap=True)
        if folder.finished:
            if (folder.path / SPOOL).exists():
                _tracker(command, plan, folder).close()  # what MLflow did not take at its end
            summary = read_json(folder.summary)
            console.print(f"{folder.path} is finished already:")
            show_summary(summary, folder, console)
            return summary
        _check_held(folder)
        with (
            _tracker(command, plan, folder) as tracker,
            connected(command.ray_address),
        ):
            console.print(
                f"{recipe.name}: {plan.problem.space.size():,} subnets, {plan.problem.constraint}; "
                f"{len(plan.splits.train):,} images to train, {len(plan.splits.search):,} to search, "
                f"{len(plan.splits.test):,} to test  ->  {output}",
                highlight=False,
                soft_wrap=True,
            )
            prepared = time.perf_counter()
            if recipe.measures_latency:
                plan = plan_latency(plan, folder, console)
            # Only now, as a budget that no subnet keeps leaves a new folder empty.
            folder.add_seconds("prepare", prepared - started)
            if recipe.measures_latency:
                folder.add_seconds("latency", time.perf_counter() - prepared)
            history = _train(plan, folder, tracker, console)
            summary = _search_and_compare(plan, folder, tracker, console, history=history)
        folder.finish()
    show_summary(summary, folder, console)
    return summary


def _tracker(command: SearchCommand, plan: Plan, folder: OutputFolder) -> Tracker:
    """The search's record in MLflow, opened."""
    recipe, splits = plan.recipe, plan.splits
    tracker = Tracker(
        uri=command.tracking_uri or default_uri(folder.path.absolute().parent),
        experiment=recipe.name,
        search_id=folder.search_id,
        run_name=folder.path.name,
        params=flat_settings({**recipe.to_dict(), "command": folder.config["command"]}),
        axes=("depth", "embed_dim", "num_heads_mean", "mlp_ratio_mean"),
        spool=folder.path / SPOOL,
    )
    parts = {"train": len(splits.train), "search": len(splits.search), "test": len(splits.test)}
    tracker.log_dataset(
        recipe.dataset.dataset,
        digest=splits.digest,
        source=str(recipe.dataset.root or recipe.dataset.dataset),
        profile={**parts, "classes": len(splits.classes)},
    )
    return tracker


def _check_held(folder: OutputFolder) -> None:
    """Raises ValueError for a damaged file of an earlier run, before anything is computed or recorded."""
    _ = folder.seconds
    if folder.latency.exists():
        read_latency(folder)
    if folder.supernet.exists():
        read_supernet(folder.supernet)
        read_json(folder.path / "training.json")
        if folder.journal.exists():
            Journal(folder.journal, weights=content_digest(folder.supernet)).close()
    elif folder.journal.exists():
        raise ValueError(
            f"{folder.supernet} is missing, whose scores {folder.journal} holds; restore it or choose another --output"
        )
    elif folder.training.exists():
        checkpoint.read(folder.training)


@contextmanager
def _timed(folder: OutputFolder, name: str) -> Generator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        folder.add_seconds(name, time.perf_counter() - started)


# --- the supernet -----------------------------------------------------------------------------------------------------


def _train(plan: Plan, folder: OutputFolder, tracker: Tracker, console: Console) -> list[dict[str, Any]]:
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

            def on_epoch(record: EpochRecord) -> None:
                _log_epoch(tracker, record.to_dict())
                done = record.epoch + 1
                shown.show(done, step=f"epoch {done}/{recipe.train.epochs}", best=f"loss {record.loss:.3f}")

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
            with tracker.training(flat_settings({"train": asdict(recipe.train), "net": plan.settings})):
                records = train_supernet(job, folder.training, on_epoch=on_epoch)
        history = [record.to_dict() for record in records]
        write_json(epochs, {"history": history})
        weights = trained_weights(folder.training)
        SupernetFile("autoformer", plan.settings, weights, images=plan.splits.digest).write(folder.supernet)
        folder.training.unlink()
    for record in history:
        _log_epoch(tracker, record)  # those that an earlier run trained and did not come to log
    if history:
        tracker.end_training()
    return history


def _log_epoch(tracker: Tracker, record: dict[str, Any]) -> None:
    tracker.log_metrics({"train/loss": record["loss"], "train/lr": record["lr"]}, step=record["epoch"], run="supernet")


# --- the search -------------------------------------------------------------------------------------------------------


def _algorithm(plan: Plan) -> SearchAlgorithm:
    recipe = plan.recipe
    return make_algorithm(recipe.algorithm_config, plan.problem, seed=recipe.seed, initial=plan.initial)


class _Watcher:
    """Follows a search: the progress line, a child run per candidate, curves over the generations, the report so far."""

    def __init__(self, tracker: Tracker, shown: Phase, report: InterimReport, *, generations: int) -> None:
        self.tracker, self.shown, self.report, self.generations = tracker, shown, report, generations
        self.candidates: list[Candidate] = []
        self.generation = 0
        self.scores: list[float] = []
        """Of the generation in progress."""
        self.best: float | None = None

    def __call__(self, candidate: Candidate) -> None:
        """Take the next candidate in the order asked."""
        proposal, result = candidate.proposal, candidate.result
        if proposal.generation != self.generation:
            self.end_generation()
            # Here the evaluators have the rest of the new generation to work on, so they do not wait for the report.
            self.report.write(self.candidates, generation=proposal.generation + 1)
            self.generation = proposal.generation
        self.candidates.append(candidate)
        if result is not None and candidate.status == "scored":  # a raced one has the score of a few images
            self.scores.append(result.score)
            self.best = result.score if self.best is None else max(self.best, result.score)
        self.tracker.log_candidate(candidate)
        self.shown.show(
            proposal.index + 1,
            step=f"generation {proposal.generation + 1}/{self.generations}",
            best="" if self.best is None else f"best {self.best:.2%}",
        )

    def end_generation(self) -> None:
        """Record the generation's point of each curve."""
        if self.scores and self.best is not None:
            values = {"search/best": self.best, "search/median": statistics.median(self.scores)}
            self.tracker.log_metrics(values, step=self.generation)
        self.scores = []


def _search(
    plan: Plan,
    folder: OutputFolder,
    tracker: Tracker,
    console: Console,
    service: ScoringService,
    *,
    history: list[dict[str, Any]],
) -> Sequence[Candidate]:
    """Every candidate of the search, in the order asked. Raises ValueError when none could be scored."""
    algorithm = _algorithm(plan)
    with phase(console, "search", algorithm.total) as shown:
        generations = planned_generations(algorithm.total, plan.recipe.algorithm_config)
        report = InterimReport(plan, folder, tracker, history=history, generations=generations, total=algorithm.total)
        watcher = _Watcher(tracker, shown, report, generations=generations)
        search = SearchRun(
            algorithm,
            cost=plan.problem.cost,
            known=service.known(SEARCH_SPLIT),
            on_candidate=watcher,
            racing=plan.recipe.racing,
            seed=plan.recipe.seed,
        )
        run_search(search, service.pool, pool_name=service.name)
        watcher.end_generation()
    if all(c.result is None for c in search.candidates):
        reasons = sorted({c.outcome.reason for c in search.candidates if isinstance(c.outcome, Failure)})
        raise ValueError(f"no candidate could be scored ({'; '.join(reasons)}): is this supernet trained?")
    slow = [c.result.latency_ms for c in search.candidates if c.status == "slow" and c.result and c.result.latency_ms]
    if slow and all(c.status != "scored" for c in search.candidates):
        raise ValueError(
            f"no candidate keeps {plan.problem.constraint}: the fastest took {min(slow):.3g} ms; "
            "raise constraint.max-latency-ms and start again in a new output folder"
        )
    return search.candidates


def _search_and_compare(
    plan: Plan, folder: OutputFolder, tracker: Tracker, console: Console, *, history: list[dict[str, Any]]
) -> dict[str, Any]:
    recipe = plan.recipe
    server = serve()
    weights = share(folder.supernet, server=server)
    make_scorer = partial(
        SupernetScorer,
        weights,
        task=Classification(),
        normalise=Normalisation(recipe.dataset.mean, recipe.dataset.std),
        config=recipe.evaluators,
        latency=None
        if plan.latency is None
        else LatencyRule(recipe.latency, device=plan.latency.device, max_ms=recipe.constraint.max_latency_ms),
    )

    def cached(split: str, images: ImageSet) -> NodeFile:
        path = folder.path / "cache" / f"{split}.arrow"
        write_cache(images, path, recipe.dataset)
        return share(path, server=server)

    name = f"pool-{folder.search_id}"
    with ScoringService(make_scorer, recipe.evaluators, name=name, journal=folder.journal, weights=weights.digest) as service:
        with _timed(folder, "search"):
            whole = cached("search", plan.splits.search)
            service.add_images(WHOLE_SEARCH_SPLIT, whole)
            part = recipe.finalists.search_images
            if part is None:
                service.add_images(SEARCH_SPLIT, whole)
            else:
                chosen = sorted(Random(f"{recipe.seed}/search-images").sample(range(len(plan.splits.search)), part))
                service.add_images(SEARCH_SPLIT, cached(f"search-{part}", plan.splits.search.subset(chosen)))
            candidates = _search(plan, folder, tracker, console, service, history=history)
            utilisation = service.usage(SEARCH_SPLIT)
            write_candidates(folder.path / CANDIDATES, candidates)
            weighed = recipe.nsga2.objectives if recipe.algorithm == "nsga2" else SCORE_AND_PARAMS
            write_json(folder.path / "front.json", [c.row() for c in pareto_front(candidates, objectives=weighed)])
            best, finalists = choose(
                candidates,
                service,
                console,
                split=SEARCH_SPLIT if part is None else WHOLE_SEARCH_SPLIT,
                count=recipe.finalists.count,
            )
        with _timed(folder, "report"):
            # Only here, when the choice is made, are the test images read.
            service.add_images(TEST_SPLIT, cached(TEST_SPLIT, plan.splits.test))
            networks = compare(plan, best, candidates, service, console)
            save_champion(plan, folder, networks["champion"])
    return write_summary(
        plan,
        folder,
        tracker,
        candidates=candidates,
        networks=networks,
        finalists=finalists,
        utilisation=utilisation,
        history=history,
    )
