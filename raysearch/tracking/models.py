"""A network as the files that MLflow's registry keeps: loadable where raysearch is not installed."""

from __future__ import annotations

import json
import tempfile
import warnings
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from mlflow import (
    pyfunc,  # pyright: ignore[reportPrivateImportUsage]
    pytorch,  # pyright: ignore[reportPrivateImportUsage]
)
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ParamSchema, ParamSpec
from torch import nn

from raysearch.errors import UserError
from raysearch.export.card import knows_names
from raysearch.export.programs import extra_files, torch_export_uint8
from raysearch.store.files import folder_written_whole
from raysearch.store.model_card import ModelCard
from raysearch.tracking import served
from raysearch.tracking.copies import write_copy


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
    card: ModelCard | None = None
    """What is known of it: with classes and preprocessing of images, the version takes pictures and gives names."""
    about_model: str = ""
    """Markdown that describes the model whose version this is, for all of its versions."""
    about: str = ""
    """Markdown that describes this version."""


def save_model(folder: Path, network: Network, inputs: Float32[np.ndarray, "batch ..."]) -> None:
    """Write ``folder``, whole or not at all: a classifier of pictures where the network is one, else its bare graph.

    ``inputs`` is the example for a bare graph.
    """
    card = network.card
    if card is not None and knows_names(card):
        save_classifier(folder, network.module, card)
    else:
        save_graph(folder, network.module, inputs)


def save_classifier(folder: Path, module: nn.Module, card: ModelCard) -> None:
    """Write a model that takes paths, bytes, base64 strings or uint8 pixels, and gives names with probabilities.

    It holds the program of ``raysearch export --uint8`` and a copy of :mod:`~raysearch.tracking.served`, nothing pickled.
    """
    program = torch_export_uint8(module, card=card)
    with (
        tempfile.TemporaryDirectory(prefix="raysearch-") as given,
        folder_written_whole(folder) as temporary,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of exporter and MLflow, about their own insides
        data = Path(given, "data")
        data.mkdir()
        with (data / served.PROGRAM).open("wb") as file:
            torch.export.save(program, file, extra_files=extra_files(card))
        code, module_name = write_copy(Path(given), served)
        pyfunc.save_model(
            temporary,
            loader_module=module_name,
            data_path=str(data),
            code_paths=[str(code)],
            signature=ModelSignature(params=ParamSchema([ParamSpec("top_k", "long", served.TOP)])),
            pip_requirements=_requirements("mlflow", "torch", "numpy", "pandas", "pillow"),
            metadata={"raysearch": json.dumps({"classes": card.classes, "id": card.id, "search_id": card.search_id})},
        )


def save_graph(folder: Path, module: nn.Module, inputs: Float32[np.ndarray, "batch ..."]) -> None:
    """Write the exported graph with its weights, signature, example and requirements.

    Args:
        folder: replaced when it exists.
        module: maps inputs to outputs; exported in evaluation mode with a free batch size.
        inputs: the example, at least two: the export takes a batch of one for a constant.

    """
    if len(inputs) < 2:
        raise UserError(f"{len(inputs)} image as the example; give at least 2")
    module = module.eval()
    with torch.no_grad(), warnings.catch_warnings(), folder_written_whole(folder) as temporary:
        warnings.simplefilter("ignore")  # of exporter and MLflow, about their own insides
        outputs = module(torch.from_numpy(inputs)).numpy()
        pytorch.save_model(
            module,
            temporary,
            signature=infer_signature(inputs, outputs),
            input_example=inputs,
            pip_requirements=_requirements("mlflow", "torch", "numpy"),
        )


def _requirements(*names: str) -> list[str]:
    """Named with their versions: MLflow would load the model in a new process to find out, which takes 20 times as long."""
    return [f"{name}=={version(name)}" for name in names]
