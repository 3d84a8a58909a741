"""After the choice: the champion, and a random network beside it, are trained further; other images say whether that helped."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console

from raysearch.distributed.files import NodeFile, serve, share
from raysearch.distributed.judging import JudgingJob
from raysearch.distributed.network_file import NetworkFile
from raysearch.distributed.training import write_weights
from raysearch.distributed.training_worker import TrainingJob
from raysearch.jobs.closing import TEST_SPLIT
from raysearch.jobs.networks import SubnetTraining, TrainedEach, interval_of, judged, lead, outcomes_of, score_of, train_each
from raysearch.jobs.plan import Plan
from raysearch.recipes import Recipe, flat_settings
from raysearch.scoring.subnets import open_subnets_of
from raysearch.space import Architecture
from raysearch.statistics import Outcomes
from raysearch.store.folder import OutputFolder
from raysearch.store.predictions import Predictions
from raysearch.store.summary import EpochRecord, TunedNetwork, Tuning, Weights
from raysearch.tracking import Tracker, Training
from raysearch.training.alone import for_one, shortened
from raysearch.training.config import TrainingConfig
from raysearch.training.draws import Only


@dataclass(frozen=True, slots=True)
class Tuned:
    """What further training left."""

    tuning: Tuning
    weights: Path | None
    """The champion's fine-tuned weights, where they are deployed; None: its inherited ones are."""
    predictions: Predictions | None
    """What the champion says of the test images, as deployed."""
    tested: Outcomes | None
    """What it was judged on each test image, as deployed."""


def champion_training(recipe: Recipe[Any, Any], *, epochs: int | None = None) -> TrainingConfig:
    """How the champion is trained further: as the supernet was, in fewer epochs and with a lower learning rate.

    ``epochs``: others than its own.
    """
    train, wanted = for_one(shortened(recipe.train, epochs or recipe.champion.epochs)), recipe.champion
    distill = replace(train.distill, source="none", weight=wanted.distill)
    lr = wanted.lr * train.lr
    return replace(train, lr=lr, min_lr=min(train.min_lr, lr), warmup_lr=min(train.warmup_lr, lr), distill=distill)


def fine_tune(
    plan: Plan,
    folder: OutputFolder,
    tracker: Tracker,
    console: Console,
    *,
    champion: Architecture,
    beside: Architecture | None,
    deciding: Mapping[str, NodeFile],
    test: NodeFile,
) -> Tuned:
    """Train the champion further, and a random subnet of equal cost alike; score both with both weights.

    Trained networks stay in the folder: a later run trains none again, and goes on where a training stopped.

    Args:
        plan: of the search.
        folder: where its supernet is.
        tracker: gets a run with the curves of each training.
        console: shows progress.
        champion: the network that was chosen.
        beside: the random subnet; None: there is none.
        deciding: images on which nothing was trained, by split, those of the search first: on these it is decided which weights
            are deployed.
        test: images that say how good both are, and decide nothing.

    """
    archs: dict[Training, Architecture] = {"champion": champion}
    if beside is not None:
        archs["random"] = beside
    place, server = folder.path / "fine-tuned", serve()
    subnets = open_subnets_of(folder, plan.recipe.family, plan.recipe.task)
    teacher = None
    if plan.recipe.champion.distill:
        largest = plan.problem.space.largest()
        write_weights(_beginning(place, "teacher"), subnets.extract(largest).state_dict())
        weights = share(_beginning(place, "teacher"), server=server)
        teacher = NetworkFile(plan.recipe.family, plan.settings, largest, weights)
    trained: dict[Training, SubnetTraining] = {}
    jobs: dict[str, JudgingJob] = {}
    for name, arch in archs.items():
        begun = _beginning(place, name)
        write_weights(begun, subnets.extract(arch).state_dict())
        start = share(begun, server=server)
        jobs[_named(name, "inherited")] = JudgingJob(
            network=NetworkFile(plan.recipe.family, plan.settings, arch, start),
            cost=plan.problem.cost(arch),
            task=plan.recipe.task,
            config=plan.recipe.evaluators,
            images={**deciding, TEST_SPLIT: test},
            predicted=TEST_SPLIT if name == "champion" else None,
        )
        job = _training(plan, arch, start, teacher)
        trained[name] = SubnetTraining(name, job, place / f"{name}.safetensors", partial(log_epoch, tracker, run=name))
    done = _train(plan, tracker, console, trained)
    for name in done.histories:
        judging = jobs[_named(name, "inherited")]
        tuned = replace(judging.network, weights=share(trained[name].path, server=server))
        jobs[_named(name, "fine-tuned")] = replace(judging, network=tuned)
    found = judged(jobs, console)
    for path in place.glob("*-inherited.safetensors"):
        path.unlink()

    networks, first = dict[str, TunedNetwork](), next(iter(deciding))
    for name, arch in archs.items():
        cost = plan.problem.cost(arch)
        before, after = (found.get(_named(name, which)) for which in ("inherited", "fine-tuned"))
        networks[name] = TunedNetwork(
            arch.id,
            arch.to_dict(),
            cost.params,
            cost.macs,
            score=score_of(after, first),
            score_interval=interval_of(after, first),
            gain=lead(after, before, [*deciding]),
            inherited_test=score_of(before, TEST_SPLIT),
            test=score_of(after, TEST_SPLIT),
            test_interval=interval_of(after, TEST_SPLIT),
            test_gain=lead(after, before, [TEST_SPLIT]),
            history=done.histories.get(name) or [],
            failed=done.failed.get(name),
        )
    deployed = _deployed(networks["champion"])
    train = champion_training(plan.recipe)
    seen = outcomes_of(found[_named("champion", "inherited")], [*deciding])
    tuning = Tuning(
        epochs=train.epochs,
        lr=train.lr,
        items=0 if seen is None else len(seen),
        deployed=deployed,
        champion=networks["champion"],
        random=networks.get("random"),
        distill=plan.recipe.champion.distill,
        over_random=lead(found.get(_named("champion", "fine-tuned")), found.get(_named("random", "fine-tuned")), [TEST_SPLIT]),
    )
    weights = place / "champion.safetensors" if deployed == "fine-tuned" else None
    judgement = found[_named("champion", deployed)]
    return Tuned(tuning, weights, judgement.predictions, outcomes_of(judgement, [TEST_SPLIT]))


def _named(name: str, weights: Weights) -> str:
    return f"{name}, {weights}"


def _deployed(champion: TunedNetwork) -> Weights:
    """By the images that chose and were not trained on, never by those of the test."""
    return "fine-tuned" if champion.gain is not None and champion.gain.value > 0 else "inherited"


def _beginning(place: Path, name: str) -> Path:
    """The file of the weights that a network begins with, while it is trained and judged."""
    return place / f"{name}-inherited.safetensors"


def _training(plan: Plan, arch: Architecture, start: NodeFile, teacher: NetworkFile | None) -> TrainingJob:
    recipe = plan.recipe
    return TrainingJob(
        family=recipe.family,
        settings=plan.settings,
        space=Only(arch),
        train=champion_training(recipe),
        task=recipe.task,
        seed=Random(f"{recipe.seed}/fine-tune/{arch.id}").getrandbits(31),
        images=plan.splits.digest,
        start=start,
        teacher=teacher,
    )


def _train(plan: Plan, tracker: Tracker, console: Console, trained: Mapping[Training, SubnetTraining]) -> TrainedEach:
    """Train all of them: what each inherits is good, so that none that diverges loses the search."""
    settings = {"train": asdict(champion_training(plan.recipe)), "champion": asdict(plan.recipe.champion)}
    with ExitStack() as stack:
        for name, subnet in trained.items():
            if not subnet.path.exists():
                assert subnet.job.arch is not None
                told = flat_settings({**settings, "architecture": subnet.job.arch.id})
                stack.enter_context(tracker.training(told, run=name))
        done = train_each([*trained.values()], console, phase_name="fine-tune")
    for name in trained:
        tracker.end_training(name)
    return done


def log_epoch(tracker: Tracker, record: EpochRecord, *, run: Training) -> None:
    """Record an epoch's point of each curve of a training; one that is recorded already is left alone."""
    values = {"train/loss": record.loss, "train/lr": record.lr, "train/skipped_steps": record.skipped or None}
    tracker.log_metrics(values, step=record.epoch, run=run)
