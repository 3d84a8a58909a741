"""The main job: plan, supernet, search, finalists, champion, close. Each phase continues where a killed run stopped."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from torch import Tensor

from raysearch.distributed.cluster import carry
from raysearch.distributed.evaluators import check_evaluators
from raysearch.distributed.files import NodeFile, serve, share
from raysearch.distributed.growth import remarks
from raysearch.distributed.scoring import ScoringService
from raysearch.distributed.search_run import SEARCH_SPLIT, SearchRun, run_search
from raysearch.distributed.supernet_scorer import SupernetScorer
from raysearch.distributed.training import train_network, trained_weights, write_weights
from raysearch.distributed.training_worker import TrainingJob
from raysearch.errors import UserError
from raysearch.jobs.baselines import beside_champion, ready
from raysearch.jobs.champion import fine_tune, log_epoch
from raysearch.jobs.champion_files import save_champion, save_predictions
from raysearch.jobs.closing import (
    FINALISTS_SPLIT,
    REST_OF_SEARCH_SPLIT,
    TEST_SPLIT,
    WHOLE_SEARCH_SPLIT,
    close,
    compare,
    judge_proxy,
    register,
    show_summary,
)
from raysearch.jobs.connecting import connected_to_ray
from raysearch.jobs.finalists import choose
from raysearch.jobs.fitting import fit_to_time, machine_of_cluster, say_plan
from raysearch.jobs.latency_table import plan_latency
from raysearch.jobs.opening import check_held, configuration, open_tracker
from raysearch.jobs.plan import Plan, SearchCommand, continued, output_path, plan_search
from raysearch.jobs.pretrained import prepared_plan
from raysearch.jobs.progress import TrainingProgress, activity, phase, say_on
from raysearch.jobs.storage import fetched, mirrored
from raysearch.jobs.teaching import kept_teacher
from raysearch.jobs.watching import Watcher
from raysearch.jobs.whole_first import FILES, WHOLE, whole_first
from raysearch.recipes import flat_settings
from raysearch.recipes.fitted import Machine
from raysearch.recipes.resuming import may_change
from raysearch.recipes.stored import upgraded
from raysearch.report import smallest_line
from raysearch.scoring.latency import LatencyRule
from raysearch.scoring.subnets import calibration_items
from raysearch.search import Candidate, Failure, Informative, Result, Sample, make_algorithm, pareto_front
from raysearch.search.front import SCORE_AND_PARAMS
from raysearch.statistics import Outcomes, score_interval
from raysearch.store.candidates import CANDIDATES, CandidateRow, write_candidates
from raysearch.store.folder import CONFIG, OutputFolder, open_folder, write_json
from raysearch.store.summary import Baseline, EpochRecord, Summary
from raysearch.tracking import Tracker
from raysearch.training.supernets import SupernetFile


def run(
    command: SearchCommand[Any, Any], *, line: str, console: Console, continues: Callable[[str], object] | None = None
) -> Summary:
    """Run or continue a search; returns what ``summary.json`` holds.

    ``continues`` is told which command would continue it, as soon as there is a folder in which there is something to continue.

    Raises UserError, in one line with the remedy, for what the user can mend; nothing of an earlier search is changed then.
    """
    started = time.perf_counter()
    command = fetched(command, console)
    output = output_path(command)
    here = [] if command.output is not None else ["--output", str(output)]  # without it, --resume finds the newest

    def may_be_continued() -> None:
        if continues is not None:
            continues(f"the same command with {shlex.join([*here, '--resume'])}")

    command = continued(command, output)
    is_new = not (output / CONFIG).exists()
    if not is_new:
        may_be_continued()
    with ExitStack() as stack:

        def cluster() -> Machine:
            stack.enter_context(connected_to_ray(command.ray_address, console))
            return machine_of_cluster(command.recipe.train)

        reading = activity(console, "reading the images")
        plan = plan_search(command, machine=cluster if is_new else None, reading=reading)
        carry(plan.recipe.family, plan.recipe.task)
        if is_new:
            plan = fit_to_time(command, plan, cluster(), console, output=output)
        recipe = plan.recipe
        settings = configuration(plan, command, line)
        changeable = may_change(trained=OutputFolder(output, settings).supernet.exists())
        folder = stack.enter_context(
            open_folder(output, settings, resume=command.resume, upgrade=upgraded, may_change=changeable)
        )
        may_be_continued()
        stack.enter_context(mirrored(folder.path, command.storage, say_on(console)))
        if folder.finished:
            summary = folder.read_summary()
            if folder.spool.exists() or folder.unregistered.exists():
                with open_tracker(command, plan, folder) as tracker:  # it writes what MLflow did not take at the search's end
                    if folder.unregistered.exists():
                        summary = register(plan, folder, tracker, summary, console)
            console.print(f"{folder.path} is finished already:")
            show_summary(summary, folder, console)
            return summary
        check_held(folder, recipe.family)
        with open_tracker(command, plan, folder) as tracker, connected_to_ray(command.ray_address, console):
            check_evaluators(recipe.evaluators)  # a search that could never be scored is not trained for
            for words in remarks(recipe.name, recipe.train.nodes, recipe.evaluators.nodes):
                say_on(console)(words)
            if not is_new:
                say_plan(command, plan, output, console)
            prepared = time.perf_counter()
            if recipe.measures_latency:
                plan = plan_latency(plan, folder, console)
            # Only now, as a budget that no subnet keeps leaves a new folder empty.
            folder.add_seconds("prepare", prepared - started)
            if recipe.measures_latency:
                folder.add_seconds("latency", time.perf_counter() - prepared)
            if plan.start is not None and plan.start.unordered:
                with folder.timed("prepare"):
                    plan = prepared_plan(plan, folder, console)
            if recipe.baselines:
                with folder.timed("prepare"):
                    ready(plan, folder, console)
            history = train(plan, folder, tracker, console)
            enough = _enough(command.max_hours, folder, say_on(console))
            summary = search(plan, folder, tracker, console, history=history, enough=enough)
            folder.finish()
            if folder.unregistered.exists():
                summary = register(plan, folder, tracker, summary, console)
    show_summary(summary, folder, console)
    return summary


def _enough(hours: float | None, folder: OutputFolder, say: Callable[[str], None]) -> Callable[[], bool]:
    """Whether the hours are over that all runs of a search may take together; says so once, when they are."""
    if hours is None:
        return lambda: False
    end = time.monotonic() + 3600 * hours - sum(folder.seconds.values())
    told: list[str] = []

    def enough() -> bool:
        over = time.monotonic() >= end
        if over and not told:
            told.append(f"--max-hours {hours:g} are over: no more candidates are proposed, the champion is one of those so far")
            say(told[0])
        return over

    return enough


# --- the supernet -----------------------------------------------------------------------------------------------------


def train(plan: Plan, folder: OutputFolder, tracker: Tracker, console: Console) -> list[EpochRecord]:
    """Leave the supernet in the folder. Returns the records of its epochs; none for a given supernet."""
    recipe = plan.recipe
    if folder.supernet.exists():
        history = folder.read_history()
    elif plan.given is not None:
        history = []
        folder.write_history(history)
        plan.given.write(folder.supernet)
    else:
        with folder.timed("prepare"):  # an image that cannot be read ends the search before the training, not after it
            for split, items in (("search", plan.splits.search), (FINALISTS_SPLIT, plan.splits.finalists)):
                if len(items):
                    _write_cache(split, items, plan, folder, console)
        start = None if plan.start is None else _shared(plan.start.weights, folder.path / "start.safetensors")
        fine_tuned = None
        if start is not None and plan.start is not None and plan.start.unordered:
            with folder.timed("train"):
                fine_tuned = whole_first(plan, start, folder, tracker, console)
        epochs = recipe.train.epochs if fine_tuned is None else fine_tuned.then.epochs
        with folder.timed("train"), phase(console, "train", epochs, at_first="processes start") as shown:
            progress = TrainingProgress(shown, epochs=epochs)

            def on_epoch(record: EpochRecord) -> None:
                log_epoch(tracker, record, run="supernet")
                progress.on_epoch(record)

            teacher, soft_labels = kept_teacher(recipe, plan.splits, folder.path / "cache", console)
            job = TrainingJob(
                family=recipe.family,
                settings=plan.settings,
                space=plan.draws,
                train=recipe.train if fine_tuned is None else fine_tuned.then,
                task=recipe.task,
                seed=recipe.seed,
                images=plan.splits.digest,
                teacher=fine_tuned.teacher if fine_tuned is not None and teacher is None else teacher,
                soft_labels=soft_labels,
                start=start if fine_tuned is None else fine_tuned.start,
            )
            with tracker.training(flat_settings({"train": asdict(recipe.train), "net": plan.settings})):
                history = train_network(job, folder.training, on_epoch=on_epoch, on_step=progress.on_step, say=say_on(console))
        folder.write_history(history)
        weights, _ = trained_weights(job, folder.training)
        file = SupernetFile(
            recipe.family,
            plan.settings,
            weights,
            plan.splits.digest,
            config=asdict(recipe.config),
            preprocessing=recipe.task.preprocessing(),
            classes=list(plan.splits.classes),
        )
        file.write(folder.supernet)
        folder.training.unlink()
        for name in ("start.safetensors", "pretrained.safetensors", *FILES):
            (folder.path / name).unlink(missing_ok=True)
    for record in history:
        log_epoch(tracker, record, run="supernet")  # those that an earlier run trained and did not come to log
    if history:
        tracker.end_training()
    return history


def _shared(weights: Mapping[str, Tensor], path: Path) -> NodeFile:
    """Weights in a file for all processes."""
    write_weights(path, weights)
    return share(path, server=serve())


# --- the search, and what comes of it ---------------------------------------------------------------------------------


def search(
    plan: Plan,
    folder: OutputFolder,
    tracker: Tracker,
    console: Console,
    *,
    history: Sequence[EpochRecord],
    enough: Callable[[], bool] = lambda: False,
) -> Summary:
    """Score candidates until it is ``enough``, choose the champion among the best, compare it, and close."""
    recipe = plan.recipe
    server = serve()

    def cached(name: str, items: Any) -> NodeFile:
        return share(_write_cache(name, items, plan, folder, console), server=server)

    weights = share(folder.supernet, server=server)
    calibration = None
    if recipe.family.calibrates:
        recipe.task.write_cache(calibration_items(plan.splits.train, seed=recipe.seed), folder.calibration)
        calibration = share(folder.calibration, server=server)
    make_scorer = partial(
        SupernetScorer,
        weights,
        family=recipe.family,
        task=recipe.task,
        config=recipe.evaluators,
        calibration=calibration,
        latency=None
        if plan.latency is None
        else LatencyRule(recipe.latency, device=plan.latency.device, max_ms=recipe.constraint.max_latency_ms),
    )
    with ScoringService(
        make_scorer,
        recipe.evaluators,
        name=f"pool-{folder.search_id}",
        journal=folder.journal,
        weights=weights.digest,
        calibration=None if calibration is None else calibration.digest,
        say=say_on(console),
    ) as service:
        with folder.timed("search"):
            whole = cached("search", plan.splits.search)
            service.add_images(WHOLE_SEARCH_SPLIT, whole)
            part = recipe.finalists.search_images
            fresh = {FINALISTS_SPLIT: plan.splits.finalists}  # images on which the search scores nobody
            if part is None:
                service.add_images(SEARCH_SPLIT, whole)
            else:
                chosen = sorted(Random(f"{recipe.seed}/search-images").sample(range(len(plan.splits.search)), part))
                service.add_images(SEARCH_SPLIT, cached(f"search-{part}", plan.splits.search.subset(chosen)))
                rest = sorted({*range(len(plan.splits.search))} - {*chosen})
                fresh[REST_OF_SEARCH_SPLIT] = plan.splits.search.subset(rest)
            if plan.from_timm is not None and (words := below_chance(plan, service)) is not None:
                say_on(console)(words)
            candidates, samples = _candidates(plan, folder, tracker, console, service, history=history, enough=enough)
            utilisation = service.usage(SEARCH_SPLIT)
            write_candidates(folder.path / CANDIDATES, candidates)
            weighed = recipe.nsga2.objectives if recipe.algorithm == "nsga2" else SCORE_AND_PARAMS
            front = pareto_front(candidates, objectives=weighed)
            write_json(folder.path / "front.json", [CandidateRow.of(c).columns() for c in front])
            fresh = {split: items for split, items in fresh.items() if len(items)}
            for split, items in fresh.items():
                service.add_images(split, cached(split.replace("/", "-"), items))
            champion, finalists = choose(
                candidates,
                service,
                console,
                splits=[*fresh],
                config=recipe.finalists,
                quantity=recipe.constraint.quantity,
                samples=samples,
            )
        with folder.timed("report"):
            # Only here, when the choice is made, are the test images read.
            test = cached(TEST_SPLIT, plan.splits.test)
            service.add_images(TEST_SPLIT, test)
            networks = compare(plan, champion, candidates, service, console)
            proxy = judge_proxy(plan, service)
            predictions = service.predict(TEST_SPLIT, champion.proposal.arch)
            tested = _by_item(service, TEST_SPLIT, champion.proposal.arch)
    tuned = None
    if recipe.champion.epochs:  # the evaluators are gone, so that training finds room
        with folder.timed("fine-tune"):
            deciding = {SEARCH_SPLIT: whole}
            if len(plan.splits.finalists):
                deciding[FINALISTS_SPLIT] = cached(FINALISTS_SPLIT, plan.splits.finalists)
            beside = networks.random and plan.architecture(networks.random.archs[0])
            arch = champion.proposal.arch
            tuned = fine_tune(plan, folder, tracker, console, champion=arch, beside=beside, deciding=deciding, test=test)
            tested = tuned.tested
    baselines: list[Baseline] = []
    if recipe.baselines or (folder.path / WHOLE).exists():
        with folder.timed("baselines"):
            images = {SEARCH_SPLIT: whole, TEST_SPLIT: test}
            baselines = beside_champion(plan, folder, tracker, console, champion=tested, images=images)
    with folder.timed("report"):
        assert champion.result is not None  # it competed
        save_champion(plan, folder, networks.champion, kind=champion.result.kind, tuned=tuned)
        save_predictions(plan, folder, predictions if tuned is None else tuned.predictions)
    return close(
        plan,
        folder,
        tracker,
        candidates=candidates,
        front=front,
        networks=networks,
        finalists=finalists,
        utilisation=utilisation,
        proxy=proxy,
        history=history,
        tuning=None if tuned is None else tuned.tuning,
        baselines=baselines,
    )


def below_chance(plan: Plan, service: ScoringService) -> str | None:
    """What to say where the smallest subnet of a supernet is no better than guessing; None where it is, and without classes.

    Scores of subnets around it say little then. It is scored for the closing table anyhow.
    """
    known = _by_item(service, SEARCH_SPLIT, plan.problem.space.smallest())
    return None if known is None else smallest_line(score_interval(known), len(plan.splits.classes))


def _by_item(service: ScoringService, split: str, arch: Any) -> Outcomes | None:
    """What a subnet was judged on each item of a split; None where it could not be."""
    result = dict(service.score(split, [arch])).get(arch)
    return result.by_item(result.items_seen) if isinstance(result, Result) else None


def _write_cache(name: str, items: Any, plan: Plan, folder: OutputFolder, console: Console) -> Path:
    """The file of images that evaluators read; nothing is done where it stands already."""
    path = folder.path / "cache" / f"{name}.arrow"
    with activity(console, f"preparing {len(items):,} images to score networks on"):
        plan.recipe.task.write_cache(items, path)
    return path


def _candidates(
    plan: Plan,
    folder: OutputFolder,
    tracker: Tracker,
    console: Console,
    service: ScoringService,
    *,
    history: Sequence[EpochRecord],
    enough: Callable[[], bool],
) -> tuple[Sequence[Candidate], Mapping[str, Sample]]:
    """Every candidate of the search, in the order asked, and the images that some were scored on instead of all, by their ids.

    Raises UserError when none could be scored.
    """
    recipe = plan.recipe
    algorithm = make_algorithm(recipe.algorithm_config, plan.problem, seed=recipe.seed, initial=plan.initial)
    with phase(console, "search", algorithm.total, at_first="evaluators start") as shown:
        watcher = Watcher(plan, folder, tracker, shown, history=history, total=algorithm.total, say=say_on(console))
        config = recipe.informative
        informative = None if config.images is None else Informative(config, seed=recipe.seed, say=say_on(console))
        run = SearchRun(
            algorithm,
            cost=plan.problem.cost,
            known=service.known(SEARCH_SPLIT),
            on_candidate=watcher,
            racing=recipe.racing,
            seed=recipe.seed,
            informative=informative,
            enough=enough,
        )
        run_search(run, service, say=say_on(console))
        watcher.end_generation()
    if all(c.result is None for c in run.candidates):
        reasons = sorted({c.outcome.reason for c in run.candidates if isinstance(c.outcome, Failure)})
        raise UserError(f"no candidate could be scored ({'; '.join(reasons)}): is this supernet trained?")
    slow = [c.result.latency_ms for c in run.candidates if c.status == "slow" and c.result and c.result.latency_ms]
    if slow and all(c.status != "scored" for c in run.candidates):
        raise UserError(
            f"no candidate keeps {plan.problem.constraint}: the fastest took {min(slow):.3g} ms; "
            "raise constraint.max-latency-ms and start again in a new output folder"
        )
    return run.candidates, {} if informative is None else informative.samples
