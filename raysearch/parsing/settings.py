"""How the parser makes settings: it remembers which were given, reads numbers as people write them, and names bad ones.

tyro builds dataclasses from the inside out. The rules here have it build a :class:`Read` of each instead, which carries beside
the value the names of what was given and what was wrong: so both have their whole names at the root, and the command line is
read once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from raysearch.bounds import check_numbers
from raysearch.errors import SettingError, UserError


@dataclass(frozen=True, slots=True)
class Read:
    """One dataclass as the command line gives it."""

    value: Any
    """Its instance; None where it could not be made."""
    given: frozenset[str]
    """Names of the settings that were given, as ``train.epochs``."""
    error: UserError | None = None
    """Why it could not be made."""

    def settings(self) -> Any:
        """The instance. Raises UserError, which begins with the flag where it is one setting's."""
        if isinstance(self.error, SettingError):
            raise UserError(f"--{self.error}") from None
        if self.error is not None:
            raise self.error
        return self.value


@dataclass(frozen=True, slots=True)
class _Given:
    """A value that stood on the command line."""

    value: Any


class _NotGiven(int):
    """True or False by default. The parser makes switches of bools and takes any number for their default."""

    def __str__(self) -> str:
        return str(bool(self))


def registry() -> ConstructorRegistry:
    """Rules for :func:`tyro.cli`, which then returns a :class:`Read`."""
    rules = ConstructorRegistry()
    within: list[type] = []  # the standard rule is asked through the same registry, which must pass then

    @rules.struct_rule
    def remembering(info: StructTypeInfo) -> StructConstructorSpec | None:
        if not is_dataclass(info.type) or info.type in within or info.type.__module__.startswith("tyro"):
            return None
        within.append(info.type)
        try:
            standard = ConstructorRegistry.get_struct_spec(info)
        finally:
            within.pop()
        if not isinstance(standard, StructConstructorSpec):
            return None
        marked = tuple(_marked(field, set(info.markers)) for field in standard.fields)
        return StructConstructorSpec(partial(_read, standard.instantiate, _unnamed(info.type)), marked)

    @rules.primitive_rule
    def number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        if info.type not in (int, float):
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=info.type.__name__.upper(),
            instance_from_str=lambda words: (whole_number if info.type is int else real_number)(words[0]),
            is_instance=lambda value: _is_number(value, info.type),
            str_from_instance=lambda value: [str(value)],
        )

    assert remembering is not None
    assert number is not None
    return rules


def _is_number(value: Any, kind: type) -> Any:
    """As tyro says it: a whole number is a float too, if nothing else fits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return True if type(value) is kind else "~" if kind is float else False


def _unnamed(kind: type) -> frozenset[str]:
    """Fields whose own fields stand beside the others on the command line: ``tyro.conf.arg(name="")``."""
    extras = {name: getattr(hint, "__metadata__", ()) for name, hint in get_type_hints(kind, include_extras=True).items()}
    return frozenset(f.name for f in fields(kind) if any(getattr(extra, "name", None) == "" for extra in extras[f.name]))


def _marked(field: StructFieldSpec, markers: set[Any]) -> StructFieldSpec:
    """The field, of which what is given comes as :class:`_Given`; one that is a dataclass itself as it is."""
    info = PrimitiveTypeInfo.make(field.type, markers)
    if info.type is bool and isinstance(field.default, bool):
        return replace(field, default=_NotGiven(field.default))
    spec = ConstructorRegistry.get_primitive_spec(info)
    if not isinstance(spec, PrimitiveConstructorSpec):
        return field
    reading = replace(spec, instance_from_str=partial(_given, spec.instance_from_str, frozenset(_kinds(field.type))))
    return replace(field, type=cast(Any, Annotated[field.type, reading]))


def _given(instance_from_str: Callable[[list[str]], Any], kinds: frozenset[type], words: list[str]) -> _Given:
    try:
        return _Given(instance_from_str(words))
    except ValueError:
        # What tyro says of a type of several kinds, as a number or None, lists why it is none of them.
        if kinds & {int, float} and kinds <= {int, float, type(None)}:
            for word in words:
                _ = (real_number if float in kinds else whole_number)(word)
        raise


def _kinds(annotation: Any) -> Iterator[type]:
    """The types that an annotation is made of."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    parts = [part for part in get_args(annotation) if part is not ...]
    if not parts:
        yield annotation
    for part in parts:
        yield from _kinds(part)


def _read(make: Callable[..., Any], unnamed: frozenset[str], **values: Any) -> Read:
    """One dataclass of what the parser found for its fields."""
    made: dict[str, Any] = {}
    given: set[str] = set()
    for name, value in values.items():
        match value:
            case Read():
                group = "" if name in unnamed else f"{name}."
                if isinstance(value.error, SettingError):
                    return Read(None, frozenset(), value.error.inside("" if name in unnamed else name))
                if value.error is not None:
                    return value
                made[name] = value.value
                given |= {group + inner for inner in value.given}
            case _Given():
                made[name] = value.value
                given.add(name)
            case _NotGiven():
                made[name] = bool(value)
            case bool():
                made[name] = value
                given.add(name)
            case _:
                made[name] = value
    try:
        instance = make(**made)
        check_numbers(instance)
    except UserError as error:
        return Read(None, frozenset(given), error)
    except ValueError as error:  # of a family of the user's own, whose settings check themselves
        return Read(None, frozenset(given), UserError(str(error)))
    return Read(instance, frozenset(given))


# --- numbers ----------------------------------------------------------------------------------------------------------

_FACTORS: Mapping[str, float] = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
_NUMBER = re.compile(r"(?P<digits>[+-]?(?:\d[\d_]*)?(?:\.\d*)?)(?P<exponent>[eE][+-]?\d+)?(?P<factor>[kKMGBT]?)")


def real_number(text: str) -> float:
    """``6e6``, ``6M``, ``1.5G``, ``200k``. Raises ValueError for what is none; nan and inf are numbers, which bounds refuse."""
    found = _NUMBER.fullmatch(text.strip())
    try:
        if found is None:
            return float(text)
        value = float(found["digits"] + (found["exponent"] or ""))
    except ValueError:
        raise ValueError(f"{text!r} is no number; give one such as 0.5, 6e6 or 6M") from None
    # 1.1M in floats is 1,100,000.0000000002.
    product = value * _FACTORS[found["factor"]]
    return float(round(product)) if found["factor"] and math.isclose(product, round(product), rel_tol=1e-12) else product


def whole_number(text: str) -> int:
    """``500``, ``1e3``, ``2k``, ``1.5M``. Raises ValueError for what is no whole number."""
    try:
        return int(text)
    except ValueError:
        pass
    found = _NUMBER.fullmatch(text.strip())
    # 1.0 is a number with a fraction, as a share of images is: only an exponent or a factor make a count of one.
    if found is not None and (found["exponent"] or found["factor"]) and re.search(r"\d", found["digits"]):
        value = real_number(text)
        if math.isfinite(value) and value.is_integer():
            return int(value)
    raise ValueError(f"{text!r} is no whole number; give one such as 500, 2k or 6M")
