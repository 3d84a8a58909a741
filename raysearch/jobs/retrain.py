"""A network of a finished search is trained from scratch, with weights that it shares with no other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from raysearch.jobs.found_network import find_network
from raysearch.jobs.network_command import NetworkCommand
from raysearch.jobs.network_job import Before, NetworkJob, carry_out
from raysearch.jobs.reopened import finished_search
from raysearch.training.alone import for_one, shortened


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainCommand(NetworkCommand):
    """Train a network of a finished search from fresh weights, on the images of that search: the champion, or any other."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Output folder of the search; the results go into a folder beneath it."""


def retrain(command: RetrainCommand, *, line: str, console: Console) -> Path:
    """Train the network from scratch; returns the folder of what came of it. The same command goes on where it stopped.

    Its schedule is that of the supernet, unless the command gives another. Raises UserError, in one line with the remedy, for
    what the user can mend.
    """
    search = finished_search(command.folder, family=command.family)
    recipe, splits = search.plan.recipe, search.plan.splits
    network = find_network(command.folder, subnet=command.subnet, family=command.family)
    train = for_one(shortened(recipe.train, command.asked_epochs() or recipe.train.epochs))
    job = NetworkJob(
        name="retrain",
        source=command.folder,
        network=network,
        task=recipe.task,
        splits=splits,
        settings=dict(network.card.settings),
        start=None,
        began="fresh weights",
        train=command.given_to(replace(train, distill=replace(train.distill, source="none"))),
        seed=command.seed,
        evaluators=recipe.evaluators,
        recipe=recipe.name,
        before=Before(recipe.task, splits),
    )
    return carry_out(job, command.places(line), console)
