"""What the champion says of each class of the test images: accuracies, confusions, and the mistakes it is surest of."""

from __future__ import annotations

import base64
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from raysearch.report.intervals import share_words
from raysearch.store.predictions import Predictions

MATRIX = 30
"""Most classes whose confusions are shown in full; of more, the pairs that are confused most."""
LISTED = 40
"""Most classes that are all listed; of more, the worst and the best."""
WORST, BEST = 15, 5
"""How many of these."""
PAIRS = 20
"""How many pairs of confused classes are listed."""
PICTURES = 12
"""How many mistakes are shown."""
SURE = 0.9
"""From which probability on a mistake is called a confident one."""


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class."""

    name: str
    images: int
    right: int
    accuracy: str
    interval: str
    """In words; empty for a class without test images."""


@dataclass(frozen=True, slots=True)
class Confused:
    """Images of one class that were taken for another."""

    true: str
    predicted: str
    images: int
    of: int
    """All test images of the true class."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """An image that was taken for something else, with much confidence."""

    picture: str | None
    """As a ``data:`` address."""
    name: str
    """Its file, or its place in the test split."""
    true: str
    predicted: str
    confidence: str


@dataclass(frozen=True, slots=True)
class Matrix:
    """How often each class was taken for each."""

    heads: list[str]
    """Of rows and columns: names where they are short, else numbers beside the names."""
    names: list[str]
    counts: list[list[int]]
    """By true class, then by predicted class."""
    shares: list[list[float]]
    """Of the images of the true class."""


@dataclass(frozen=True, slots=True)
class Classes:
    """All of it, for a page."""

    chance: float
    """Accuracy of a guess among all classes alike."""
    majority: float
    """Accuracy of always saying the class with the most test images."""
    majority_name: str
    balanced: float
    """Mean accuracy of the classes, each counting alike."""
    rows: list[ClassRow]
    listed: str
    """Which classes these are."""
    matrix: Matrix | None
    pairs: list[Confused]
    mistakes: list[Mistake]
    wrong: int
    sure: int
    """Mistakes with a confidence of :data:`SURE` or more."""
    images: int

    @property
    def count(self) -> int:
        """How many classes there are."""
        return round(1 / self.chance)

    @classmethod
    def of(cls, said: Predictions) -> Self:
        """What a page tells of these predictions, at least one."""
        count = max(len(said.classes), 1 + int(max(said.labels.max(), said.predicted.max())))
        correct, wrong = said.labels == said.predicted, said.labels != said.predicted
        images = np.bincount(said.labels, minlength=count)
        right = np.bincount(said.labels[correct], minlength=count)
        names = [said.class_name(i) for i in range(count)]
        largest = int(images.argmax())
        accuracies = [float(right[i] / images[i]) for i in range(count) if images[i]]
        chosen, listed = _listed(images, right)
        return cls(
            chance=1 / count,
            majority=float(images[largest] / images.sum()),
            majority_name=names[largest],
            balanced=statistics.fmean(accuracies),
            rows=[_row(names[i], int(images[i]), int(right[i])) for i in chosen],
            listed=listed,
            matrix=_matrix(names, said) if count <= MATRIX else None,
            pairs=_pairs(names, said, images),
            mistakes=[_mistake(said, item) for item in said.confident_mistakes(PICTURES)],
            wrong=int(wrong.sum()),
            sure=int((wrong & (said.confidence >= SURE)).sum()),
            images=len(said.labels),
        )


def _row(name: str, images: int, right: int) -> ClassRow:
    if not images:
        return ClassRow(name, 0, 0, "–", "")  # noqa: RUF001  # a dash in a table
    return ClassRow(name, images, right, f"{right / images:.1%}".replace("%", " %"), share_words(right, images))


def _listed(images: np.ndarray, right: np.ndarray) -> tuple[list[int], str]:
    """Which classes are listed, and in words which these are."""
    count = len(images)
    if count <= LISTED:
        return list(range(count)), "in the order of the classes"
    known = np.flatnonzero(images)
    worst_first: list[int] = known[np.argsort(right[known] / images[known], kind="stable")].tolist()
    quarters = np.quantile(right[known] / images[known], [0.25, 0.5, 0.75])
    words = (
        f"the {WORST} worst and the {BEST} best of {count:,}; a quarter of the classes have less than {quarters[0]:.1%}, half "
        f"less than {quarters[1]:.1%}, a quarter more than {quarters[2]:.1%}"
    )
    return [*worst_first[:WORST], *worst_first[-BEST:]], words


def _matrix(names: Sequence[str], said: Predictions) -> Matrix:
    count = len(names)
    confusion = np.bincount(said.labels * count + said.predicted, minlength=count * count).reshape(count, count)
    short = max(map(len, names)) <= 3
    heads = list(names) if short else [str(i + 1) for i in range(len(names))]
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    return Matrix(heads, [""] * len(names) if short else list(names), confusion.tolist(), shares.tolist())


def _pairs(names: Sequence[str], said: Predictions, images: np.ndarray) -> list[Confused]:
    """The pairs that are confused most, most images first; pairs of a single image only where there are no others."""
    wrong = said.labels != said.predicted
    pairs, counts = np.unique(np.stack([said.labels[wrong], said.predicted[wrong]], axis=1), axis=0, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:PAIRS]
    found = [(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i])) for i in most]
    least = min(2, found[0][2]) if found else 0
    return [Confused(names[true], names[other], n, int(images[true])) for true, other, n in found if n >= least]


def _mistake(said: Predictions, item: int) -> Mistake:
    picture = said.pictures.get(item)
    return Mistake(
        picture=None if picture is None else f"data:image/png;base64,{base64.b64encode(picture).decode()}",
        name=said.names[item] if said.names is not None else f"test image {item}",
        true=said.class_name(int(said.labels[item])),
        predicted=said.class_name(int(said.predicted[item])),
        confidence=f"{said.confidence[item]:.0%}".replace("%", " %"),
    )
