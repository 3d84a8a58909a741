"""What the commands of finetune, retrain and transfer have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from raysearch.bounds import Count, Seed, check_numbers
from raysearch.errors import UserError
from raysearch.jobs.given import with_given
from raysearch.jobs.network_job import Places
from raysearch.training.config import TrainingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCommand:
    """One network, trained once more."""

    subnet: str = "champion"
    """champion, largest, smallest, or the id (its beginning will do) of a candidate or of a random subnet of the report."""
    epochs: Count | None = None
    """Epochs of the training; warm-up keeps its share of them."""
    train: TrainingConfig = field(default_factory=TrainingConfig)
    """How it is trained: settings that are not given follow from the search."""
    seed: Seed = 0
    """Decides fresh weights, the order of the images and their augmentation."""
    output: Path | None = None
    """Folder of the results. Default: one in the folder of the search, named after the job, the network and the settings."""
    family: str | None = None
    """File or module of the family, where it is one of your own."""
    tracking_uri: str | None = None
    """MLflow store. Default: MLFLOW_TRACKING_URI, or SQLite beside the output folder of the search."""
    ray_address: str | None = None
    """Ray cluster. Default: Ray's own rule, a cluster that runs on this node or else a new one on this machine."""

    given: Annotated[frozenset[str], tyro.conf.Suppress] = frozenset()
    """Names of the settings that stood on the command line."""

    def __post_init__(self) -> None:
        """Raises UserError for numbers that cannot be, and for two that say the same."""
        check_numbers(self)
        if self.epochs is not None and "train.epochs" in self.given:
            raise UserError("--epochs and --train.epochs are the same; give one of them")

    def asked_epochs(self) -> int | None:
        """The epochs that the command gives; None where it gives none."""
        return self.train.epochs if "train.epochs" in self.given else self.epochs

    def given_to(self, train: TrainingConfig) -> TrainingConfig:
        """The training with what the command gives of it."""
        changed: Any = with_given(train, self.train, self.given - {"train.epochs"}, group="train")
        return changed

    def places(self, line: str) -> Places:
        """Where its results go and its processes run; ``line`` is the command line."""
        return Places(line, self.output, self.tracking_uri, self.ray_address)
