"""Where an architecture decides something: names, stages and blocks, read from its JSON values whatever the space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from raysearch.store.scores import NONE

Value = int | float | str | bool
"""What a decision may be: a JSON value that is neither list nor object."""


@dataclass(frozen=True, slots=True)
class Place:
    """A decision: its name, and where it is taken."""

    name: str
    stage: int | None = None
    """Counted from 0; None where the net has no stages, and for a decision about the whole net."""
    block: int | None = None
    """Counted from 0 within its stage; None for a decision about a stage or the whole net."""

    @property
    def words(self) -> str:
        """Where, as `` in stage 2, block 3``; empty for the whole net."""
        parts = [f"{kind} {at + 1}" for kind, at in (("stage", self.stage), ("block", self.block)) if at is not None]
        return f" in {', '.join(parts)}" if parts else ""

    @property
    def column(self) -> str:
        """Number of the block as the head of a column: ``3``, or ``2.3`` for the third of the second stage."""
        return ".".join(str(at + 1) for at in (self.stage, self.block) if at is not None)


def places(arch: Mapping[str, Any]) -> dict[Place, Value | None]:
    """Every decision of an architecture; None is the value of a block that is left out.

    A list of lists has an entry per stage and in it one per block. Beside such, a list with an entry per stage is decided once
    per stage; else a list has an entry per block. Depth, the number of blocks, is added where all lists agree on it.
    """
    lists = {name: cast(list[Any], value) for name, value in arch.items() if isinstance(value, list)}
    nested = {name: values for name, values in lists.items() if values and all(isinstance(value, list) for value in values)}
    stages = {len(values) for values in nested.values()}
    found: dict[Place, Value | None] = {Place(name): value for name, value in arch.items() if name not in lists}
    if "depth" not in arch:
        found |= _depths(nested or lists, staged=bool(nested))
    for name, values in lists.items():
        for at, value in enumerate(values):
            if isinstance(value, list):
                found |= {Place(name, at, block): v for block, v in enumerate(cast(list[Any], value))}
            elif len(values) in stages:
                found[Place(name, at)] = value
            else:
                found[Place(name, None, at)] = value
    return found


def _depths(lists: Mapping[str, list[Any]], *, staged: bool) -> dict[Place, Value | None]:
    """The number of blocks, of each stage where there are stages; nothing where the lists disagree."""
    shapes = {tuple(len(stage) for stage in values) if staged else (len(values),) for values in lists.values()}
    if len(shapes) != 1:
        return {}
    return {Place("depth", stage if staged else None): depth for stage, depth in enumerate(shapes.pop())}


def ordered(values: Mapping[Value, Any] | set[Value]) -> list[Value]:
    """Values in the order of a table: numbers ascending, False before True, words by the alphabet."""
    return sorted(values, key=lambda value: (isinstance(value, str), value if not isinstance(value, str) else 0, str(value)))


def value_text(value: Any) -> str:
    """One choice of an architecture, short: values per block side by side, stages apart, a dash for a block left out."""
    if isinstance(value, list):
        values = cast(list[Any], value)
        return (" | " if any(isinstance(v, list) for v in values) else " ").join(map(value_text, values))
    return NONE if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def choice_text(place: Place, value: Value) -> str:
    """What was chosen, in words: ``heads 4 in block 3``."""
    return f"{place.name} {value_text(value)}{place.words}"


@dataclass(frozen=True, slots=True)
class Blocks:
    """Values of an architecture that stand in a table, a column per block or per stage."""

    kind: str
    """Of the columns: ``block``, ``stage`` or ``stage.block``."""
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    """Name and cells."""


def in_tables(arch: Mapping[str, Any]) -> tuple[list[tuple[str, str]], list[Blocks]]:
    """An architecture for a page: values in a line, by name, and tables of those that have columns in common."""
    by_name: dict[str, dict[Place, Value | None]] = {name: {} for name in arch}
    for place, value in places(arch).items():
        by_name.setdefault(place.name, {})[place] = value
    groups: dict[str, dict[str, dict[Place, Value | None]]] = {"stage": {}, "stage.block": {}, "block": {}}
    for name, found in by_name.items():
        first = next(iter(found), Place(name))
        kind = ".".join(part for part in ("stage", "block") if getattr(first, part) is not None)
        if kind:
            groups[kind][name] = found
    tables: list[Blocks] = []
    for kind, members in groups.items():
        columns = {tuple(place.column for place in found) for found in members.values()}
        if len(columns) == 1:  # else they have no columns in common, and stand in the line
            rows = tuple((name, tuple(map(value_text, found.values()))) for name, found in members.items())
            tables.append(Blocks(kind, columns.pop(), rows))
    tabled = {name for table in tables for name, _ in table.rows}
    return [(name, value_text(value)) for name, value in arch.items() if name not in tabled], tables
