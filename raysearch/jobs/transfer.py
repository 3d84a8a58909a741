"""A network that a search found learns other classes: its body stays, its head is drawn anew."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from raysearch.distributed.evaluators import EvaluatorConfig
from raysearch.jobs.connecting import connected_to_ray
from raysearch.jobs.fitting import machine_of_cluster
from raysearch.jobs.found_network import FoundNetwork, find_network
from raysearch.jobs.network_command import NetworkCommand
from raysearch.jobs.network_job import NetworkJob, carry_out
from raysearch.jobs.progress import activity
from raysearch.recipes import RECIPES
from raysearch.recipes.fitted import SMALL, Machine, fitted_training, with_epochs
from raysearch.spaces.other_ends import refitted
from raysearch.store.paths import absolute_unless_uri
from raysearch.tasks import Splits
from raysearch.tasks.images.classification import ImageClassification
from raysearch.training.config import TrainingConfig

_, IMAGES = RECIPES["images"]
"""How a search on a folder of images is set."""
EPOCHS = 30
"""Epochs where none are given."""
LAYER_DECAY = 0.75
"""Ratio of the learning rates of a layer and of the next, where none is given (BEiT's and MAE's for base-sized networks)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferCommand(NetworkCommand):
    """Train a network that a search found on other images, with other classes."""

    source: Annotated[Path, tyro.conf.Positional]
    """Output folder of a search or of one of its networks, or champion.json with its weights beside it."""
    data: str
    """The images: a folder with a sub-folder per class, or what else a search reads (docs/images.md)."""
    task: Annotated[ImageClassification, tyro.conf.arg(name="")] = field(default_factory=lambda: IMAGES.task)
    """Images, splits and augmentation. Size, channels and normalisation that are not given are those of the network."""


def transfer(command: TransferCommand, *, line: str, console: Console) -> Path:
    """Train the network on other images; returns the folder of what came of it. The same command goes on where it stopped.

    Raises UserError, in one line with the remedy, for what the user can mend.
    """
    network = find_network(command.source, subnet=command.subnet, family=command.family)
    task = _for_network(command.task, network, command.given).reading(absolute_unless_uri(command.data))
    with activity(console, "reading the images"):
        splits = task.splits()
    with connected_to_ray(command.ray_address, console):
        machine = machine_of_cluster(command.train)
        task = replace(task, augment=task.fitted(splits, accelerated=machine.gpus > 0, given=_sized(command.given)).augment)
        ends, arch = task.ends(splits), network.family.architecture.from_dict(network.card.arch)
        if network.card.data is not None and network.card.data.digest == splits.digest:
            console.print(
                "these are the images that the network was trained on, divided in the same way: to keep its head, finetune it",
                highlight=False,
                soft_wrap=True,
            )
        train = _training(command, splits, machine, small=(network.card.params or 0) < SMALL)
        made = refitted(
            network.family,
            network.card.settings,
            network.module.state_dict(),
            ends,
            arch=arch,
            weight_init=train.weight_init,
            seed=command.seed,
        )
        job = NetworkJob(
            name="transfer",
            source=command.source,
            network=network,
            task=task,
            splits=splits,
            settings=made.settings,
            start=made.weights,
            began=f"weights that it learned on {_learned_on(network)}, and a head of fresh ones",
            train=train,
            seed=command.seed,
            evaluators=EvaluatorConfig(),
            recipe=network.card.data.recipe if network.card.data else "transfer",
        )
        return carry_out(job, command.places(line), console)


def _for_network(task: ImageClassification, network: FoundNetwork, given: frozenset[str]) -> ImageClassification:
    """The task with the inputs that the network knows, but for those that the command gives."""
    known = network.card.preprocessing or {}
    fields = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in known.items()
        if f"dataset.{name}" not in given and hasattr(task.dataset, name)
    }
    if {"dataset.in_chans", "dataset.mean", "dataset.std"} & given:  # they go together
        fields = {name: value for name, value in fields.items() if name not in ("in_chans", "mean", "std")}
    return replace(task, dataset=replace(task.dataset, finalist_images=_finalists(task, given), **fields))


def _finalists(task: ImageClassification, given: frozenset[str]) -> Any:
    """No images are kept to choose among networks, as there is one."""
    return task.dataset.finalist_images if "dataset.finalist_images" in given else 0


def _sized(given: frozenset[str]) -> frozenset[str]:
    return given | {"dataset.img_size", "dataset.crop_pct"}


def _training(command: TransferCommand, splits: Splits, machine: Machine, *, small: bool) -> TrainingConfig:
    """As a search on such images would train, in fewer epochs, with what the command gives."""
    asked = command.given_to(replace(IMAGES.train, layer_decay=LAYER_DECAY))
    train = fitted_training(asked, len(splits.train), machine, command.given, small=small)
    epochs = command.asked_epochs() or EPOCHS
    return with_epochs(train, epochs, command.given, asked=asked)


def _learned_on(network: FoundNetwork) -> str:
    data = network.card.data
    return "other images" if data is None else f"{data.train_images:,} images of {data.dataset}"
