"""How long a search will take and how much memory, from a timed step; and what it is cut down to where time is limited."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from raysearch.errors import UserError
from raysearch.recipes import Recipe
from raysearch.recipes.fitted import Machine
from raysearch.report.tables import duration_text
from raysearch.training.alone import shortened
from raysearch.training.timing import Timing, items_at_once

START_S = 15.0
"""Seconds of each of training and search in which processes start."""
CANDIDATE_S = 0.03
"""Seconds of a candidate beside its scoring: extraction, journal, record."""
TAUGHT = 1.5
"""How much longer a step takes in which the largest subnet is asked as well."""
EPOCH_S = 0.1
"""Seconds of an epoch beside its steps: its checkpoint."""
MARGIN = 0.85
"""Share of the time that is planned with: a timed step is one moment's, and other programs want processors too."""
SEARCH_SHARE = 0.25
"""Share of a limited time that searching may take at most."""
PROCESS_BYTES = 700 << 20
"""Memory of a process with PyTorch and Ray before it holds anything."""
LONGEST_S = 7 * 86_400
"""Longest expected time that a search begins without ``--time``."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_duration(text: str) -> float:
    """Seconds of ``90s``, ``30m``, ``4h``, ``1h30m`` or ``2d``. Raises UserError for anything else."""
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd])", text.lower())
    seconds = sum(float(amount) * _UNITS[unit] for amount, unit in parts)
    if "".join(amount + unit for amount, unit in parts) != re.sub(r"\s", "", text.lower()) or not seconds > 0:
        raise UserError(f"--time is {text!r}; give a duration such as 30m, 4h or 1h30m")
    return seconds


@dataclass(frozen=True, slots=True)
class Load:
    """What a search has to do, in numbers that its settings and data fix."""

    train_images: int
    search_images: int
    """Scored per candidate."""
    judged_images: int
    """Scored per compared subnet at the end: finalists' and test images."""
    compared: int
    """Subnets compared at the end."""
    candidates: int
    processes: int
    """Training processes."""
    evaluators: int
    loaders: int
    """Processes that prepare training images beside the training processes."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Seconds that the phases of a search will take."""

    train: float
    search: float
    report: float
    champion: float = 0.0
    """Of the champion's further training, and of the random subnet's beside it."""
    baselines: float = 0.0
    """Of networks of timm's beside it, at most: as long as from scratch."""

    @property
    def total(self) -> float:
        """Seconds of the whole job."""
        return self.train + self.search + self.report + self.champion + self.baselines

    def __str__(self) -> str:
        """As ``21m (train 18m, search 2m, the rest 1m)``."""
        phases = [("train", self.train), ("search", self.search)]
        if self.champion:
            phases.append(("fine-tune", self.champion))
        if self.baselines:
            phases.append(("baselines at most", self.baselines))
        parts = ", ".join(f"{name} {duration_text(seconds)}" for name, seconds in [*phases, ("the rest", self.report)])
        return f"{duration_text(self.total)} ({parts})"


@dataclass(frozen=True, slots=True)
class Measured:
    """A timed step, and the seconds of one processor that prepare one training image."""

    timing: Timing
    prepare_s: float
    machine: Machine


def epoch_seconds(load: Load, measured: Measured, *, batch_size: int) -> float:
    """Seconds of one epoch of training."""
    steps = max(1, load.train_images // batch_size)
    preparing = load.train_images * measured.prepare_s
    computing = steps * measured.timing.step_s
    if measured.machine.gpus:  # images are prepared on processors while GPUs compute
        return max(computing, preparing / max(1, load.loaders or load.processes)) + EPOCH_S
    return computing + preparing / max(1, min(measured.machine.cores, load.processes + load.loaders)) + EPOCH_S


def expected(recipe: Recipe[Any, Any], load: Load, measured: Measured, *, trains: bool) -> Expected:
    """Seconds of each phase of ``recipe``."""
    score_s = measured.timing.score_s / load.evaluators
    epoch_s = epoch_seconds(load, measured, batch_size=recipe.train.batch_size)
    return Expected(
        train=START_S + recipe.train.epochs * epoch_s if trains else 0.0,
        search=START_S + load.candidates * (CANDIDATE_S + load.search_images * score_s),
        report=START_S + load.compared * (CANDIDATE_S + load.judged_images * score_s),
        champion=_champion_seconds(recipe, epoch_s),
        baselines=_baseline_seconds(recipe, epoch_s),
    )


def _champion_seconds(recipe: Recipe[Any, Any], epoch_s: float) -> float:
    """Of the further training of two networks whose steps take as long as a random subnet's; 0 where there is none."""
    if not recipe.champion.epochs:
        return 0.0
    taught = TAUGHT if recipe.champion.distill else 1.0
    return START_S + 2 * recipe.champion.epochs * epoch_s * taught


def _baseline_seconds(recipe: Recipe[Any, Any], epoch_s: float) -> float:
    """Of networks of timm's whose steps take as long as a random subnet's, and which timm has no weights for."""
    if not recipe.baselines:
        return 0.0
    epochs = recipe.report.baseline_epochs or recipe.train.epochs
    return START_S + len({*recipe.baselines}) * epochs * epoch_s * (TAUGHT if recipe.champion.distill else 1.0)


def within(
    recipe: Recipe[Any, Any], load: Load, measured: Measured, *, seconds: float, given: Collection[str], trains: bool
) -> tuple[Recipe[Any, Any], Load]:
    """``recipe`` with as many epochs and candidates, at most its own, as ``seconds`` allow; those that are ``given`` stay.

    Raises UserError when not even one epoch and the smallest search would fit.
    """
    told = expected(recipe, load, measured, trains=trains)
    searching = told.search - START_S
    most = max(0.0, SEARCH_SHARE * seconds - START_S)
    if searching > most:
        recipe, candidates = _smaller_search(recipe, round(load.candidates * most / searching), given)
        load = replace(load, candidates=candidates)
        told = expected(recipe, load, measured, trains=trains)
    if trains and "train.epochs" not in given:
        epoch_s = epoch_seconds(load, measured, batch_size=recipe.train.batch_size)
        fixed = told.search + told.report + (told.baselines if recipe.report.baseline_epochs else 0.0)
        left = MARGIN * seconds - fixed - START_S
        # The champion's epochs keep their share of the supernet's, unless they are given.
        cut = recipe.champion.epochs > 0 and "champion.epochs" not in given
        left -= START_S if cut else told.champion
        beside = (told.champion - START_S) / recipe.train.epochs if cut else 0.0
        if recipe.baselines and not recipe.report.baseline_epochs:
            left -= START_S
            beside += (told.baselines - START_S) / recipe.train.epochs
        epochs = min(recipe.train.epochs, int(left / (epoch_s + beside)))
        if epochs < 1:
            raise UserError(
                f"{duration_text(seconds)} is too short: one epoch of training takes {duration_text(epoch_s)}, search and "
                f"report {duration_text(told.search + told.report)}; give more --time, or smaller --dataset.img-size"
            )
        if epochs < recipe.train.epochs:
            shorter = shortened(recipe.train, epochs)
            given_one = "train.warmup_epochs" in given
            warmup = min(recipe.train.warmup_epochs, epochs) if given_one else round(shorter.warmup_epochs, 1)
            champion = recipe.champion
            if cut:
                champion = replace(champion, epochs=max(1, round(champion.epochs * epochs / recipe.train.epochs)))
            recipe = replace(recipe, train=replace(shorter, warmup_epochs=warmup), champion=champion)
    return recipe, load


def _smaller_search(recipe: Recipe[Any, Any], candidates: int, given: Collection[str]) -> tuple[Recipe[Any, Any], int]:
    """``recipe`` with about so many candidates, whole generations of which there are at least two."""
    config: Any = recipe.algorithm_config
    size = config.generation_size
    group = {"evolution": "search", "random": "search"}.get(recipe.algorithm, recipe.algorithm)
    field = "candidates" if group == "ageing" else "generations"
    settings = getattr(recipe, group)
    held = getattr(settings, field)
    if f"{group}.{field}" in given:
        return recipe, held if field == "candidates" else held * size
    wanted = max(2 * size, candidates) if field == "candidates" else max(2, candidates // size)
    wanted = min(held, wanted)
    smaller = replace(recipe, **{group: replace(settings, **{field: wanted})})
    return smaller, wanted if field == "candidates" else wanted * size


def check_memory(recipe: Recipe[Any, Any], load: Load, measured: Measured, given: Collection[str]) -> Recipe[Any, Any]:
    """``recipe``, with fewer images in a forward pass where the training processes' memory would not do and none were given.

    Raises UserError where it does not fit. GPUs have been tried out by the timed step itself (:func:`smaller_passes`).
    """
    if measured.machine.gpus:
        return recipe
    timing, free = measured.timing, measured.machine.memory_bytes
    fixed = load.processes * (PROCESS_BYTES + timing.fixed_bytes)
    growing = load.processes * (timing.memory_bytes - timing.fixed_bytes)
    if fixed + growing <= free:
        return recipe
    at_once = fits = items_at_once(recipe.train, recipe.train.batch_size // load.processes)
    while fits > _least(recipe) and fixed + growing * fits / at_once > 0.8 * free:
        fits = max(_least(recipe), fits // 2)
    text = f"training needs about {_gb(fixed + growing)} GB in {load.processes} processes, {_gb(free)} GB are free"
    if fixed + growing * fits / at_once > free:
        raise UserError(f"{text}; give a smaller --dataset.img-size or network, or a machine with more memory")
    if "train.micro_batch" in given:
        raise UserError(f"{text}: --train.micro-batch {fits} would fit")
    return replace(recipe, train=replace(recipe.train, micro_batch=fits))


def smaller_passes(recipe: Recipe[Any, Any], load: Load, given: Collection[str]) -> Recipe[Any, Any]:
    """``recipe`` with half the images in a forward pass, of which a GPU's memory did not hold the share of one process.

    Raises UserError where their number was given, or is as small as it can be.
    """
    at_once = items_at_once(recipe.train, recipe.train.batch_size // load.processes)
    text = f"the GPU's memory does not hold a step of training on {at_once} images"
    if at_once <= _least(recipe):
        raise UserError(f"{text}; give a smaller --dataset.img-size or network, or a GPU with more memory")
    if "train.micro_batch" in given:
        raise UserError(f"{text}: give a smaller --train.micro-batch than {at_once}")
    return replace(recipe, train=replace(recipe.train, micro_batch=max(_least(recipe), at_once // 2)))


def _least(recipe: Recipe[Any, Any]) -> int:
    """Images that a forward pass needs: statistics of a batch are those of two at least."""
    return 2 if recipe.family.calibrates else 1


def check_days(told: Expected, machine: Machine, *, limited: bool) -> None:
    """Raises UserError where the search would take longer than anyone waits, unless ``--time`` was given."""
    if told.total > LONGEST_S and not limited:
        days = told.total / 86_400
        enough = math.ceil(days / MARGIN) + 1
        raise UserError(
            f"this would take about {days:,.0f} days on {machine}: give --time (as 8h) to have it cut down to what fits, fewer "
            f"--train.epochs, smaller images or networks, or a cluster; --time {enough}d insists"
        )


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f}"
