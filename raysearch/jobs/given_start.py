"""A given supernet of other classes: its body is where the training begins, with a head that is drawn anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from raysearch.errors import UserError
from raysearch.recipes import Recipe
from raysearch.spaces import Geometry
from raysearch.spaces.other_ends import head_names, refitted
from raysearch.tasks import Ends
from raysearch.training.supernets import SupernetFile


@dataclass(frozen=True, eq=False, slots=True)
class Start:
    """Weights that the supernet's training begins with."""

    source: str
    """The file or the name that was given."""
    weights: Mapping[str, Tensor]
    words: str
    """What is said of it before the search begins."""
    unordered: bool = False
    """Whether the family prepares it first: trains its head, and orders its parts by what they are worth."""

    @property
    def seen(self) -> str:
        """What a reader must know of scores: the weights may have learned images that are scored on."""
        return (
            "The supernet's training began with weights that learned other classes, on images that are not known here: if "
            "search, finalist or test images were among them, scores on these are too high."
        )


def other_classes(file: SupernetFile, ends: Ends, classes: Sequence[str]) -> str | None:
    """In words how a supernet's classes differ from those of the data; None where they do not, as far as the file tells."""
    if file.family.for_ends is None:
        return None
    try:
        head = head_names(file.family, file.settings, ends, arch=None)
    except UserError:  # sizes that do not fit these images are told one by one where the supernet is refused
        return None
    outputs = file.weights[head[0]].shape[0]
    if outputs != ends.outputs:
        return f"it has {outputs:,} classes, the images {ends.outputs:,}"
    if file.classes is not None and list(classes) != file.classes:
        return "its classes have other names than those of the images"
    return None


def start_of(
    path: Path, file: SupernetFile, recipe: Recipe[Any, Any], geometry: Geometry[Any], ends: Ends, *, why: str
) -> Start:
    """The start that a supernet's file gives; ``why`` it is no supernet to be searched as it is.

    Raises UserError when its body does not fit the recipe.
    """
    train = recipe.train
    try:
        made = refitted(
            file.family, file.settings, file.weights, ends, arch=None, weight_init=train.weight_init, seed=recipe.seed
        )
    except UserError as error:
        raise UserError(f"--supernet {path} does not fit the recipe {recipe.name}: {error}") from None
    if differing := [name for name, size in geometry.settings.items() if made.settings.get(name) != size]:
        pairs = ", ".join(f"{name} {made.settings.get(name)} instead of {geometry.settings[name]}" for name in differing)
        raise UserError(f"--supernet {path} does not fit the recipe {recipe.name}: {pairs}")
    words = (
        f"--supernet {path}: {why}, so its body is the start of a training of {train.epochs} epochs, with a new head "
        f"({', '.join(made.fresh)})"
    )
    return Start(str(path), made.weights, words)
