"""What a network is trained for and judged by: the contract between a task and everything above it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from torch import Tensor

from raysearch.errors import UserError

Normalise = Callable[[Tensor], Tensor]
"""Cached inputs (batch, ...) to what the network computes with, on their device."""
Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Inputs and targets of a training step to mixtures of them, as Mixup makes."""


@dataclass(frozen=True, slots=True)
class Ends:
    """The two ends of a network: what goes in and what comes out."""

    input_shape: tuple[int, ...]
    """Of one item, as (chans, height, width)."""
    outputs: int
    """Numbers that come out for one item, as one logit per class."""


class Items(Protocol):
    """The items of one split, in a fixed order."""

    def __len__(self) -> int: ...

    def digest(self) -> str:
        """Hexadecimal hash; the same on every machine that sees the same items in the same order."""
        ...

    def subset(self, indices: Sequence[int] | np.ndarray) -> Self:
        """The items at ``indices``, in that order."""
        ...


@dataclass(frozen=True)
class Splits:
    """The four parts of a data set. Only the closing report and the evaluation of a finished network read ``test``."""

    train: Any
    """Items to train on, as the task's own :class:`Items`."""
    search: Any
    """Candidates are scored on these, in an order in which every leading part mixes the classes."""
    finalists: Any
    """On these the champion is chosen among the best of the search; nobody was scored on them before. May be empty."""
    test: Any
    classes: tuple[str, ...] = ()
    """Names of the outputs, where they have some."""
    notes: tuple[str, ...] = ()
    """What a user should know of the data, a sentence each: what was left out and why, which items are copies of others."""

    @cached_property
    def digest(self) -> str:
        """Hexadecimal; tells a resumed run that the items or their division changed."""
        parts = [self.train.digest(), self.search.digest(), self.test.digest(), *self.classes]
        if len(self.finalists):  # 0.1.0 had no such part: a division without it is told by the digest of that version
            parts.insert(2, self.finalists.digest())
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Batches(Protocol):
    """One process's part of the training split; every process has the same number of steps."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch."""
        ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs (batch, ...), normalised, and targets (batch, ...) of each step from the ``start``-th on (0-based).

        What a step has depends on its number and the epoch only, so that a training goes on from any.
        """
        ...


class ItemStream(Protocol):
    """Training items of one process one by one, for machines of a cluster that prepare them: it travels to these."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch."""
        ...

    @property
    def batch_size(self) -> int:
        """Items of one step."""
        ...

    def order(self, epoch: int) -> Tensor:
        """Which items make up each step of an epoch: indices into the training split (steps, batch)."""
        ...

    def keys(self, epoch: int) -> np.ndarray:
        """What decides each item of an epoch: whole numbers (steps, batch, n)."""
        ...

    def prepare(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (items, ...), normalised, and targets, as :class:`Batches` gives them for the same epoch and step."""
        ...


class Task(Protocol):
    """Data, loss and judgement. A frozen dataclass, whose fields are flags of the command line.

    There is no direction: :meth:`judge` gives higher values to better outputs, so an error is judged as its negative.
    """

    name: ClassVar[str]
    """As ``image-classification``; what a stored configuration names."""
    score_name: ClassVar[str]
    """What the mean outcome is called, as ``accuracy``."""

    # --- data ---

    @property
    def data_name(self) -> str:
        """Name of the data set."""
        ...

    @property
    def data_source(self) -> str:
        """Where the data come from: a path, an address, or a name."""
        ...

    def reading(self, data: Path | str) -> Self:
        """The same task on the data that ``--data`` names: a path, an address, or what else the task knows."""
        ...

    @property
    def split_seed(self) -> int:
        """Decides the division of the data, apart from the seed of a search: searches of other seeds have the same splits."""
        ...

    def splits(self, *, expected_digest: str | None = None) -> Splits:
        """The data, divided: a function of the task and the files, on every machine.

        Raises UserError for data that are missing, unreadable or not those of ``expected_digest``.
        """
        ...

    def fitted(self, splits: Splits, *, accelerated: bool, given: Collection[str]) -> Self:
        """The task with settings that follow from its data and the machine (``accelerated``: it has GPUs).

        Those named in ``given``, as ``dataset.img_size``, stay. The splits stay what they are.
        """
        return self

    def sized(self, side: int) -> Self:
        """The same task on images of another side, in pixels. Raises UserError where inputs are no images."""
        raise UserError(f"the inputs of {self.data_name} have no side: another image size cannot be given")

    def seen_as(self, preprocessing: Mapping[str, Any], *, given: Collection[str]) -> tuple[Self, frozenset[str]]:
        """The same task with inputs prepared as ``preprocessing`` says, but for settings in ``given``; and the names of these.

        By the names of :meth:`preprocessing`; what a task does not know changes nothing.
        """
        return self, frozenset()

    @property
    def described(self) -> str:
        """How data become a network's input, in a few words."""
        return self.data_name

    def ends(self, splits: Splits) -> Ends:
        """What a network for these data takes and gives."""
        ...

    def batches(
        self, items: Any, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1, workers: int | None = 0
    ) -> Batches:
        """Training batches of one of ``world_size`` processes; ``batch_size`` is that of this process.

        ``workers`` is the number of processes that prepare them; None: as the task finds right for the machine.
        """
        ...

    @property
    def streams(self) -> bool:
        """Whether training items are to be prepared on all machines of a cluster."""
        return False

    def stream(self, items: Any, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> ItemStream | None:
        """The items of :meth:`batches` for other machines to prepare; None where that would not pay."""
        return None

    def write_cache(self, items: Any, path: Path) -> None:
        """Write the inputs and targets of ``items`` as they are for evaluation, for :func:`~raysearch.tasks.images.open_cache`.

        Nothing is written anew where ``path`` already holds exactly these. Raises UserError that names an unreadable item.
        """
        ...

    def evaluation_inputs(self, items: Any) -> Iterator[Tensor]:
        """The inputs of ``items`` as networks see them for evaluation, normalised, some at a time, in order."""
        ...

    @property
    def normalise(self) -> Normalise:
        """From cached inputs to network inputs."""
        ...

    def preprocessing(self) -> dict[str, Any]:
        """How an item becomes the network's input, as JSON values: what a model card tells those who deploy it."""
        ...

    # --- learning and judging ---

    def loss(self, outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Training loss (a scalar); ``targets`` as :class:`Batches` gives them, or mixed."""
        ...

    def mix(self, *, mixup: float, cutmix: float, label_smoothing: float, outputs: int) -> Mix | None:
        """What mixes the items of a training step; None when nothing does."""
        ...

    def judge(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Per item: its outcome, bool or float32, higher is better, and its loss (float32), both of shape (batch,)."""
        ...

    def score_text(self, score: float) -> str:
        """A mean outcome as people read it."""
        ...

    # --- showing; a task that says nothing here has a report without these parts ---

    def classify(self, outputs: Tensor) -> tuple[Tensor, Tensor] | None:
        """Per item its most likely class (int64) and that class's probability (float32), both of shape (batch,).

        None for a task that is no classification.
        """
        return None

    def picture(self, cached: np.ndarray) -> bytes | None:
        """One cached input as a small PNG picture; None where inputs are no pictures."""
        return None

    def item_names(self, items: Any) -> Sequence[str] | None:
        """What the items of a split are called, as their files; None where they have no names."""
        return None
