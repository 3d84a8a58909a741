"""One network trained alone and judged: what the main job's end and the jobs on finished networks have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from raysearch.distributed.judging import Judgement, JudgingJob, judge
from raysearch.distributed.training import Training, train_networks, trained_weights
from raysearch.distributed.training_worker import TrainingJob
from raysearch.jobs.progress import TrainingProgress, activity, phase, say_on
from raysearch.search import Result
from raysearch.statistics import Interval, Outcomes, paired_difference, score_interval
from raysearch.store.summary import EpochRecord
from raysearch.training import checkpoint
from raysearch.training.trainer import TrainingDivergedError


@dataclass(frozen=True, slots=True)
class SubnetTraining:
    """A subnet to be trained alone."""

    name: str
    """What stands before its progress."""
    job: TrainingJob
    path: Path
    """Where its weights are written."""
    on_epoch: Callable[[EpochRecord], object] = lambda _: None
    """Called for every epoch, those of earlier runs included."""

    @property
    def unfinished(self) -> Path:
        """Where the training is kept until it is done."""
        return self.path.with_name(f"{self.path.stem}-training.safetensors")


def train_subnets(subnets: Sequence[SubnetTraining], console: Console, *, phase_name: str) -> list[list[EpochRecord]]:
    """Leave the weights of each trained subnet at its path. Returns the records of their epochs; nothing is trained twice.

    An interrupted training goes on from its last finished epoch. Raises what
    :func:`~raysearch.distributed.training.train_networks` raises; those that were done before stay done.
    """
    histories: dict[str, list[EpochRecord]] = {}
    for subnet in subnets:
        if subnet.path.exists():
            histories[subnet.name] = [EpochRecord(**record) for record in checkpoint.read(subnet.path)[1]["history"]]
            for record in histories[subnet.name]:
                subnet.on_epoch(record)
    left = [subnet for subnet in subnets if subnet.name not in histories]
    if left:
        epochs = [subnet.job.train.epochs for subnet in left]
        named = [subnet.name if len(subnets) > 1 else "" for subnet in left]
        with phase(console, phase_name, sum(epochs), at_first="processes start") as shown:
            trainings: list[Training] = []
            for i, subnet in enumerate(left):
                progress = TrainingProgress(
                    shown,
                    epochs=epochs[i],
                    of=named[i],
                    before=sum(epochs[:i]),
                    after=sum(epochs[i + 1 :]),
                )

                def tell(record: EpochRecord, subnet: SubnetTraining = subnet, progress: TrainingProgress = progress) -> None:
                    subnet.on_epoch(record)
                    progress.on_epoch(record)

                trainings.append(Training(subnet.job, subnet.unfinished, tell, progress.on_step))
            try:
                train_networks(trainings, say=say_on(console))
            finally:  # also where a later one failed
                for subnet in left:
                    if (history := _keep(subnet)) is not None:
                        histories[subnet.name] = history
    return [histories[subnet.name] for subnet in subnets]


@dataclass(frozen=True, slots=True)
class TrainedEach:
    """What came of trainings of which each may fail alone."""

    histories: dict[str, list[EpochRecord]]
    """Epochs of those that are done, by name."""
    failed: dict[str, str]
    """Why the others diverged."""


def train_each(subnets: Sequence[SubnetTraining], console: Console, *, phase_name: str) -> TrainedEach:
    """:func:`train_subnets`, where one that diverges ends the others not."""
    found = TrainedEach({}, {})
    while left := [subnet for subnet in subnets if subnet.name not in found.histories | found.failed]:
        try:
            epochs = train_subnets(left, console, phase_name=phase_name)
            found.histories.update(zip((subnet.name for subnet in left), epochs, strict=True))
        except TrainingDivergedError as error:
            one = next(subnet for subnet in left if not subnet.path.exists())
            found.failed[one.name] = str(error)
            one.unfinished.unlink(missing_ok=True)
    return found


def _keep(subnet: SubnetTraining) -> list[EpochRecord] | None:
    """Write the weights of a training that is done; None of one that is not."""
    if not subnet.unfinished.exists():
        return None
    weights, records = trained_weights(subnet.job, subnet.unfinished)
    if len(records) < subnet.job.train.epochs:
        return None
    assert subnet.job.arch is not None
    metadata: dict[str, Any] = {"kind": "subnet", "family": subnet.job.family.name, "arch": subnet.job.arch.to_dict()}
    metadata["history"] = [asdict(record) for record in records]
    checkpoint.write(subnet.path, checkpoint.pack(weights, metadata))
    subnet.unfinished.unlink()
    return records


def judged(jobs: Mapping[str, JudgingJob], console: Console) -> dict[str, Judgement]:
    """:func:`~raysearch.distributed.judging.judge`, with a word while it takes seconds."""
    with activity(console, "scoring the trained networks"):
        return judge(jobs, say=say_on(console))


def score_of(judgement: Judgement | None, split: str) -> float | None:
    """The score on a split; None where there is none."""
    outcome = None if judgement is None else judgement.outcomes.get(split)
    return outcome.score if isinstance(outcome, Result) else None


def outcomes_of(judgement: Judgement | None, splits: Sequence[str]) -> Outcomes | None:
    """What the network was judged on each item of several splits; None where one of them could not be scored."""
    results = [] if judgement is None else [judgement.outcomes[split] for split in splits]
    known = [result.by_item(result.items_seen) for result in results if isinstance(result, Result)]
    return np.concatenate(known) if known and len(known) == len(results) else None


def interval_of(judgement: Judgement | None, split: str) -> Interval | None:
    """The score on a split with its 95 % interval; None where there is none."""
    outcomes = None if judgement is None else outcomes_of(judgement, [split])
    return None if outcomes is None else score_interval(outcomes)


def lead(first: Judgement | None, second: Judgement | None, splits: Sequence[str]) -> Interval | None:
    """Score of the first minus that of the second on the items of these splits, in pairs; None where one was not scored."""
    one, other = outcomes_of(first, splits), outcomes_of(second, splits)
    return None if one is None or other is None else paired_difference(one, [other])
