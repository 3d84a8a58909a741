"""A recipe read back from the ``config.json`` of a search."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, cast

from raysearch.recipes.recipe import Recipe


@dataclass(frozen=True, slots=True)
class StoredSearch:
    """What a search's configuration says: its recipe, and what it was given beside it."""

    recipe: Recipe
    images: str | None
    """Begin of the digest of images and splits."""
    supernet: str | None
    """Begin of the digest of the given supernet; None where it was trained."""
    warm_start: tuple[str, ...]
    """Ids of the architectures that opened it."""


def stored_search(values: dict[str, Any], place: Path) -> StoredSearch:
    """From the group ``recipe`` of the configuration at ``place``, which a ValueError of :func:`stored_recipe` then names."""
    stored = dict(values)
    # They stand there too, so that a search cannot be resumed with other images or weights.
    images, supernet, warm_start = (stored.pop(name, None) for name in ("images", "supernet", "warm_start"))
    try:
        return StoredSearch(stored_recipe(stored), images, supernet, tuple(warm_start or ()))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def stored_recipe(values: dict[str, Any]) -> Recipe:
    """Inverse of ``Recipe.to_dict``. Settings that an earlier version did not have take their defaults.

    Raises ValueError that names a setting which is not known, missing or impossible.
    """
    return cast(Recipe, _dataclass(Recipe, values, "recipe"))


def _dataclass(kind: type, values: Any, place: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{place} is {values!r}, not a group of settings")
    given = cast(dict[str, Any], values)
    hints = typing.get_type_hints(kind)
    names = [f.name for f in fields(kind)]
    if unknown := [name for name in given if name not in names]:
        raise ValueError(f"{place}.{unknown[0]} is no setting of this version; use the version that made the search")
    try:
        return kind(**{name: _value(hints[name], value, f"{place}.{name}") for name, value in given.items()})
    except TypeError as error:
        raise ValueError(f"{place} lacks settings ({error}); use the version that made the search") from None


def _value(hint: Any, value: Any, place: str) -> Any:
    """A JSON value as its declared type: groups as dataclasses, lists as tuples, names of folders as paths."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if isinstance(value, dict):
        groups = [kind for kind in kinds if is_dataclass(kind)]
        if len(groups) != 1:
            raise ValueError(f"{place} is a group of settings, which this version does not expect there")
        return _dataclass(cast(type, groups[0]), value, place)
    if isinstance(value, list):
        return tuple(cast(list[Any], value))
    return Path(value) if isinstance(value, str) and Path in kinds else value
