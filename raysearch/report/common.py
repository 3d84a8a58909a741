"""What the best subnets of a search share, beside what chance gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from raysearch.report.places import Place, Value, ordered, places
from raysearch.store.candidates import CandidateRow, best_rows

LEAST = 20
"""Candidates that must have competed before their best say anything."""
SKIP = "skip"
"""Name of the decision to leave a block out, as spaces call it; told of blocks alone that some subnet leaves out."""


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
    shares: Mapping[Place, Mapping[Value, Share]]
    """By decision and value, in the order of a table."""
    present: Mapping[Place, float]
    """Share of the best that have the decision."""


def in_common(rows: Sequence[CandidateRow]) -> InCommon | None:
    """Choices of the best 20 (of fewer than 200 candidates: the best tenth, at least 5); None while too few competed.

    They are compared with the candidates that were drawn by chance, or with all where fewer than 20 were.
    """
    competing = best_rows(rows)
    if len(competing) < LEAST:
        return None
    best = competing[: min(20, max(5, len(competing) // 10))]
    random = [row for row in rows if row.origin == "random"]
    others, words = (random, "random candidates") if len(random) >= LEAST else (rows, "all candidates")
    chosen, background = _counts(best), _counts(others)
    shares: dict[Place, dict[Value, Share]] = {}
    for place in sorted(chosen.keys() | background.keys(), key=_order([*chosen, *background])):
        ours, theirs = chosen.get(place, Counter[Value]()), background.get(place, Counter[Value]())
        if not ours.total() or (place.name == SKIP and True not in ours | theirs):
            continue
        shares[place] = {
            value: Share(ours[value] / ours.total(), theirs[value] / theirs.total() if theirs.total() else None)
            for value in ordered(ours.keys() | theirs.keys())
        }
    present = {place: chosen[place].total() / len(best) for place in shares}
    return InCommon(len(best), len(others), words, shares, present)


def _order(found: Iterable[Place]) -> Callable[[Place], tuple[int, ...]]:
    """Sort key: decisions as the architecture names them, stages and blocks ascending."""
    names = list(dict.fromkeys(place.name for place in found))
    return lambda place: (names.index(place.name), *(-1 if at is None else at for at in (place.stage, place.block)))


def _counts(rows: Iterable[CandidateRow]) -> dict[Place, Counter[Value]]:
    """How often each value was chosen, by decision; of a block that is left out, that it is."""
    counts: dict[Place, Counter[Value]] = {}
    for row in rows:
        skipped: dict[Place, bool] = {}
        for place, value in places(row.arch).items():
            if place.block is not None:
                skipped[Place(SKIP, place.stage, place.block)] = value is None
            if value is not None:
                counts.setdefault(place, Counter())[value] += 1
        for place, left_out in skipped.items():
            counts.setdefault(place, Counter())[left_out] += 1
    return counts
