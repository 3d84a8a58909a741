"""Division of labelled items into parts, disjoint by construction."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence
from random import Random

import numpy as np
from jaxtyping import Int64

from raysearch.errors import UserError


def cut(
    labels: Int64[np.ndarray, " n"],
    classes: Sequence[str],
    *,
    seed: int,
    held_out: Mapping[str, int | float],
    groups: Int64[np.ndarray, " n"] | None = None,
    rest: str = "train",
) -> dict[str, np.ndarray]:
    """Divide images into the parts ``held_out`` and the ``rest``; every part has its share of every class.

    Each class is shuffled once, by a generator of its own, and cut once: no image can be in two parts, and what happens to one
    class does not depend on the others. (scikit-learn's grouped stratified splits promise neither, nor exact sizes.)

    Args:
        labels: class of each image.
        classes: their names.
        seed: of the shuffling.
        held_out: size of each part, as a number of images or a fraction of all, at least one image of each class.
        groups: images of equal number stay in one part, which may then miss its size by less than the largest group. A group
            of several classes comes into the ``rest``. None: every image is a group of its own.
        rest: name of the part that gets all others.

    Returns:
        Indices (int64) of each part: ``"train"`` ascending, the others mixed.

    Raises:
        UserError: when a part cannot have at least one image of each class, or nothing would be left for the rest.

    """
    together = np.arange(len(labels)) if groups is None else groups
    torn = of_several_classes(labels, together)
    free = ~torn
    available = np.bincount(labels[free], minlength=len(classes)).tolist()
    units = [_grouped(np.flatnonzero((labels == label) & free), together) for label in range(len(classes))]
    for label, name in enumerate(classes):
        if len(units[label]) <= len(held_out):
            raise UserError(
                f"the class {name} has {int((labels == label).sum())} images with {len(units[label])} different pictures of "
                f"its own: it needs {len(held_out) + 1}, one for each part"
            )
    taken = [0] * len(classes)
    wanted: dict[str, list[int]] = {}
    for position, (part, amount) in enumerate(held_out.items()):
        later = len(held_out) - position  # every later part and the rest need one of each class
        limits = [have - gone - later for have, gone in zip(available, taken, strict=True)]
        total = amount
        if isinstance(total, float):
            # A fraction asks for a share, not a number: small classes give what they can.
            total = min(max(round(total * int(free.sum())), len(classes)), sum(limits))
        wanted[part] = _shares(total, available, limits, part=part)
        taken = [gone + count for gone, count in zip(taken, wanted[part], strict=True)]

    parts: dict[str, list[int]] = {part: [] for part in (*held_out, rest)}
    for label, name in enumerate(classes):
        left = units[label]
        Random(f"{seed}/splits/{name}").shuffle(left)
        for position, part in enumerate(held_out):
            chosen, left = _units(left, wanted[part][label], leave=len(held_out) - position)
            parts[part] += itertools.chain(*chosen)
        parts[rest] += itertools.chain(*left)
    parts[rest] += np.flatnonzero(torn).tolist()
    indices: dict[str, np.ndarray] = {}
    for part, members in parts.items():
        members.sort()
        if part != "train":
            Random(f"{seed}/order/{part}").shuffle(members)
        indices[part] = np.array(members, dtype=np.int64)
    return indices


def of_several_classes(labels: Int64[np.ndarray, " n"], groups: Int64[np.ndarray, " n"]) -> np.ndarray:
    """Which images are in a group that has more than one class (bool, n)."""
    _, group = np.unique(groups, return_inverse=True)
    least, most = np.full(group.max(initial=-1) + 1, np.iinfo(np.int64).max), np.full(group.max(initial=-1) + 1, -1)
    np.minimum.at(least, group, labels)
    np.maximum.at(most, group, labels)
    return (least != most)[group]


def _grouped(members: np.ndarray, groups: np.ndarray) -> list[list[int]]:
    """Images of one class, those of a group together, in the order of each group's first."""
    units: dict[int, list[int]] = {}
    for member in members.tolist():
        units.setdefault(int(groups[member]), []).append(member)
    return list(units.values())


def _units(units: list[list[int]], count: int, *, leave: int) -> tuple[list[list[int]], list[list[int]]]:
    """The first groups that together have ``count`` images, at least one group, and those that are left, at least ``leave``."""
    chosen: list[list[int]] = []
    left: list[list[int]] = []
    for place, unit in enumerate(units):
        enough = len(left) + len(units) - place - 1 >= leave
        if enough and len(unit) <= count:
            chosen.append(unit)
            count -= len(unit)
        else:
            left.append(unit)
    if not chosen:  # every group is larger than its share
        smallest = min(range(len(left)), key=lambda place: len(left[place]))
        chosen.append(left.pop(smallest))
    return chosen, left


def _shares(total: int, available: Sequence[int], limits: Sequence[int], *, part: str) -> list[int]:
    """``total`` images divided over the classes in proportion to ``available``: at least 1 each, at most ``limits``."""
    if total < len(available):
        raise UserError(f"{total} {part} images for {len(available)} classes: ask for at least one per class")
    if min(limits) < 1 or total > sum(limits):
        raise UserError(
            f"{total} {part} images cannot be held out of {sum(available)} in {len(available)} classes "
            f"(the smallest has {min(available)}): ask for fewer, or add images"
        )
    counts = [1] * len(available)
    scale = total / sum(available)
    # The next image goes to the class that is furthest below its share; ties go to the earlier class.
    behind = [(1 - have * scale, label) for label, have in enumerate(available) if limits[label] > 1]
    heapq.heapify(behind)
    for _ in range(total - len(available)):
        excess, label = heapq.heappop(behind)
        counts[label] += 1
        if counts[label] < limits[label]:
            heapq.heappush(behind, (excess + 1, label))
    return counts
