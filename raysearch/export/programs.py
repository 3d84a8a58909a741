"""Subnets as programs that run without this package, torch.export and ONNX, each compared with the subnet before it is kept."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from raysearch.errors import UserError
from raysearch.store.files import written_whole
from raysearch.store.model_card import ModelCard

BATCHES = (1, 2, 5)
"""Batch sizes that a written program is compared on."""
TORCH_EXPORT_TOLERANCE = 1e-5
ONNX_TOLERANCE = 1e-4
"""How far a logit may be from the subnet's."""
METADATA = "raysearch"
"""Entry of an ONNX file's metadata that holds the model card as JSON."""
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check_onnx_installed() -> None:
    """Raises UserError with the remedy where a package that writes or runs ONNX is absent."""
    if absent := [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]:
        raise UserError(f"ONNX needs packages that are not installed: pip install {' '.join(absent)}, or choose other formats")


def write_torch_export(path: Path, subnet: nn.Module, image_shape: tuple[int, int, int]) -> float:
    """Write ``subnet`` as a ``.pt2`` file that takes any batch size; returns the largest difference of its logits.

    ``image_shape``: channels, height, width. Raises UserError, and leaves no file, above :data:`TORCH_EXPORT_TOLERANCE`.
    """
    program = torch.export.export(subnet.eval(), (torch.zeros(2, *image_shape),), dynamic_shapes=({0: Dim("batch")},))
    with written_whole(path) as temporary:
        with temporary.open("wb") as file:  # a name without .pt2 would bring a warning
            torch.export.save(program, file)
        with temporary.open("rb") as file:
            loaded = torch.export.load(file).module()

        def run(images: Tensor) -> Tensor:
            return loaded(images)

        return _checked(path, _difference(run, subnet, image_shape), TORCH_EXPORT_TOLERANCE)


def write_onnx(path: Path, subnet: nn.Module, image_shape: tuple[int, int, int], *, card: ModelCard) -> float:
    """Write ``subnet`` as an ONNX file, ``images`` in and ``logits`` out, that takes any batch size.

    Returns the largest difference of its logits as onnxruntime computes them on the CPU. The model card goes into the file's
    metadata. ``image_shape``: channels, height, width.

    Raises:
        UserError: above :data:`ONNX_TOLERANCE`, and no file is left; or where a package is not installed.

    """
    check_onnx_installed()
    import onnxruntime  # an optional package, and this takes a second

    program = torch.onnx.export(
        subnet.eval(),
        (torch.zeros(2, *image_shape),),
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: Dim("batch")},),
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props[METADATA] = json.dumps(card.to_dict())
    with written_whole(path) as temporary:
        program.save(temporary, external_data=False)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])

        def run(images: Tensor) -> Tensor:
            (logits,) = session.run(["logits"], {"images": images.numpy()})
            return torch.from_numpy(np.asarray(logits))

        return _checked(path, _difference(run, subnet, image_shape), ONNX_TOLERANCE)


@torch.inference_mode()
def _difference(run: Callable[[Tensor], Tensor], subnet: nn.Module, image_shape: tuple[int, int, int]) -> float:
    """How far the logits of ``run`` are from those of ``subnet``, on random images."""
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for batch in BATCHES:
        images = torch.randn(batch, *image_shape, generator=generator)
        difference = (run(images) - subnet(images)).abs().max().item()
        largest = difference if not difference <= largest else largest  # NaN stays
    return largest


def _checked(path: Path, difference: float, tolerance: float) -> float:
    """``difference``. Raises UserError when it is above ``tolerance``, so that the file is not kept."""
    if not difference <= tolerance:
        raise UserError(
            f"{path} was not written: its logits differ from the network's by {difference:.1e}, more than {tolerance:.0e}; "
            "choose another format, and report this"
        )
    return difference
