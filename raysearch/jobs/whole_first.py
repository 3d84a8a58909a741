"""Of a pretrained supernet the whole network is fine-tuned first: a training of its own, and then the frozen teacher."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from raysearch.distributed.files import NodeFile, serve, share
from raysearch.distributed.network_file import NetworkFile
from raysearch.distributed.training import train_network, trained_weights, write_weights
from raysearch.distributed.training_worker import TrainingJob
from raysearch.jobs.champion import log_epoch
from raysearch.jobs.plan import Plan
from raysearch.jobs.progress import TrainingProgress, phase, say_on
from raysearch.recipes import flat_settings
from raysearch.store.folder import OutputFolder
from raysearch.store.summary import EpochRecord
from raysearch.tracking import Tracker
from raysearch.training import checkpoint
from raysearch.training.alone import phases
from raysearch.training.config import TrainingConfig
from raysearch.training.supernets import SupernetFile

FILES = ("whole-training.safetensors", "whole-start.safetensors")
"""What it leaves in the output folder until the supernet is trained: its checkpoint, and its weights as the supernet's."""
WHOLE = "whole.safetensors"
"""The fine-tuned whole network, which stays: what the champion is compared with."""


@dataclass(frozen=True, slots=True)
class WholeFirst:
    """The fine-tuned whole network."""

    start: NodeFile
    """Its weights, as the supernet's: what the training of all subnets begins with."""
    teacher: NetworkFile | None
    """The network, frozen, where the largest subnet teaches the others."""
    then: TrainingConfig
    """The training that is left."""


def whole_first(plan: Plan, start: NodeFile, folder: OutputFolder, tracker: Tracker, console: Console) -> WholeFirst | None:
    """Fine-tune the whole network, for ``largest_first`` of the epochs; a run of its own in MLflow, continued when resumed.

    None where no whole epoch is meant for it.
    """
    recipe = plan.recipe
    first, then = phases(recipe.train)
    if first is None:
        return None
    training, weights_file = (folder.path / name for name in FILES)
    job = TrainingJob(
        family=recipe.family,
        settings=plan.settings,
        space=plan.problem.space.widened(0.0),
        train=first,
        task=recipe.task,
        seed=recipe.seed,
        images=plan.splits.digest,
        start=start,
    )
    with phase(console, "whole", first.epochs, at_first="processes start") as shown:
        progress = TrainingProgress(shown, epochs=first.epochs)

        def on_epoch(record: EpochRecord) -> None:
            log_epoch(tracker, record, run="whole")
            progress.on_epoch(record)

        with tracker.training(flat_settings({"train": asdict(first)}), run="whole"):
            train_network(job, training, on_epoch=on_epoch, on_step=progress.on_step, say=say_on(console))
        tracker.end_training("whole")
    weights, history = trained_weights(job, training)
    server, teacher = serve(), None
    write_weights(weights_file, weights)
    largest, path = plan.problem.space.largest(), folder.path / WHOLE
    whole = SupernetFile(recipe.family, plan.settings, weights).build().extract(largest)
    metadata: dict[str, Any] = {"kind": "subnet", "family": recipe.family.name, "arch": largest.to_dict()}
    metadata["history"] = [asdict(record) for record in history]
    checkpoint.write(path, checkpoint.pack(whole.state_dict(), metadata))
    if recipe.train.distill.source == "largest":
        teacher = NetworkFile(recipe.family, plan.settings, largest, share(path, server=server))
    return WholeFirst(share(weights_file, server=server), teacher, then)
