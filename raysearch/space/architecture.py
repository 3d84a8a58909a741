"""Architectures: frozen values, normalised, with JSON text and a short id that is the same in every process."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import types
import typing
from dataclasses import fields
from typing import Any, Self, cast

from raysearch.errors import UserError


def field_types(cls: type) -> dict[str, Any]:
    """The declared type of each field of a dataclass."""
    known: dict[str, Any] | None = cls.__dict__.get("_field_types")
    if known is None:
        hints = typing.get_type_hints(cls)
        known = {f.name: hints[f.name] for f in fields(cls)}
        # On the class, not in a cache beside it: a class that travels by value reaches processes in which the module that its
        # annotations name does not exist, and must bring their meaning along.
        type.__setattr__(cls, "_field_types", known)
    return known


def _normalised(hint: Any, value: Any, place: str) -> Any:
    """``value`` as its declared type, so that ``4`` and ``4.0``, lists and tuples, JSON and Python agree."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and not isinstance(value, str):
        try:
            items = tuple(value)
        except TypeError:
            raise UserError(f"{place} is {value!r}, not a sequence") from None
        hints = itertools.repeat(arguments[0]) if arguments[-1] is Ellipsis else arguments
        if arguments[-1] is not Ellipsis and len(arguments) != len(items):
            raise UserError(f"{place} has {len(items)} entries, not {len(arguments)}")
        return tuple(_normalised(h, v, f"{place}[{i}]") for i, (h, v) in enumerate(zip(hints, items, strict=False)))
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in arguments:
            return None
        rest = [a for a in arguments if a is not types.NoneType]
        if len(rest) == 1:
            return _normalised(rest[0], value, place)
        return value
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and not isinstance(value, bool | str):
        try:
            whole = int(value)
        except (TypeError, ValueError, OverflowError):
            whole = None
        if whole is not None and whole == value:
            return whole
    if hint is float and not isinstance(value, bool | str):
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if math.isfinite(number):
            return number + 0.0  # -0.0 equals 0.0 but is written differently, which would give equal architectures two ids
    if hint is str and isinstance(value, str):
        return value
    raise UserError(f"{place} is {value!r}, not {getattr(hint, '__name__', hint)}")


class Architecture:
    """One subnet: the base of a space's frozen dataclass. Hashable, so it is its own key in caches and populations.

    A subclass is a ``@dataclass(frozen=True)`` whose fields are named like the space's choices. Values are normalised to the
    declared types (``4`` and ``4.0`` are the same architecture). A subclass with its own ``__post_init__`` calls this first.
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        """Normalise every field; raises UserError that names the field which does not fit."""
        for name, hint in field_types(type(self)).items():
            object.__setattr__(self, name, _normalised(hint, getattr(self, name), name))

    def to_dict(self) -> dict[str, Any]:
        """Field names and values, tuples as lists, ready for JSON."""
        return json.loads(self.to_json())

    def to_json(self) -> str:
        """One line of JSON with sorted keys: equal architectures give equal text."""
        values = {name: getattr(self, name) for name in field_types(type(self))}
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`. Raises UserError for missing or unknown names."""
        names = set(field_types(cls))
        if set(values) != names:
            odd = ", ".join(sorted(names ^ set(values)))
            raise UserError(f"not a {cls.__name__}: missing or unknown {odd}")
        return cls(**values)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Inverse of :meth:`to_json`. Raises UserError when the text is not such an architecture."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"not a {cls.__name__}: {error}") from None
        if not isinstance(values, dict):
            raise UserError(f"not a {cls.__name__}: {text[:60]!r}")
        return cls.from_dict(cast(dict[str, Any], values))

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits, the same in every process: a hash of the JSON text."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]
