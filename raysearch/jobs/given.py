"""A supernet that is given by a file knows its sizes: they are taken from it, but for those that the user gives."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from operator import attrgetter
from typing import Any, cast

from raysearch.errors import UserError
from raysearch.recipes import Recipe
from raysearch.training.supernets import SupernetFile


def sized_by_supernet(
    recipe: Recipe[Any, Any], file: SupernetFile, given: frozenset[str]
) -> tuple[Recipe[Any, Any], frozenset[str]]:
    """The recipe with the settings of net, space and images that the file states, and the names of these.

    A file of ours says how its family was configured, space included. Of another one the arguments of the supernet's
    constructor are known: each is taken for the setting of its name. What is in ``given`` stays, also where the file
    contradicts it: the check of the whole names that.
    """
    known, taken = dict(_flat(file.config or {})), set[str]()
    for part in ("config", "task"):
        for name, old in _leaves(getattr(recipe, part)):
            found = known.get(name) if part == "config" else None
            new: Any = file.settings.get(name.rpartition(".")[2]) if found is None else found
            new = tuple(cast(list[Any], new)) if isinstance(new, list) else new
            if new is None or name in given or type(new) is not type(old):
                continue
            try:
                recipe = replace(recipe, **{part: with_setting(getattr(recipe, part), name, new)})
            except UserError:  # it does not fit what stands beside it, as colour to the mean of grey: the check of all says so
                continue
            taken.add(name)
    return recipe, frozenset(taken)


def _leaves(config: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by name, as ``net.depth``."""
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from _leaves(value, f"{place}{f.name}.")
        else:
            yield place + f.name, value


def _flat(values: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(cast(Mapping[str, Any], value), f"{place}{name}.")
        else:
            yield place + name, value


def with_setting(config: Any, name: str, value: Any) -> Any:
    """The dataclass with another value of one setting, as ``net.depth``."""
    group, _, rest = name.partition(".")
    return replace(config, **{group: with_setting(getattr(config, group), rest, value) if rest else value})


def with_given(config: Any, asked: Any, given: Collection[str], *, group: str) -> Any:
    """The dataclass with those settings of another one that are named in ``given``, as ``train.lr`` of the group ``train``."""
    for name in sorted(given):
        place, _, setting = name.partition(".")
        if place == group:
            config = with_setting(config, setting, attrgetter(setting)(asked))
    return config
