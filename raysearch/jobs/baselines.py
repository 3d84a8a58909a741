"""Beside the champion: the fine-tuned whole of a pretrained network, and networks of timm's that are trained as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console

from raysearch.distributed.files import NodeFile, serve, share
from raysearch.distributed.judging import Judgement, JudgingJob
from raysearch.distributed.network_file import NetworkFile
from raysearch.distributed.training import write_weights
from raysearch.distributed.training_worker import TrainingJob
from raysearch.jobs.champion import champion_training, log_epoch
from raysearch.jobs.closing import TEST_SPLIT
from raysearch.jobs.networks import SubnetTraining, TrainedEach, interval_of, judged, outcomes_of, score_of, train_each
from raysearch.jobs.plan import Plan
from raysearch.jobs.progress import activity, say_on
from raysearch.jobs.whole_first import WHOLE
from raysearch.recipes import Recipe, flat_settings
from raysearch.recipes.recipe import ChampionConfig
from raysearch.scoring.latency import LatencyRule
from raysearch.scoring.subnets import open_subnets_of
from raysearch.space import Cost
from raysearch.spaces.stock import STOCK, StockNetwork, find_stock
from raysearch.statistics import Interval, Outcomes, paired_difference
from raysearch.store.folder import OutputFolder, read_json_rows, write_json
from raysearch.store.summary import Baseline, EpochRecord
from raysearch.tracking import BASELINE, Tracker
from raysearch.training import checkpoint
from raysearch.training.alone import for_one, shortened
from raysearch.training.config import TrainingConfig
from raysearch.training.draws import Only

FOLDER = "baselines"
"""In the output folder: networks of timm's, which ``networks.json`` there lists."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A network of timm's that was read once and is kept, so that a resumed search trains the same."""

    given: str
    """As ``--baselines`` names it."""
    name: str
    """The same without the folders that it is in."""
    file: str
    """Of its files in the folder."""
    arch: dict[str, Any]
    """Of :class:`~raysearch.spaces.stock.StockNetwork`, as JSON values."""
    params: int
    macs: int
    fresh: str | None
    """Why its weights are drawn anew; None: they are timm's."""

    @property
    def network(self) -> StockNetwork:
        """What is trained."""
        return StockNetwork.from_dict(self.arch)


def ready(plan: Plan, folder: OutputFolder, console: Console) -> list[Ready]:
    """Read the networks of ``--baselines``, each once for a search. Raises UserError for one that cannot see the images."""
    recipe, place = plan.recipe, folder.path / FOLDER
    listed = place / "networks.json"
    known = {row["given"]: Ready(**row) for row in (read_json_rows(listed) if listed.exists() else [])}
    found: list[Ready] = []
    for given in dict.fromkeys(recipe.baselines):
        one = known.get(given)
        if one is None:
            with activity(console, f"reading the baseline {given}"):
                stock = find_stock(
                    given,
                    recipe.task.ends(plan.splits),
                    recipe.task.preprocessing(),
                    drop_path=recipe.train.drop_path,
                    seed=Random(f"{recipe.seed}/baseline/{given}").getrandbits(31),
                )
            name = given.rstrip("/").rpartition("/")[2]
            file = re.sub(r"[^\w.-]", "-", name)
            if file in {each.file for each in known.values()}:
                file += f"-{len(known) + 1}"
            one = Ready(given, name, file, stock.arch.to_dict(), stock.cost.params, stock.cost.macs, stock.fresh)
            place.mkdir(parents=True, exist_ok=True)
            write_weights(place / f"{file}-start.safetensors", stock.weights)
            known[given] = one
            write_json(listed, [asdict(each) for each in known.values()])
            if stock.fresh is not None:
                say_on(console)(f"--baselines {given}: {stock.fresh}; it is trained from scratch, as long as the supernet")
        found.append(one)
    return found


def baseline_training(recipe: Recipe[Any, Any], *, fresh: bool) -> TrainingConfig:
    """As the champion is trained further, or would be; from scratch as long as the supernet, all layers alike."""
    given = recipe.report.baseline_epochs
    if fresh:
        train = for_one(shortened(recipe.train, given or recipe.train.epochs))
        distill = replace(train.distill, weight=recipe.champion.distill)
        return replace(train, layer_decay=1.0, distill=distill)
    if not recipe.champion.epochs:
        recipe = replace(recipe, champion=replace(ChampionConfig(), epochs=max(1, recipe.train.epochs // 10)))
    return champion_training(recipe, epochs=given)


def beside_champion(
    plan: Plan,
    folder: OutputFolder,
    tracker: Tracker,
    console: Console,
    *,
    champion: Outcomes | None,
    images: Mapping[str, NodeFile],
) -> list[Baseline]:
    """Train what shall stand beside the champion, and judge it; what is trained already is not trained again.

    Args:
        plan: of the search.
        folder: where the supernet is, and the fine-tuned whole network, where there is one.
        tracker: gets a run with the curve of each training.
        console: shows progress.
        champion: what the champion, as deployed, was judged on each test image.
        images: to judge on, by split: those of the search, which are first, and of the test.

    """
    recipe, place, server = plan.recipe, folder.path / FOLDER, serve()
    stock = ready(plan, folder, console)
    done, baselines = _trained(plan, stock, folder, tracker, console), dict[str, Baseline]()
    jobs: dict[str, JudgingJob] = {}
    rule = None if plan.latency is None else LatencyRule(recipe.latency, device=plan.latency.device, max_ms=None)
    judging = partial(JudgingJob, task=recipe.task, config=recipe.evaluators, images=images, latency=rule)
    if (whole := folder.path / WHOLE).exists():
        largest, history = plan.problem.space.largest(), _history(whole)
        cost = plan.problem.cost(largest)
        baselines[WHOLE] = Baseline("full network", "whole", len(history), cost.params, cost.macs, history=history)
        network = NetworkFile(recipe.family, plan.settings, largest, share(whole, server=server))
        jobs[WHOLE] = judging(network=network, cost=cost)
    for one in stock:
        train = baseline_training(recipe, fresh=one.fresh is not None)
        baselines[one.given] = Baseline(
            one.name,
            "pretrained" if one.fresh is None else "fresh",
            train.epochs,
            one.params,
            one.macs,
            lr=train.lr,
            distill=train.distill.share,
            history=done.histories.get(one.file) or [],
            failed=done.failed.get(one.file),
        )
        if one.file in done.histories:
            file = share(place / f"{one.file}.safetensors", server=server)
            jobs[one.given] = judging(network=NetworkFile(STOCK, {}, one.network, file), cost=Cost(one.params, one.macs))
    found = judged(jobs, console) if jobs else {}
    first = next(iter(images))
    return [_judged(each, found.get(name), champion, first) for name, each in baselines.items()]


def _trained(plan: Plan, stock: Sequence[Ready], folder: OutputFolder, tracker: Tracker, console: Console) -> TrainedEach:
    """Train the networks of timm's that are not yet."""
    recipe, place, server = plan.recipe, folder.path / FOLDER, serve()
    left = [one for one in stock if not (place / f"{one.file}.safetensors").exists()]
    teacher = None
    taught = [one for one in left if baseline_training(recipe, fresh=one.fresh is not None).distill.share]
    weights = place / "teacher.safetensors"
    if taught:
        largest = plan.problem.space.largest()
        subnets = open_subnets_of(folder, recipe.family, recipe.task)
        write_weights(weights, subnets.extract(largest).state_dict())
        teacher = NetworkFile(recipe.family, plan.settings, largest, share(weights, server=server))
    trainings: list[SubnetTraining] = []
    with ExitStack() as stack:
        for one in stock:
            path, start = (place / f"{one.file}{end}.safetensors" for end in ("", "-start"))
            train, run = baseline_training(recipe, fresh=one.fresh is not None), f"{BASELINE}{one.file}"
            job = TrainingJob(
                family=STOCK,
                settings={},
                space=Only(one.network),
                train=train,
                task=recipe.task,
                seed=Random(f"{recipe.seed}/baseline/{one.given}/training").getrandbits(31),
                images=plan.splits.digest,
                start=share(start, server=server) if one in left else None,
                teacher=teacher if train.distill.share else None,
            )
            if one in left:
                told = flat_settings({"train": asdict(train), "network": one.given, "began": one.fresh or "timm's weights"})
                stack.enter_context(tracker.training(told, run=run))
            trainings.append(SubnetTraining(one.file, job, path, partial(log_epoch, tracker, run=run)))
        done = train_each(trainings, console, phase_name="baselines")
    for one in stock:
        tracker.end_training(f"{BASELINE}{one.file}")
        if one.file in done.histories:
            (place / f"{one.file}-start.safetensors").unlink(missing_ok=True)
    weights.unlink(missing_ok=True)
    return done


def _history(file: Path) -> list[EpochRecord]:
    return [EpochRecord(**record) for record in checkpoint.read(file)[1]["history"]]


def _judged(baseline: Baseline, judgement: Judgement | None, champion: Outcomes | None, first: str) -> Baseline:
    """With its scores, where it has some."""
    own = None if judgement is None else outcomes_of(judgement, [TEST_SPLIT])
    lead: Interval | None = None if own is None or champion is None else paired_difference(champion, [own])
    return replace(
        baseline,
        score=score_of(judgement, first),
        score_interval=interval_of(judgement, first),
        test=score_of(judgement, TEST_SPLIT),
        test_interval=interval_of(judgement, TEST_SPLIT),
        latency_ms=None if judgement is None else judgement.latency_ms,
        lead=lead,
    )
