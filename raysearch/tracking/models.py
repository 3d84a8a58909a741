"""A network as the files that MLflow's registry keeps: loadable where only mlflow and torch are installed."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from mlflow import pytorch  # pyright: ignore[reportPrivateImportUsage]
from mlflow.models import infer_signature
from torch import nn

from raysearch.errors import UserError
from raysearch.store.files import folder_written_whole


@dataclass(frozen=True, slots=True)
class Network:
    """A network to be registered."""

    key: str
    """Id of its architecture."""
    module: nn.Module
    tags: dict[str, str] = field(default_factory=dict[str, str])
    """What the registry says of this version, as its score."""
    alias: str | None = None
    """As ``champion``: the name under which this version is loaded, taken from any earlier version."""


def save_model(folder: Path, module: nn.Module, images: Float32[np.ndarray, "batch chans height width"]) -> None:
    """Write ``folder``, whole or not at all: the exported graph with its weights, signature, example and requirements.

    Args:
        folder: replaced when it exists.
        module: maps images to logits; exported in evaluation mode with a free batch size.
        images: the example, at least two: the export takes a batch of one for a constant.

    """
    if len(images) < 2:
        raise UserError(f"{len(images)} image as the example; give at least 2")
    module = module.eval()
    with torch.no_grad(), warnings.catch_warnings(), folder_written_whole(folder) as temporary:
        warnings.simplefilter("ignore")  # of exporter and MLflow, about their own insides
        logits = module(torch.from_numpy(images)).numpy()
        pytorch.save_model(
            module,
            temporary,
            signature=infer_signature(images, logits),
            input_example=images,
            # Named: MLflow would load the model in a new process to find out, which takes 20 times as long.
            pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", "torch", "numpy")],
        )
