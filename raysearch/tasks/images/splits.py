"""Division of labelled items into parts, disjoint by construction."""

from __future__ import annotations

import heapq
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
    rest: str = "train",
) -> dict[str, np.ndarray]:
    """Divide images into the parts ``held_out`` and the ``rest``; every part has its share of every class.

    Each class is shuffled once, by a generator of its own, and cut once: no image can be in two parts, and what happens to one
    class does not depend on the others.

    Args:
        labels: class of each image.
        classes: their names.
        seed: of the shuffling.
        held_out: size of each part, as a number of images or a fraction of all, at least one image of each class.
        rest: name of the part that gets all others.

    Returns:
        Indices (int64) of each part: ``"train"`` ascending, the others mixed.

    Raises:
        UserError: when a part cannot have at least one image of each class, or nothing would be left to train on.

    """
    available = np.bincount(labels, minlength=len(classes)).tolist()
    taken = [0] * len(classes)
    cuts: dict[str, list[tuple[int, int]]] = {}
    for position, (part, amount) in enumerate(held_out.items()):
        later = len(held_out) - position  # every later part and the rest need one of each class
        limits = [have - gone - later for have, gone in zip(available, taken, strict=True)]
        total = amount
        if isinstance(total, float):
            # A fraction asks for a share, not a number: small classes give what they can.
            total = min(max(round(total * len(labels)), len(classes)), sum(limits))
        counts = _shares(total, available, limits, part=part)
        cuts[part] = [(gone, gone + count) for gone, count in zip(taken, counts, strict=True)]
        taken = [end for _, end in cuts[part]]
    cuts[rest] = list(zip(taken, available, strict=True))

    parts: dict[str, list[np.ndarray]] = {part: [] for part in cuts}
    for label, name in enumerate(classes):
        members = np.flatnonzero(labels == label).tolist()
        Random(f"{seed}/splits/{name}").shuffle(members)
        for part, ranges in cuts.items():
            parts[part].append(np.array(members[slice(*ranges[label])], dtype=np.int64))
    indices = {part: np.sort(np.concatenate(pieces)) for part, pieces in parts.items()}
    for part in indices.keys() - {"train"}:
        mixed = indices[part].tolist()
        Random(f"{seed}/order/{part}").shuffle(mixed)
        indices[part] = np.array(mixed, dtype=np.int64)
    return indices


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
