"""What the best subnets of a search share, beside what chance gives."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from raysearch.space.choice import Option
from raysearch.store.candidates import best_rows

LEAST = 20
"""Candidates that must have competed before their best say anything."""

Row = Mapping[str, Any]
Place = tuple[str, int | None]
"""A decision: its name, and the block counted from 0; None for a decision about the whole net."""


@dataclass(frozen=True, slots=True)
class Share:
    """How often one value was chosen: a share of those subnets that have the decision at all."""

    best: float
    others: float | None
    """None when none of the others has the decision, as a block deeper than all of them."""

    @property
    def lead(self) -> float:
        """How much more often the best have it; 0 where nothing is known of others."""
        return 0.0 if self.others is None else self.best - self.others


@dataclass(frozen=True, slots=True)
class InCommon:
    """Choices of the best subnets and of those that they are compared with."""

    best: int
    """How many are called the best."""
    others: int
    """With how many they are compared."""
    compared_with: str
    """Who these are, in words."""
    shares: Mapping[Place, Mapping[Option, Share]]
    """By decision and value; values ascend, words by the alphabet."""
    present: Mapping[Place, float]
    """Share of the best that have the decision."""


def in_common(rows: Sequence[Row]) -> InCommon | None:
    """Choices of the best 20 (of fewer than 200 candidates: the best tenth, at least 5); None while too few competed.

    They are compared with the candidates that were drawn by chance, or with all where fewer than 20 were.
    """
    competing = best_rows(rows)
    if len(competing) < LEAST:
        return None
    best = competing[: min(20, max(5, len(competing) // 10))]
    random = [row for row in rows if row["origin"] == "random"]
    others, words = (random, "random candidates") if len(random) >= LEAST else (rows, "all candidates")
    chosen, background = _counts(best), _counts(others)
    shares: dict[Place, dict[Option, Share]] = {}
    for place in sorted(chosen.keys() | background.keys(), key=_order([*chosen, *background])):
        ours, theirs = chosen.get(place, Counter[Any]()), background.get(place, Counter[Any]())
        if not ours.total():
            continue
        shares[place] = {
            value: Share(ours[value] / ours.total(), theirs[value] / theirs.total() if theirs.total() else None)
            for value in sorted(ours.keys() | theirs.keys())
        }
    present = {place: chosen[place].total() / len(best) for place in shares}
    return InCommon(len(best), len(others), words, shares, present)


def _order(places: Iterable[Place]) -> Any:
    """Sort key: decisions as the architecture names them, blocks ascending."""
    names = list(dict.fromkeys(name for name, _ in places))
    return lambda place: (names.index(place[0]), -1 if place[1] is None else place[1])


def _counts(rows: Iterable[Row]) -> dict[Place, Counter[Any]]:
    """How often each value was chosen, by decision. Depth is counted where an architecture has lists of one length."""
    counts: dict[Place, Counter[Any]] = {}
    for row in rows:
        arch = cast(dict[str, Any], json.loads(row["arch"]))
        lists = {name: cast(list[Any], value) for name, value in arch.items() if isinstance(value, list)}
        values: dict[Place, Any] = {(name, None): value for name, value in arch.items() if name not in lists}
        staged = any(isinstance(item, list) for items in lists.values() for item in items)
        if "depth" not in arch and not staged and len({len(items) for items in lists.values()}) == 1:
            values["depth", None] = len(next(iter(lists.values())))
        for name, items in lists.items():
            for i, item in enumerate(items):
                if isinstance(item, list):
                    values |= {(f"{name}, stage {i + 1},", block): value for block, value in enumerate(cast(list[Any], item))}
                else:
                    values[name, i] = item
        for place, value in values.items():
            if value is not None:  # of a block that is left out
                counts.setdefault(place, Counter())[value] += 1
    return counts
