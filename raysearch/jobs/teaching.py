"""Another network that teaches: checked before anything is computed, kept in the output folder, offered to the processes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from raysearch.distributed.files import NodeFile, serve, share
from raysearch.distributed.teaching import teacher_logits
from raysearch.errors import SettingError
from raysearch.jobs.progress import activity, say_on
from raysearch.recipes import Recipe
from raysearch.tasks import Splits
from raysearch.training.config import TrainingConfig
from raysearch.training.teacher import TeacherFile, find_teacher, write_logits


def taught(recipe: Recipe[Any, Any], given: Collection[str]) -> TrainingConfig:
    """The training of ``recipe``, taught by the teacher that is named unless another source was given.

    Raises UserError for a teacher that is missing or would teach nobody.
    """
    train, name = recipe.train, recipe.teacher.name
    if name is not None and train.distill.source == "none" and "train.distill.source" not in given:
        train = replace(train, distill=replace(train.distill, source="teacher"))
    if train.distill.source == "teacher" and name is None:
        raise SettingError("train.distill.source", "is teacher, but --teacher.name gives none")
    if train.distill.source != "teacher" and name is not None:
        raise SettingError("teacher.name", f"is {name}, but --train.distill.source {train.distill.source} lets it teach nobody")
    return train


def check_cached(recipe: Recipe[Any, Any]) -> None:
    """Raises UserError where logits of whole images would be taken for those of mixed ones."""
    if recipe.teacher.cache and (recipe.train.mixup or recipe.train.cutmix):
        raise SettingError(
            "teacher.cache",
            "keeps logits of whole images, but Mixup and CutMix mix them; give --train.mixup 0 --train.cutmix 0, or no cache",
        )


def named_teacher(recipe: Recipe[Any, Any], splits: Splits) -> TeacherFile | None:
    """The teacher that the recipe names, fit for its images; None without one. Raises UserError for one that does not fit."""
    if recipe.train.distill.source != "teacher":
        return None
    ends = recipe.task.ends(splits)
    return find_teacher(recipe.teacher, outputs=ends.outputs, in_chans=ends.input_shape[0])


def kept_teacher(
    recipe: Recipe[Any, Any], splits: Splits, folder: Path, console: Console
) -> tuple[NodeFile | None, NodeFile | None]:
    """The recipe's teacher as a file for every node, and its logits of the training images where the recipe asks for these.

    Both are made once and stay in ``folder``: a resumed training is taught by the same network, wherever it came from.
    """
    if recipe.train.distill.source != "teacher":
        return None, None
    kept, logits, server = folder / "teacher.safetensors", folder / "teacher-logits.safetensors", serve()
    if not kept.exists():
        with activity(console, f"reading the teacher {recipe.teacher.name}"):
            found = named_teacher(recipe, splits)
            assert found is not None
            found.write(kept)
    file = share(kept, server=server)
    if not recipe.teacher.cache:
        return file, None
    if not logits.exists():
        with activity(console, f"the teacher judges {len(splits.train):,} training images"):
            nodes, say = recipe.train.nodes, say_on(console)
            write_logits(logits, teacher_logits(file, recipe.task, images=splits.digest, nodes=nodes, say=say))
    return file, share(logits, server=server)
