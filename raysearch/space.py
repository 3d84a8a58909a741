"""Declared search spaces and the architectures drawn from them.

A :class:`SearchSpace` is a list of named :class:`Choice` values plus, where the network has blocks, its depth. All that a
search needs (``sample``, ``mutate``, ``crossover``, ``contains``, ``smallest``, ``largest``, ``size``, iteration) follows from
that declaration; a new space writes an :class:`Architecture` dataclass and its choices, nothing else.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from random import Random
from typing import Any, Generic, Literal, Self, TypeVar, cast

Option = int | float | str | bool
"""One value that a choice can take."""


# --- architectures ----------------------------------------------------------------------------------------------------


@cache
def _field_types(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls)}


def _normalised(hint: Any, value: Any, place: str) -> Any:
    """``value`` as its declared type, so that ``4`` and ``4.0``, lists and tuples, JSON and Python agree."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and not isinstance(value, str):
        try:
            items = tuple(value)
        except TypeError:
            raise ValueError(f"{place} is {value!r}, not a sequence") from None
        hints = itertools.repeat(arguments[0]) if arguments[-1] is Ellipsis else arguments
        if arguments[-1] is not Ellipsis and len(arguments) != len(items):
            raise ValueError(f"{place} has {len(items)} entries, not {len(arguments)}")
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
    raise ValueError(f"{place} is {value!r}, not {getattr(hint, '__name__', hint)}")


class Architecture:
    """One subnet: the base of a space's frozen dataclass. Hashable, so it is its own key in caches and populations.

    A subclass is a ``@dataclass(frozen=True)`` whose fields are named like the space's choices. Values are normalised to the
    declared types (``4`` and ``4.0`` are the same architecture). A subclass with its own ``__post_init__`` calls this first.
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        """Normalise every field; raises ValueError that names the field which does not fit."""
        for name, hint in _field_types(type(self)).items():
            object.__setattr__(self, name, _normalised(hint, getattr(self, name), name))

    def to_dict(self) -> dict[str, Any]:
        """Field names and values, tuples as lists, ready for JSON."""
        return json.loads(self.to_json())

    def to_json(self) -> str:
        """One line of JSON with sorted keys: equal architectures give equal text."""
        values = {name: getattr(self, name) for name in _field_types(type(self))}
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`. Raises ValueError for missing or unknown names."""
        names = set(_field_types(cls))
        if set(values) != names:
            odd = ", ".join(sorted(names ^ set(values)))
            raise ValueError(f"not a {cls.__name__}: missing or unknown {odd}")
        return cls(**values)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Inverse of :meth:`to_json`. Raises ValueError when the text is not such an architecture."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"not a {cls.__name__}: {error}") from None
        if not isinstance(values, dict):
            raise ValueError(f"not a {cls.__name__}: {text[:60]!r}")
        return cls.from_dict(cast(dict[str, Any], values))

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits, the same in every process: a hash of the JSON text."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]


A = TypeVar("A", bound=Architecture)


# --- the declaration --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Choice:
    """One named decision of a search space.

    ``per`` says how often it is taken: once for the net, once per stage or once per block. Options are ordered from smallest to
    largest; numbers are sorted here. A per-stage or per-block choice of a staged space may give one tuple of options per stage.
    """

    name: str
    """The field of the Architecture that holds the value."""
    options: tuple[Option, ...] | tuple[tuple[Option, ...], ...]
    per: Literal["net", "stage", "block"] = "net"
    weight_free: bool = False
    """True when the choice carries no weights (a window, a factor), so that it may change freely at evaluation."""

    def __post_init__(self) -> None:
        """Sort and check the options; raises ValueError when they are empty, repeated or per stage without stages."""
        if not self.name.isidentifier():
            raise ValueError(f"choice name {self.name!r} is not an identifier")
        if self.options and all(isinstance(o, tuple) for o in self.options):
            if self.per == "net":
                raise ValueError(f"{self.name}: options per stage, but the choice is taken once per net")
            grouped = cast(tuple[tuple[Option, ...], ...], self.options)
            options: Any = tuple(_ordered(self.name, group) for group in grouped)
        else:
            options = _ordered(self.name, cast(tuple[Option, ...], self.options))
        object.__setattr__(self, "options", options)

    @property
    def by_stage(self) -> bool:
        """True when each stage has options of its own."""
        return isinstance(self.options[0], tuple)

    def at(self, stage: int) -> tuple[Option, ...]:
        """The options of ``stage`` (0-based; ignored where all stages share them)."""
        return cast(tuple[Option, ...], self.options[stage] if self.by_stage else self.options)


def _ordered(name: str, options: Sequence[Option]) -> tuple[Option, ...]:
    values = tuple(options)
    if not values:
        raise ValueError(f"{name} has no options")
    if len(set(values)) != len(values):
        raise ValueError(f"{name} repeats an option: {values}")
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return tuple(sorted(cast(tuple[float, ...], values)))
    return values


@dataclass(frozen=True, slots=True)
class MutationRates:
    """Probabilities of a redraw in :meth:`SearchSpace.mutate`. A redraw may return the old value."""

    depth: float = 0.4
    """Of the depth (of each stage): a cut keeps the prefix, growth appends random blocks."""
    net: float = 0.4
    """Of each choice taken once per net or per stage, as embed_dim."""
    block: float = 0.2
    """Of each choice of each block, as num_heads and mlp_ratio."""

    def __post_init__(self) -> None:
        """Raises ValueError for a probability outside 0..1."""
        for name in ("depth", "net", "block"):
            rate = getattr(self, name)
            if not 0 <= rate <= 1:
                raise ValueError(f"mutation rate {name}={rate} is not a probability")

    @classmethod
    def published_code(cls) -> MutationRates:
        """AutoFormer as its code runs it: depth and embed_dim 0.4, blocks 0.2 (the default)."""
        return cls()

    @classmethod
    def published_paper(cls) -> MutationRates:
        """AutoFormer as its paper states it: depth 0.2, blocks 0.4."""
        return cls(depth=0.2, net=0.2, block=0.4)


@dataclass(slots=True)
class _Genes:
    """An architecture taken apart: what mutation and crossover work on. Absent blocks hold no values."""

    net: dict[str, Option] = field(default_factory=dict[str, Option])
    stage: dict[str, list[Option]] = field(default_factory=dict[str, list[Option]])
    blocks: list[list[dict[str, Option] | None]] = field(default_factory=list[list[dict[str, Option] | None]])


class SearchSpace(Generic[A]):
    """All architectures that a declaration allows.

    Args:
        architecture: the dataclass to build; its fields are the names of the choices. Depth is not a field: it is the length of
            the per-block values.
        choices: the decisions, in the order in which they are drawn.
        depth: options for the number of blocks, as ``(12, 13, 14)``; one tuple per stage for a staged net. Per-block values are
            then one tuple, or one tuple per stage.
        stages: number of stages of a net that has per-stage choices but no depth.
        skippable: positions (0-based) of blocks that may be left out, whatever the stage; the values of a block that is
            left out are None.

    """

    def __init__(
        self,
        architecture: type[A],
        choices: Sequence[Choice],
        *,
        depth: Sequence[int] | Sequence[Sequence[int]] | None = None,
        stages: int | None = None,
        skippable: Sequence[int] = (),
    ) -> None:
        self.architecture = architecture
        self.choices = tuple(choices)
        self.staged = stages is not None or (depth is not None and isinstance(depth[0] if len(depth) else 0, Sequence))
        self._depths = _depth_options(depth, staged=self.staged)
        if stages is not None and depth is not None and stages != len(self._depths):
            raise ValueError(f"{stages} stages, but depth is given for {len(self._depths)}")
        self.stages = len(self._depths) if depth is not None else (stages or 1)
        self.skippable = frozenset(skippable)
        self._net = [c for c in self.choices if c.per == "net"]
        self._stage = [c for c in self.choices if c.per == "stage"]
        self._block = [c for c in self.choices if c.per == "block"]
        self._check()

    def _check(self) -> None:
        names = [c.name for c in self.choices]
        expected = list(_field_types(self.architecture))
        if sorted(names) != sorted(expected):
            raise ValueError(f"choices {sorted(names)} are not the fields {sorted(expected)} of {self.architecture.__name__}")
        if bool(self._depths) != bool(self._block):
            raise ValueError("a depth and per-block choices go together: one is declared without the other")
        if self._stage and not self.staged:
            raise ValueError(f"{self._stage[0].name} is taken per stage, but the space has no stages")
        for choice in self.choices:
            if choice.by_stage and len(choice.options) != self.stages:
                raise ValueError(f"{choice.name} has options for {len(choice.options)} stages, the space has {self.stages}")
        deepest = max((d[-1] for d in self._depths), default=0)
        if any(not 0 <= position < deepest for position in self.skippable):
            raise ValueError(f"skippable blocks {sorted(self.skippable)} are not all within depth {deepest}")

    @property
    def depth(self) -> tuple[int, ...] | tuple[tuple[int, ...], ...]:
        """The depth options as declared: one tuple, or one per stage; empty when the space has no blocks."""
        return self._depths if self.staged else (self._depths[0] if self._depths else ())

    def __eq__(self, other: object) -> bool:
        """Equal declarations are equal spaces."""
        return isinstance(other, SearchSpace) and self.to_dict() == cast(SearchSpace[Any], other).to_dict()

    def __hash__(self) -> int:
        """Hash of the declaration."""
        return hash(json.dumps(self.to_dict(), sort_keys=True))

    def __repr__(self) -> str:
        """The declaration on one line."""
        return f"{type(self).__name__}({json.dumps(self.to_dict())})"

    def to_dict(self) -> dict[str, Any]:
        """The declaration as JSON values, to be stored beside weights and results."""
        return {
            "architecture": self.architecture.__name__,
            "choices": [
                {"name": c.name, "options": c.options, "per": c.per, "weight_free": c.weight_free} for c in self.choices
            ],
            "depth": self.depth,
            "stages": self.stages if self.staged else None,
            "skippable": sorted(self.skippable),
        }

    # --- taking apart and putting together ---

    def _build(self, genes: _Genes) -> A:
        values: dict[str, Any] = {**genes.net, **{name: tuple(v) for name, v in genes.stage.items()}}
        for choice in self._block:
            rows = tuple(tuple(None if b is None else b[choice.name] for b in blocks) for blocks in genes.blocks)
            values[choice.name] = rows if self.staged else rows[0]
        return self.architecture(**values)

    def _genes(self, arch: A) -> _Genes:
        """Raises ValueError when the shape of ``arch`` is not this space's."""
        genes = _Genes()
        for choice in self._net:
            genes.net[choice.name] = getattr(arch, choice.name)
        for choice in self._stage:
            values = getattr(arch, choice.name)
            if len(values) != self.stages:
                raise ValueError(f"{choice.name} has {len(values)} stages, not {self.stages}")
            genes.stage[choice.name] = list(values)
        if not self._block:
            return genes
        rows = {c.name: getattr(arch, c.name) if self.staged else (getattr(arch, c.name),) for c in self._block}
        for name, stages in rows.items():
            if len(stages) != self.stages:
                raise ValueError(f"{name} has {len(stages)} stages, not {self.stages}")
        for s in range(self.stages):
            lengths = {len(stages[s]) for stages in rows.values()}
            if len(lengths) != 1:
                raise ValueError(f"per-block choices disagree about the depth: {sorted(lengths)}")
            blocks: list[dict[str, Option] | None] = []
            for b in range(lengths.pop()):
                block = {name: stages[s][b] for name, stages in rows.items()}
                absent = [v is None for v in block.values()]
                if any(absent) and not all(absent):
                    raise ValueError(f"block {b} is left out by some choices only: {block}")
                blocks.append(None if all(absent) else cast(dict[str, Option], block))
            genes.blocks.append(blocks)
        return genes

    def _random_block(self, stage: int, position: int, rng: Random) -> dict[str, Option] | None:
        if position in self.skippable and rng.random() < 0.5:
            return None
        return {c.name: rng.choice(c.at(stage)) for c in self._block}

    # --- what a search asks of a space ---

    def sample(self, rng: Random) -> A:
        """A random architecture: every choice uniform over its options (AutoFormer section 3.3)."""
        genes = _Genes()
        for choice in self._net:
            genes.net[choice.name] = rng.choice(choice.at(0))
        for choice in self._stage:
            genes.stage[choice.name] = [rng.choice(choice.at(s)) for s in range(self.stages)]
        for s, depths in enumerate(self._depths):
            genes.blocks.append([self._random_block(s, b, rng) for b in range(rng.choice(depths))])
        return self._build(genes)

    def mutate(self, arch: A, rng: Random, rates: MutationRates | None = None) -> A:
        """A neighbour of ``arch``: depth, then each block's choices, then the net's, each redrawn with its rate.

        Published rule (REFERENCE, evolution): a cut keeps the prefix, growth appends random blocks, and a redraw may return the
        old value, so the result can equal ``arch``. A skippable block is left out or put back at the block rate.
        """
        rates = rates or MutationRates()
        genes = self._genes(arch)
        for s, depths in enumerate(self._depths):
            blocks = genes.blocks[s]
            if rng.random() < rates.depth:
                depth = rng.choice(depths)
                blocks[depth:] = []
                blocks.extend(self._random_block(s, b, rng) for b in range(len(blocks), depth))
            for b, block in enumerate(blocks):
                if b in self.skippable and rng.random() < rates.block:
                    blocks[b] = self._random_block(s, b, rng)
                elif block is not None:
                    for choice in self._block:
                        if rng.random() < rates.block:
                            block[choice.name] = rng.choice(choice.at(s))
        for choice in self._stage:
            for s in range(self.stages):
                if rng.random() < rates.net:
                    genes.stage[choice.name][s] = rng.choice(choice.at(s))
        for choice in self._net:
            if rng.random() < rates.net:
                genes.net[choice.name] = rng.choice(choice.at(0))
        return self._build(genes)

    def crossover(self, a: A, b: A, rng: Random) -> A:
        """A child of two architectures: a fair coin decides each value (AutoFormer, evolution).

        Where depths differ (the published search pairs equal depths), the coin also decides the depth, and a block that one
        parent lacks comes from the other.
        """
        left, right = self._genes(a), self._genes(b)
        child = _Genes()
        child.net = {name: _coin(rng, value, right.net[name]) for name, value in left.net.items()}
        child.stage = {
            name: [_coin(rng, x, y) for x, y in zip(values, right.stage[name], strict=True)]
            for name, values in left.stage.items()
        }
        for one, two in zip(left.blocks, right.blocks, strict=True):
            depth = _coin(rng, len(one), len(two))
            blocks: list[dict[str, Option] | None] = []
            for x, y in itertools.islice(itertools.zip_longest(one, two, fillvalue=...), depth):
                if x is ... or y is ...:
                    only = cast("dict[str, Option] | None", y if x is ... else x)
                    blocks.append(None if only is None else dict(only))
                elif x is None or y is None:
                    picked = _coin(rng, x, y)
                    blocks.append(None if picked is None else dict(picked))
                else:
                    blocks.append({name: _coin(rng, value, y[name]) for name, value in x.items()})
            child.blocks.append(blocks)
        return self._build(child)

    def contains(self, arch: Architecture) -> bool:
        """Whether ``arch`` is one that the declaration allows."""
        if not isinstance(arch, self.architecture):
            return False
        try:
            genes = self._genes(arch)
        except (ValueError, TypeError):
            return False
        return (
            all(genes.net[c.name] in c.at(0) for c in self._net)
            and all(v in c.at(s) for c in self._stage for s, v in enumerate(genes.stage[c.name]))
            and all(len(blocks) in self._depths[s] for s, blocks in enumerate(genes.blocks))
            and all(
                b in self.skippable if block is None else all(block[c.name] in c.at(s) for c in self._block)
                for s, blocks in enumerate(genes.blocks)
                for b, block in enumerate(blocks)
            )
        )

    def smallest(self) -> A:
        """The first option of every choice, the least depth, all skippable blocks left out."""
        return self._extreme(lambda options: options[0], skip=True)

    def largest(self) -> A:
        """The last option of every choice, the greatest depth, no block left out."""
        return self._extreme(lambda options: options[-1], skip=False)

    def _extreme(self, pick: Callable[[tuple[Any, ...]], Any], *, skip: bool) -> A:
        genes = _Genes(
            net={c.name: pick(c.at(0)) for c in self._net},
            stage={c.name: [pick(c.at(s)) for s in range(self.stages)] for c in self._stage},
            blocks=[
                [
                    None if skip and b in self.skippable else {c.name: pick(c.at(s)) for c in self._block}
                    for b in range(pick(depths))
                ]
                for s, depths in enumerate(self._depths)
            ],
        )
        return self._build(genes)

    def size(self) -> int:
        """The exact number of architectures in the space."""
        total = math.prod(len(c.at(0)) for c in self._net)
        total *= math.prod(len(c.at(s)) for c in self._stage for s in range(self.stages))
        for s, depths in enumerate(self._depths):
            block = math.prod(len(c.at(s)) for c in self._block)
            total *= sum(math.prod(block + (b in self.skippable) for b in range(depth)) for depth in depths)
        return total

    def __iter__(self) -> Iterator[A]:
        """Every architecture once, in a fixed order. Only for spaces small enough to list; see :meth:`size`."""
        nets = itertools.product(*(c.at(0) for c in self._net))
        stages = itertools.product(*(c.at(s) for c in self._stage for s in range(self.stages)))
        bodies = itertools.product(*(tuple(self._bodies(s)) for s in range(len(self._depths))))
        for net, stage, body in itertools.product(nets, stages, bodies):
            genes = _Genes(net={c.name: v for c, v in zip(self._net, net, strict=True)})
            for i, choice in enumerate(self._stage):
                genes.stage[choice.name] = list(stage[i * self.stages : (i + 1) * self.stages])
            genes.blocks = [list(blocks) for blocks in body]
            yield self._build(genes)

    def _bodies(self, stage: int) -> Iterator[tuple[dict[str, Option] | None, ...]]:
        """Every sequence of blocks that ``stage`` can have."""
        names = [c.name for c in self._block]
        present = [dict(zip(names, v, strict=True)) for v in itertools.product(*(c.at(stage) for c in self._block))]
        for depth in self._depths[stage]:
            yield from itertools.product(*([None, *present] if b in self.skippable else present for b in range(depth)))


T = TypeVar("T")


def _coin(rng: Random, a: T, b: T) -> T:
    return a if rng.random() < 0.5 else b


def _depth_options(depth: Sequence[int] | Sequence[Sequence[int]] | None, *, staged: bool) -> tuple[tuple[int, ...], ...]:
    if depth is None:
        return ()
    groups = cast(Sequence[Sequence[int]], depth if staged else [depth])
    options: list[tuple[int, ...]] = []
    for group in groups:
        ordered = cast(tuple[int, ...], _ordered("depth", tuple(group)))
        if any(d != int(d) or d < 0 for d in ordered):
            raise ValueError(f"depth {ordered} is not all whole numbers of blocks")
        options.append(ordered)
    return tuple(options)
