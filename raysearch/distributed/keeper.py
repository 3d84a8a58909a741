"""Where training processes and their driver meet: finished epochs on disk, steps done, why training cannot go on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raysearch.errors import UserError
from raysearch.store.summary import EpochRecord
from raysearch.training import checkpoint
from raysearch.training.trainer import TrainingDivergedError, Within


@dataclass(frozen=True, slots=True)
class TrainingState:
    """How far a training is, as its driver asks."""

    records: list[EpochRecord]
    """Of the epochs that are new to who asks."""
    step: int
    """Steps done, of all epochs."""
    steps_per_epoch: int | None
    """None before the first step."""
    processes: int
    """How many of the training processes have begun, in the present attempt."""
    said: list[str]
    """Lines for the user that are new to who asks."""


class CheckpointKeeper:
    """Writes checkpoints to the output folder, on the driver's node: training nodes need no shared storage.

    It is also where training processes and driver meet: steps done, why training cannot go on, what was lost.

    Args:
        path: the training checkpoint; one that is already there is where training continues.
        epochs: of the whole training.
        continued: what continues the training after its end, as a user is told.

    """

    def __init__(self, path: Path, epochs: int, continued: str = "--resume") -> None:
        self.path, self.epochs, self.continued = path, epochs, continued
        self.failure: Exception | None = None
        """What ended training for good: an image, a setting, a full disk, a bug. Starting processes again would not help."""
        metadata: dict[str, Any] = checkpoint.read(path)[1] if path.exists() else {"history": []}
        self.records = history_of(metadata)
        begun = within_of(metadata)
        self.kept_steps = begun.step if begun else 0
        """Steps of the unfinished epoch that are on disk."""
        self.step: tuple[int, int] | None = None
        """Steps done, and steps per epoch."""
        self.begun: set[int] = set()
        """Ranks of the present attempt that have begun."""
        self.said: list[str] = []
        self.losses = 0
        self.noticed = False
        """Whether nodes of the present attempt will be taken away, as was told before: no failure of theirs."""
        self.killed: dict[str, int] = {}
        """By node, how many processes its system had killed for lack of memory when training began there."""

    def begin(self, rank: int, node: str, killed: int | None) -> bool:
        """Note that a process begins. Whether it shall train: starting it again is of no use after some failures.

        ``killed``: how many processes the system of its node killed for lack of memory so far; None where that is unknown.
        """
        if rank in self.begun:  # Ray Train started all anew
            self.begun.clear()
        if self.noticed and not self.begun:
            self.noticed = False
            self.said.append(f"nodes of the training were taken away; it goes on from {self._place()}")
        self.begun.add(rank)
        if killed is not None and killed > self.killed.setdefault(node, killed) and self.losses:
            self.complain(out_of_memory("the system ended a training process"))
        return self.failure is None

    def latest(self) -> bytes | None:
        """The last checkpoint; None before the first."""
        return self.path.read_bytes() if self.path.exists() else None

    def save(self, content: np.ndarray, records: list[EpochRecord], steps: int = 0, *, notice: bool = False) -> None:
        """Keep a checkpoint (its bytes, as uint8); on disk when this returns.

        ``records``: the epochs so far. ``steps``: those of an unfinished one. ``notice``: it was told that nodes will be taken
        away, as spot nodes are.
        """
        try:
            checkpoint.write(self.path, content.data)
        except OSError as error:
            self.complain(error)
            raise
        self.records, self.kept_steps = records, steps
        if notice:
            self.noticed = True
            self.said.append(f"a node of the training will be taken away; all up to {self._place()} is saved")

    def _place(self) -> str:
        """Where training goes on after the last checkpoint."""
        epoch = f"epoch {len(self.records) + 1}"
        return f"step {self.kept_steps + 1} of {epoch}" if self.kept_steps else epoch

    def report(self, step: int, steps_per_epoch: int) -> bool:
        """Note how many steps are done. Whether to go on."""
        self.step = step, steps_per_epoch
        return self.failure is None

    def complain(self, failure: Exception) -> None:
        """Keep the first reason why training cannot go on."""
        if isinstance(failure, TrainingDivergedError):
            epochs = len(self.records)
            kept = f"{self.continued} continues after epoch {epochs}" if epochs else f"{self.continued} starts it again"
            failure = TrainingDivergedError(f"{failure}; {kept}")
        self.failure = self.failure or failure

    def finished(self) -> bool:
        """Whether the last epoch is on disk."""
        return len(self.records) >= self.epochs

    def lost(self, reasons: list[str], most: int) -> bool:
        """Note that processes were lost; ``most``: how often that may be. Whether starting them again makes sense.

        Those that were told to go may be lost as often as it will.
        """
        self.begun.clear()
        if self.noticed:
            return self.failure is None
        self.losses += 1
        reason = reasons[0] if reasons else "no reason given"
        if any(sign in text.lower() for text in reasons for sign in _SHORT_OF_MEMORY):
            self.complain(out_of_memory("Ray ended a training process"))
        elif self.failure is None and self.losses <= most:
            begins = f"training goes on from {self._place()} ({self.losses} of {most})"
            self.said.append(f"a training process was lost; {begins}: {reason}")
        return self.failure is None

    def check(self) -> None:
        """Raise why training cannot go on, if there is a reason."""
        if self.failure is not None:
            raise self.failure

    def state(self, records: int, said: int) -> TrainingState:
        """How far training is; ``records`` and ``said``: how many epochs and lines are known already."""
        step, steps_per_epoch = self.step or (0, None)
        return TrainingState(self.records[records:], step, steps_per_epoch, len(self.begun), self.said[said:])


_SHORT_OF_MEMORY = ("out of memory", "outofmemory", "low on memory", "memory monitor")
"""Signs, in what Ray says of a lost process, that its memory monitor ended it."""


_LESS = (
    "lower train.batch-size, dataset.img-size or train.loader-workers and start again, or continue with --resume where more "
    "memory is free"
)
"""What helps a supernet's training that needs more memory than there is."""


def out_of_memory(what: str, remedy: str = _LESS) -> UserError:
    """What to tell a user whose training needs more memory than there is."""
    return UserError(f"{what} for lack of memory; {remedy}")


def lacks_memory(error: Exception) -> bool:
    """Whether an error says that a GPU or this machine has no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def killed_for_memory() -> int | None:
    """How many processes this machine's system has killed for lack of memory since it started; None where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def within_of(metadata: dict[str, Any]) -> Within | None:
    """How far a training checkpoint is in the epoch after those."""
    return Within.read(metadata["within"]) if "within" in metadata else None


def history_of(metadata: dict[str, Any]) -> list[EpochRecord]:
    """The epochs that a training checkpoint has behind it."""
    return [EpochRecord(**record) for record in metadata["history"]]
