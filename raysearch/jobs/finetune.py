"""A network of a finished search is trained further, from the weights that it has."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from raysearch.bounds import Count
from raysearch.errors import UserError
from raysearch.jobs.found_network import find_network
from raysearch.jobs.network_command import NetworkCommand
from raysearch.jobs.network_job import Before, NetworkJob, Teacher, carry_out
from raysearch.jobs.reopened import FinishedSearch, finished_search
from raysearch.recipes.recipe import ChampionConfig
from raysearch.scoring.subnets import open_subnets_of
from raysearch.spaces.other_ends import refitted
from raysearch.tasks import Ends
from raysearch.training.alone import for_one, shortened
from raysearch.training.config import TrainingConfig
from raysearch.training.teacher import TeacherConfig, TeacherFile, TeacherFlags, find_teacher


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneCommand(NetworkCommand):
    """Train a network of a finished search further, on the images of that search: the champion, or any other."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Output folder of the search; the results go into a folder beneath it."""
    img_size: Count | None = None
    """Side of the images in pixels, where it shall be another than the search's: position tables are interpolated."""
    teacher: str | None = None
    """Who teaches beside the labels: the name in timm of a network that knows these classes, in their order. Default: the
    supernet's largest subnet. --train.distill.weight says how much."""
    teacher_weights: Path | None = None
    """File of its weights. Default: those that timm has for the name, from the hub or its cache."""


def finetune(command: FinetuneCommand, *, line: str, console: Console) -> Path:
    """Train the network further; returns the folder of what came of it. The same command goes on where it stopped.

    Raises UserError, in one line with the remedy, for what the user can mend.
    """
    search = finished_search(command.folder, family=command.family)
    plan, task, splits = search.plan, search.plan.recipe.task, search.plan.splits
    network = find_network(command.folder, subnet=command.subnet, family=command.family)
    arch = plan.architecture(network.card.arch)
    train = finetuning(command, search)
    if command.teacher is not None:
        train = taught_by_another(train, given=command.given)
    elif command.teacher_weights is not None:
        raise UserError("--teacher-weights are of no known network; give its name in timm with --teacher")
    settings, start, ends = dict(network.card.settings), network.module.state_dict(), task.ends(splits)
    if command.img_size is not None:
        task = task.sized(command.img_size)
        splits = task.splits()
        ends = task.ends(splits)
        made = refitted(network.family, settings, start, ends, arch=arch)
        settings, start = made.settings, made.weights
    done = network.card.training
    job = NetworkJob(
        name="finetune",
        source=command.folder,
        network=network,
        task=task,
        splits=splits,
        settings=settings,
        start=start,
        began=f"the weights that it inherits from the supernet{'' if done is None else f', {done.how} by its search'}",
        train=train,
        seed=command.seed,
        evaluators=plan.recipe.evaluators,
        recipe=plan.recipe.name,
        before=Before(plan.recipe.task, plan.splits),
        teacher=_teacher(command, search, ends) if train.distill.share else None,
    )
    return carry_out(job, command.places(line), console)


def _teacher(command: FinetuneCommand, search: FinishedSearch, ends: Ends) -> Teacher | TeacherFile:
    """Who teaches. Raises UserError for a network that cannot, as it knows other classes."""
    if command.teacher is None:
        return largest_of(search, ends)
    return find_teacher(
        TeacherConfig(name=command.teacher, weights=command.teacher_weights),
        outputs=ends.outputs,
        in_chans=ends.input_shape[0],
        flags=TeacherFlags("--teacher", "--teacher-weights"),
    )


def taught_by_another(train: TrainingConfig, *, given: Collection[str]) -> TrainingConfig:
    """A training with a teacher that was named: of a search whose champion had none, it learns from this one as DeiT does.

    Raises UserError where the weight that was given lets it teach nobody.
    """
    if train.distill.share:
        return train
    if "train.distill.weight" in given:
        raise UserError("--train.distill.weight 0 lets --teacher teach nobody; give another weight, or no teacher")
    return replace(train, distill=replace(train.distill, weight=None))


def finetuning(command: NetworkCommand, search: FinishedSearch) -> TrainingConfig:
    """As the search's champion was trained further, or would have been, with what the command gives."""
    recipe = search.plan.recipe
    wanted = recipe.champion
    if not wanted.epochs:
        wanted = replace(ChampionConfig(), epochs=max(1, recipe.train.epochs // 10))
    train = for_one(shortened(recipe.train, command.asked_epochs() or wanted.epochs))
    lr = wanted.lr * train.lr
    distill = replace(train.distill, source="none", weight=wanted.distill)
    train = replace(train, lr=lr, min_lr=min(train.min_lr, lr), warmup_lr=min(train.warmup_lr, lr), distill=distill)
    return command.given_to(train)


def largest_of(search: FinishedSearch, ends: Ends) -> Teacher:
    """The largest subnet of the search's supernet, for inputs of this size."""
    plan = search.plan
    family, arch = plan.recipe.family, plan.problem.space.largest()
    subnet = open_subnets_of(search.folder, family, plan.recipe.task).extract(arch)
    settings, weights = dict(plan.geometry.settings), subnet.state_dict()
    if ends != plan.recipe.task.ends(plan.splits):
        made = refitted(family, settings, weights, ends, arch=arch)
        settings, weights = made.settings, made.weights
    return Teacher("the supernet's largest subnet", arch, settings, weights)
