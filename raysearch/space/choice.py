"""What a space is declared with: named choices, depth options, and the rates at which a mutation redraws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, cast

from raysearch.errors import UserError

T = TypeVar("T")

Option = int | float | str | bool
"""One value that a choice can take."""


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
    tied: bool = False
    """Of a choice per block: all blocks of the net take the same value, so it is decided once."""

    def __post_init__(self) -> None:
        """Sort and check the options; raises UserError when they are empty, repeated or per stage without stages."""
        if not self.name.isidentifier():
            raise UserError(f"choice name {self.name!r} is not an identifier")
        if self.tied and self.per != "block":
            raise UserError(f"{self.name} is tied, but taken per {self.per}: values of blocks alone can be tied")
        if self.options and all(isinstance(o, tuple) for o in self.options):
            if self.per == "net" or self.tied:
                raise UserError(f"{self.name}: options per stage, but the choice is taken once per net")
            grouped = cast(tuple[tuple[Option, ...], ...], self.options)
            options: Any = tuple(ordered(self.name, group) for group in grouped)
        else:
            options = ordered(self.name, cast(tuple[Option, ...], self.options))
        object.__setattr__(self, "options", options)

    @property
    def by_stage(self) -> bool:
        """True when each stage has options of its own."""
        return isinstance(self.options[0], tuple)

    def at(self, stage: int) -> tuple[Option, ...]:
        """The options of ``stage`` (0-based; ignored where all stages share them)."""
        return cast(tuple[Option, ...], self.options[stage] if self.by_stage else self.options)

    def widened(self, share: float) -> Choice:
        """The same choice with its last options alone: a ``share`` of them, at least one."""
        if not self.by_stage:
            return replace(self, options=last(self.options, share))
        grouped = cast(tuple[tuple[Option, ...], ...], self.options)
        return replace(self, options=tuple(last(group, share) for group in grouped))


def last(options: Sequence[T], share: float) -> tuple[T, ...]:
    """The last of ``options``: a ``share`` (0 to 1) of them, rounded up, at least one."""
    count = max(1, math.ceil(share * len(options) - 1e-9))  # 2/3 of 3 are 2, whatever its last bit
    return tuple(options[-count:])


def ordered(name: str, options: Sequence[Option]) -> tuple[Option, ...]:
    """Options checked: numbers ascending, others as given. Raises UserError when there are none or one is repeated."""
    values = tuple(options)
    if not values:
        raise UserError(f"{name} has no options")
    if len(set(values)) != len(values):
        raise UserError(f"{name} repeats an option: {values}")
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return tuple(sorted(cast(tuple[float, ...], values)))
    return values


@dataclass(frozen=True, slots=True)
class MutationRates:
    """Probabilities of a redraw in :meth:`SearchSpace.mutate`. A redraw may return the old value."""

    depth: float = 0.4
    """Of the depth (of each stage): a cut keeps the prefix, growth appends random blocks."""
    net: float = 0.4
    """Of each choice taken once per net or per stage, as width."""
    block: float = 0.2
    """Of each choice of each block, as heads and ratio."""

    def __post_init__(self) -> None:
        """Raises UserError for a probability outside 0..1."""
        for name in ("depth", "net", "block"):
            rate = getattr(self, name)
            if not 0 <= rate <= 1:
                raise UserError(f"mutation rate {name}={rate} is not a probability")

    @classmethod
    def published_code(cls) -> MutationRates:
        """As the code of Chen et al. (ICCV 2021) runs: depth and net 0.4, blocks 0.2 (the default)."""
        return cls()

    @classmethod
    def published_paper(cls) -> MutationRates:
        """As their paper states: depth and net 0.2, blocks 0.4."""
        return cls(depth=0.2, net=0.2, block=0.4)


def depth_options(depth: Sequence[int] | Sequence[Sequence[int]] | None, *, staged: bool) -> tuple[tuple[int, ...], ...]:
    """Depth options of each stage, ascending; one stage where the net has none; empty without blocks."""
    if depth is None:
        return ()
    groups = cast(Sequence[Sequence[int]], depth if staged else [depth])
    options: list[tuple[int, ...]] = []
    for group in groups:
        depths = cast(tuple[int, ...], ordered("depth", tuple(group)))
        if any(d != int(d) or d < 0 for d in depths):
            raise UserError(f"depth {depths} is not all whole numbers of blocks")
        options.append(depths)
    return tuple(options)
