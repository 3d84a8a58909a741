"""A recipe read back from the ``config.json`` of a search."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from raysearch.distributed.deadline import DeadlineConfig
from raysearch.errors import SettingError, UserError
from raysearch.nodes import NodesConfig
from raysearch.recipes.recipe import BESIDE, ChampionConfig, Recipe, flat_settings
from raysearch.search import InformativeConfig
from raysearch.spaces import Family
from raysearch.spaces.family import DEFAULT, family_of_files
from raysearch.tasks import IMAGE_CLASSIFICATION, Task, find_task
from raysearch.training.config import TrainingConfig
from raysearch.training.teacher import TeacherConfig

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredSearch:
    """What a search's configuration says: its recipe, and what it was given beside it."""

    recipe: Recipe[Any, Any]
    images: str | None
    """Begin of the digest of images and splits."""
    supernet: str | None
    """Begin of the digest of the given supernet; None where it was trained."""
    warm_start: tuple[str, ...]
    """Ids of the architectures that opened it."""


_PUBLISHED = asdict(TrainingConfig())
_SINCE_0_1_0 = frozenset(
    (
        *("strategy", "largest_first", "widen", "draw_from", "arch_per_rank", "distill", "ema", "layer_decay", "micro_batch"),
        *("compile", "fsdp", "shards", "save_epochs", "save_minutes", "nodes"),
    )
)
"""Settings of training that came later; their defaults are what it did before."""
_SINCE: Mapping[str, Mapping[str, Any]] = {
    "augment": {"erasing_mode": "pixel", "erasing_count": 1},
    "train": {"max_skipped_steps": 0, **{name: _PUBLISHED[name] for name in _SINCE_0_1_0}},
    "evaluators": {"nodes": asdict(NodesConfig()), "deadline": asdict(DeadlineConfig())},
    "predictor": {"ahead": 0},
    "finalists": {"choose": "best"},
    "report": {"baseline_epochs": None},
}
"""What settings of each group that came later stand for in a search that did not have them."""


def of_0_1_0(values: Mapping[str, Any]) -> bool:
    """Whether version 0.1.0 began a search, also where a later one resumed it and wrote its configuration again."""
    dataset: Any = upgraded(values).get("dataset")
    return isinstance(dataset, Mapping) and cast(Mapping[str, Any], dataset).get("rules") == "0.1"


def upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of any version as this one writes it: settings that were added since at what they stood for then.

    0.1.0 had one family and one task, which it did not name; nothing was fitted to the machine; the seed of the search divided
    the images, no image was kept for the finalists, and the best of them was the champion, which kept its inherited weights; it
    told images by their names and sizes, cropped them from their full size, and ended at one that it could not read, as at a
    loss that was not finite.
    """
    left = {"family": DEFAULT, "task": IMAGE_CLASSIFICATION, "fits": False, **values}
    if isinstance(dataset := left.get("dataset"), Mapping):
        held = cast(Mapping[str, Any], dataset)
        columns = {"image_column": None, "label_column": None, "split_column": None}
        of_dataset = {"skip_unreadable": False, "white": None, "uri": None, "stream": False, **columns}
        if "split_seed" not in held:
            of_dataset |= {"split_seed": left.get("seed", 0), "finalist_images": 0, "shrink": 0.0, "rules": "0.1"}
        left["dataset"] = {**of_dataset, **held}
    for name, since in _SINCE.items():
        if isinstance(group := left.get(name), Mapping):
            left[name] = {**since, **cast(Mapping[str, Any], group)}
    for name, settings in (("informative", InformativeConfig()), ("teacher", TeacherConfig())):
        left[name] = {**asdict(settings), **cast(Mapping[str, Any], left.get(name, {}))}
    left.setdefault("baselines", [])
    left.setdefault("champion", asdict(ChampionConfig(epochs=0)))
    return left


def stored_search(values: Mapping[str, Any], place: Path, family: Family[Any, Any] | None = None) -> StoredSearch:
    """From the group ``recipe`` of the configuration at ``place``, which a UserError of :func:`stored_recipe` then names."""
    stored = {name: value for name, value in values.items() if name not in BESIDE}
    try:
        recipe = stored_recipe(stored, family)
    except ValueError as error:
        raise UserError(f"{place}: {error}") from None
    return StoredSearch(recipe, values.get("images"), values.get("supernet"), tuple(values.get("warm_start") or ()))


def stored_recipe(values: Mapping[str, Any], family: Family[Any, Any] | None = None) -> Recipe[Any, Any]:
    """Inverse of ``Recipe.to_dict``. Settings that an earlier version did not have take their defaults.

    ``family`` is needed for one of the user's own: reading a configuration executes nothing. Raises UserError that names a
    setting which is not known, missing or impossible.
    """
    left = upgraded(values)
    kind = family_of_files(left.pop("family"), family)
    task = find_task(left.pop("task"))
    parts: dict[str, Any] = {}
    for part, cls in (("task", task), ("config", kind.config)):
        parts[part] = _read(cls, {f.name: left.pop(f.name) for f in fields(cast(Any, cls)) if f.name in left}, "recipe")
    hints = typing.get_type_hints(Recipe)
    own = [f.name for f in fields(Recipe) if f.name not in ("family", "task", "config")]
    if unknown := [name for name in left if name not in own]:
        raise UserError(f"recipe.{unknown[0]} is no setting of this version; use the version that made the search")
    if absent := [name for name in ("name", "train") if name not in left]:
        raise UserError(f"recipe lacks settings ({absent[0]}); use the version that made the search")
    return Recipe(family=kind, **parts, **{name: _read(hints[name], value, f"recipe.{name}") for name, value in left.items()})


def stored_task(values: Mapping[str, Any]) -> Task:
    """A task of its settings and its name. Raises UserError that names a setting which is not known, missing or impossible."""
    return _read(find_task(values["name"]), {name: value for name, value in values.items() if name != "name"}, "task")


def _read(kind: Any, value: Any, place: str) -> Any:
    """A JSON value as its declared type."""
    try:
        read = TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([place, *map(str, first["loc"])])
        if first["type"] == "missing":
            raise UserError(f"{where} is missing; use the version that made the search") from None
        if isinstance(wrong := first.get("ctx", {}).get("error"), SettingError):
            raise UserError(str(wrong.inside(where))) from None
        raise UserError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
    if isinstance(value, Mapping):
        known = _names(read)
        if unknown := [name for name in flat_settings(cast(Mapping[str, Any], value)) if name not in known]:
            raise UserError(f"{place}.{unknown[0]} is no setting of this version; use the version that made the search")
    return read


def _names(value: Any, place: str = "") -> set[str]:
    """Names of all settings in a dataclass, as :func:`flat_settings` writes them; those of a group that is None too."""
    names: set[str] = set()
    for f in fields(value):
        part = getattr(value, f.name)
        names |= _names(part, f"{place}{f.name}.") if hasattr(part, "__dataclass_fields__") else {place + f.name}
    return names
