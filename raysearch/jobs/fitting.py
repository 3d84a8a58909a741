"""Before a search is begun: settings that follow from data and machine, a timed step, and what will take how long."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from raysearch.distributed.evaluators import plan_evaluators
from raysearch.distributed.growth import instead, share_of
from raysearch.distributed.room import NoNodeError
from raysearch.distributed.timing import timed_steps, training_processes
from raysearch.errors import UserError
from raysearch.jobs.expected import Load, Measured, check_days, check_memory, expected, parse_duration, smaller_passes, within
from raysearch.jobs.plan import Plan, SearchCommand
from raysearch.jobs.progress import activity, say_on
from raysearch.jobs.teaching import named_teacher
from raysearch.recipes.fitted import Machine
from raysearch.report.tables import duration_text
from raysearch.search import make_algorithm
from raysearch.space import Constraint
from raysearch.store.memory import free_memory_here
from raysearch.training.config import TrainingConfig
from raysearch.training.teacher import TeacherFile
from raysearch.training.timing import PROBED, Timing

ON_CPU_S = 25 * 60.0
ON_GPU_S = 4 * 3600.0
"""Seconds that a recipe of fitted settings is planned to take where ``--time`` says nothing."""
PREPARED_S = 1.0
"""Seconds for which the preparation of training images is timed at most."""


def machine_of_cluster(train: TrainingConfig) -> Machine:
    """What the connected cluster, or this machine, offers a training for which nodes may be started."""
    share = share_of("training", train.nodes)
    _, given = train.worker_range or (None, None)
    gpus = share.wanted(share.asks(), given=given) if share.accelerated else 0
    return Machine(cores=max(1, int(share.cpus)), gpus=gpus, memory_bytes=free_memory_here())


def say_plan(command: SearchCommand[Any, Any], plan: Plan, output: Path, console: Console) -> None:
    """Say what will be searched, on which images, and where the results go."""
    recipe, splits = plan.recipe, plan.splits
    lines = [
        f"{recipe.name}: {plan.problem.space.size():,} subnets, {plan.problem.constraint}; "
        f"{len(splits.train):,} images to train, {len(splits.search):,} to search, {len(splits.finalists):,} for finalists, "
        f"{len(splits.test):,} to test  ->  {output}",
        *(f"  {words}" for words in splits.notes),
    ]
    lines += [f"  {words}" for words in plan.geometry.remarks]
    if plan.start is not None:
        lines.append(f"  {plan.start.words}")
    elif plan.given is not None:
        lines.append(f"  --supernet {command.supernet}: it knows these classes, so training is skipped")
    if plan.seen:
        lines.append(f"  {plan.seen}")
    if recipe.fits:
        sizes = [plan.problem.cost(arch).params for arch in (plan.problem.space.smallest(), plan.problem.space.largest())]
        lines.append(
            f"  what was not given follows from images and machine: {recipe.task.described}; networks of {sizes[0]:,} to "
            f"{sizes[1]:,} parameters; batches of {recipe.train.batch_size}, learning rate {recipe.train.lr:.2g}"
        )
    if command.family is not None and recipe.constraint == Constraint():
        lines.append(
            "  no budget is given, and the recipe's was that of its own family: --constraint.max-params would give one"
        )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def fit_to_time(command: SearchCommand[Any, Any], plan: Plan, on: Machine, console: Console, *, output: Path) -> Plan:
    """The plan with epochs, candidates and batch that end in time and fit into memory; says what is planned and expected.

    Times a few training steps on the connected cluster. Without ``--time`` the settings of a recipe that does not fit itself
    to the machine stay as they are.

    Raises UserError where memory or days would not do, or the time given is too short for anything.
    """
    seconds = None if command.time is None else parse_duration(command.time)
    say_plan(command, plan, output, console)
    recipe, given = plan.recipe, command.given
    load = _load(plan, on)
    teacher = None if plan.given is not None else named_teacher(recipe, plan.splits)
    if recipe.teacher.cache:
        teacher = None  # it fits, and is not asked in training
    before = recipe.train.micro_batch
    with activity(console, "timing a step of training on a few images"):
        sample, prepare_s = _prepared(plan)
        timing = None
        while timing is None:
            try:
                timing = _timed(plan, recipe.train, sample, teacher, say=say_on(console))
            except NoNodeError as error:
                nodes = instead(recipe.train.nodes, error, say_on(console))
                recipe = replace(recipe, train=replace(recipe.train, nodes=nodes))
                on = machine_of_cluster(recipe.train)
                load = _load(replace(plan, recipe=recipe), on)
            else:
                recipe = recipe if timing is not None else smaller_passes(recipe, load, given)
    measured = Measured(timing, prepare_s, on)
    trains = plan.given is None
    if trains:
        recipe = check_memory(recipe, load, measured, given)
    if recipe.train.micro_batch != before:
        say_on(console)(
            f"steps of {recipe.train.batch_size} images in forward passes of {recipe.train.micro_batch} for each process: "
            "memory allows no more; results are the same to rounding"
        )
    limit = seconds or ((ON_GPU_S if on.gpus else ON_CPU_S) if recipe.fits else None)
    if limit is not None:
        wanted = recipe.train.epochs
        recipe, load = within(recipe, load, measured, seconds=limit, given=given, trains=trains)
        if recipe.train.epochs < wanted:
            words = f"{recipe.train.epochs} epochs of training instead of {wanted}, so that all ends within"
            more = "--time gives more" if seconds is None else "a longer --time gives more"
            say_on(console)(f"{words} {duration_text(limit)} on {on} with some to spare: {more}")
    told = expected(recipe, load, measured, trains=trains)
    check_days(told, on, limited=seconds is not None)
    if seconds is not None and told.total > seconds:
        raise UserError(
            f"--time {command.time}: with the settings given this takes about {duration_text(told.total)} on {on}; "
            "give more time, or fewer of --train.epochs and candidates"
        )
    console.print(f"expected: {told} on {on}", highlight=False, soft_wrap=True)
    return replace(plan, recipe=recipe)


def _load(plan: Plan, on: Machine) -> Load:
    recipe, splits = plan.recipe, plan.splits
    processes, _ = training_processes(recipe.train)
    evaluators, _ = plan_evaluators(recipe.evaluators)
    algorithm = make_algorithm(recipe.algorithm_config, plan.problem, seed=recipe.seed, initial=plan.initial)
    loaders = recipe.train.loader_workers
    if loaders is None:  # as each task finds right for the machine: beside GPUs, what the cores allow
        loaders = max(0, min(8, on.cores // processes - 1)) if on.gpus else 0
    return Load(
        train_images=len(splits.train),
        search_images=recipe.finalists.search_images or len(splits.search),
        judged_images=len(splits.finalists) + len(splits.test),
        compared=recipe.report.random_subnets + recipe.finalists.count + 3,
        candidates=algorithm.total,
        processes=processes,
        evaluators=evaluators,
        loaders=processes * loaders,
    )


def _prepared(plan: Plan) -> tuple[tuple[torch.Tensor, torch.Tensor], float]:
    """A few training items as a batch, and the seconds that each took one processor."""
    batches = plan.recipe.task.batches(plan.splits.train, batch_size=1, seed=plan.recipe.seed)
    items: list[tuple[torch.Tensor, torch.Tensor]] = []
    begun = time.perf_counter()
    for item in batches.epoch(0):
        items.append(item)
        if len(items) >= PROBED or time.perf_counter() - begun > PREPARED_S:
            break
    prepare_s = (time.perf_counter() - begun) / len(items)
    return (torch.cat([inputs for inputs, _ in items]), torch.cat([targets for _, targets in items])), prepare_s


def _timed(
    plan: Plan,
    train: TrainingConfig,
    sample: tuple[torch.Tensor, torch.Tensor],
    teacher: TeacherFile | None,
    *,
    say: Callable[[str], None],
) -> Timing | None:
    """A few steps on the sample; None where a GPU's memory does not hold a batch."""
    return timed_steps(
        plan.recipe.family, plan.settings, plan.draws, sample, task=plan.recipe.task, train=train, teacher=teacher, say=say
    )
