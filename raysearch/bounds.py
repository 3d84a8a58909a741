"""Which numbers a setting may have: declared beside each field, checked in one place, before anything starts.

A field says what it takes in its type, ``epochs: Count = 300`` or ``explore: Annotated[float, between(0, 1)] = 0.1``, and its
dataclass calls :func:`check_numbers` when it is made. What is not finite is refused everywhere, declared or not.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, cast

from raysearch.errors import SettingError


@dataclass(frozen=True, slots=True)
class Bounds:
    """An interval of finite numbers; None: no bound on that side."""

    least: float | None = None
    above: float | None = None
    """A bound that is not admitted itself."""
    most: float | None = None
    below: float | None = None
    """A bound that is not admitted itself."""

    def admits(self, number: float) -> bool:
        """Whether ``number`` is finite and inside."""
        return (
            math.isfinite(number)
            and (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.most is None or number <= self.most)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        """As a message says it: ``at least 0 and below 1``."""
        if self.least is not None and self.most is not None:
            return f"between {self.least:.15g} and {self.most:.15g}"
        words = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{word} {bound:.15g}" for word, bound in words.items() if bound is not None) or "finite"


FINITE = Bounds()


def at_least(least: float) -> Bounds:
    """From ``least`` on."""
    return Bounds(least=least)


def above(bound: float) -> Bounds:
    """Greater than ``bound``."""
    return Bounds(above=bound)


def between(least: float, most: float) -> Bounds:
    """From ``least`` to ``most``, both admitted."""
    return Bounds(least=least, most=most)


Count = Annotated[int, at_least(1)]
"""How many, where none makes no sense."""
CountOrNone = Annotated[int, at_least(0)]
"""How many, 0 included."""
Positive = Annotated[float, above(0)]
NotNegative = Annotated[float, at_least(0)]
Share = Annotated[float, between(0, 1)]
"""A share or a probability."""
Seed = Annotated[int, between(0, 2**32 - 1)]
"""What every random number generator takes."""


def check_numbers(config: Any) -> None:
    """Raises SettingError for the first number in a dataclass, or in one inside it, that is not finite or out of its bounds."""
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value) and not isinstance(value, type):
            try:
                check_numbers(value)
            except SettingError as error:
                raise error.inside(f.name) from None
            continue
        for number in _numbers(value):
            declared = declared_bounds(type(config))[f.name]
            bounds = declared.get(type(number)) or next(iter(declared.values()), FINITE)
            if not bounds.admits(number):
                finite = "" if math.isfinite(number) or bounds == FINITE else "finite and "
                raise SettingError(f.name, f"is {_shown(value)}, must be {finite}{bounds}")


@cache
def declared_bounds(kind: type) -> dict[str, dict[type, Bounds]]:
    """The bounds of each field of a dataclass, by the type of number that they are for."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {f.name: dict(_bounds(hints[f.name])) for f in fields(kind)}


def _bounds(hint: Any) -> Iterator[tuple[type, Bounds]]:
    """Wherever they stand in an annotation: ``Count | None``, ``tuple[Positive, ...]``."""
    if typing.get_origin(hint) is Annotated:
        base, *extras = typing.get_args(hint)
        found = [extra for extra in extras if isinstance(extra, Bounds)]
        if found and isinstance(base, type) and not isinstance(base, types.GenericAlias):
            yield base, found[0]
        else:
            yield from _bounds(base)
    else:
        for part in typing.get_args(hint):
            yield from _bounds(part)


def _numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    elif isinstance(value, list | tuple):
        for item in cast(tuple[Any, ...], value):
            yield from _numbers(item)


def _shown(value: Any) -> str:
    """As it stands on a command line."""
    if isinstance(value, list | tuple):
        return " ".join(map(_shown, cast(tuple[Any, ...], value)))
    return f"{value:.15g}" if isinstance(value, float) else str(value)
