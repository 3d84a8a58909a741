"""Subnets as programs that run without this package, torch.export and ONNX, each compared with the subnet before it is kept.

Two kinds: ``images`` in and ``logits`` out, where the caller prepares the images; and, with ``_uint8`` in the names below,
pixels of any size in and probabilities out, with all of the preparation inside.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from raysearch.errors import UserError
from raysearch.export.pixels import PixelClassifier, Preparation
from raysearch.store.files import written_whole
from raysearch.store.model_card import ModelCard
from raysearch.tasks.images.config import DataConfig
from raysearch.tasks.images.transforms import Normalisation, evaluation_crop, to_array

BATCHES = (1, 2, 5)
"""Batch sizes that a written program is compared on."""
TORCH_EXPORT_TOLERANCE = 1e-5
ONNX_TOLERANCE = 1e-4
"""How far a logit, or a probability, may be from the subnet's."""
METADATA = "raysearch"
"""Entry of an ONNX file's metadata that holds the model card as JSON; so is ``raysearch.json`` among a .pt2's extra files."""
LABELS = "labels"
"""The same of the names of the outputs, a JSON list: ``labels``, and ``labels.json``."""
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check_onnx_installed() -> None:
    """Raises UserError with the remedy where a package that writes or runs ONNX is absent."""
    if absent := [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]:
        raise UserError(f"ONNX needs packages that are not installed: pip install {' '.join(absent)}, or choose other formats")


# --- what is written --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Program:
    """A module to be written, and what it must compute."""

    module: nn.Module
    example: Tensor
    free: Mapping[int, str]
    """Dimensions of the input that may be anything."""
    output: str
    """What comes out, as ``logits``."""
    cases: Callable[[], Iterator[tuple[Tensor, Tensor]]]
    """Inputs, and the outputs that the subnet has for them by the product's own way."""

    @property
    def dims(self) -> tuple[dict[int, Any]]:
        """The free dimensions for an exporter."""
        return ({index: Dim(name) for index, name in self.free.items()},)


def _of_logits(subnet: nn.Module, image_shape: tuple[int, int, int]) -> _Program:
    subnet = subnet.eval()

    def cases() -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for batch in BATCHES:
            images = torch.randn(batch, *image_shape, generator=generator)
            yield images, subnet(images)

    return _Program(subnet, torch.zeros(2, *image_shape), {0: "batch"}, "logits", cases)


def _of_pixels(subnet: nn.Module, how: Mapping[str, Any]) -> _Program:
    subnet = subnet.eval()
    chans = how["in_chans"]
    free = {0: "batch", 1: "height", 2: "width"}
    # Of no size that stands for something: an exporter takes equal numbers for one.
    example = torch.zeros(2, how["img_size"] + 17, how["img_size"] + 29, chans, dtype=torch.uint8)
    module = PixelClassifier(Preparation.of(how), subnet)
    return _Program(module, example, free, "probabilities", partial(_pictures, subnet, how))


def _pictures(subnet: nn.Module, how: Mapping[str, Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures from coarse to fine, wide and tall, enlarged and shrunk, and what the product's evaluation makes of them."""
    names = ("img_size", "in_chans", "interpolation", "crop_pct")
    config = DataConfig(dataset="images", mean=tuple(how["mean"]), std=tuple(how["std"]), **{name: how[name] for name in names})
    crop, normalise = evaluation_crop(config), Normalisation(config.mean, config.std)
    rng, side = np.random.default_rng(0), config.img_size
    sizes = ((side, side), (max(1, side // 2), side), (2 * side + 5, 3 * side + 1), (3 * side + 2, 2 * side + 1))
    for batch, (height, width) in zip((*BATCHES, 1), sizes, strict=True):
        pictures = np.stack([_picture(rng, height, width, config.in_chans) for _ in range(batch)])
        seen = [to_array(crop(Image.fromarray(p[..., 0] if config.in_chans == 1 else p))) for p in pictures]
        inputs = normalise(torch.from_numpy(np.stack(seen)))
        yield torch.from_numpy(pictures), subnet(inputs).float().softmax(dim=1)


def _picture(rng: np.random.Generator, height: int, width: int, chans: int) -> UInt8[np.ndarray, "height width chans"]:
    """Blots of several sizes and a little noise."""
    total = np.zeros((height, width, chans))
    for cells in (2, 5, 16):
        blots = rng.integers(0, 256, (cells, cells, chans), dtype=np.uint8)
        layers = [Image.fromarray(blots[..., c]).resize((width, height)) for c in range(chans)]
        total += np.stack([np.asarray(layer, float) for layer in layers], axis=-1) / 3
    return np.clip(total + rng.normal(0, 8, total.shape), 0, 255).astype(np.uint8)


# --- torch.export -----------------------------------------------------------------------------------------------------


def write_torch_export(
    path: Path, subnet: nn.Module, image_shape: tuple[int, int, int], *, card: ModelCard | None = None
) -> float:
    """Write ``subnet`` as a ``.pt2`` file that takes any batch size; returns the largest difference of its logits.

    ``image_shape``: channels, height, width. Model card and labels are its extra files, where a card is given. Raises
    UserError, and leaves no file, above :data:`TORCH_EXPORT_TOLERANCE`.
    """
    return _write_torch_export(path, _of_logits(subnet, image_shape), card)


def write_torch_export_uint8(path: Path, subnet: nn.Module, *, card: ModelCard) -> float:
    """The same for pixels: uint8 (batch, height, width, chans) of any size in, probabilities of the card's classes out."""
    how = preprocessing_of_images(card, remedy="write_torch_export takes it")
    return _write_torch_export(path, _of_pixels(subnet, how), card)


def torch_export_uint8(subnet: nn.Module, *, card: ModelCard) -> ExportedProgram:
    """The program of :func:`write_torch_export_uint8` as it is in memory, not compared with anything."""
    program = _of_pixels(subnet, preprocessing_of_images(card))
    with torch.no_grad():
        return torch.export.export(program.module.eval(), (program.example,), dynamic_shapes=program.dims)


def extra_files(card: ModelCard) -> dict[str, str]:
    """What a ``.pt2`` file holds beside its program."""
    return {f"{METADATA}.json": json.dumps(card.to_dict()), f"{LABELS}.json": json.dumps(card.classes or [])}


def _write_torch_export(path: Path, what: _Program, card: ModelCard | None) -> float:
    program = torch.export.export(what.module.eval(), (what.example,), dynamic_shapes=what.dims)
    with written_whole(path) as temporary:
        with temporary.open("wb") as file:  # a name without .pt2 would bring a warning
            torch.export.save(program, file, extra_files=None if card is None else extra_files(card))
        with temporary.open("rb") as file:
            loaded = torch.export.load(file).module()

        def run(images: Tensor) -> Tensor:
            return loaded(images)

        return _checked(path, _difference(run, what), TORCH_EXPORT_TOLERANCE, what.output)


# --- ONNX -------------------------------------------------------------------------------------------------------------


def write_onnx(path: Path, subnet: nn.Module, image_shape: tuple[int, int, int], *, card: ModelCard) -> float:
    """Write ``subnet`` as an ONNX file, ``images`` in and ``logits`` out, that takes any batch size.

    Returns the largest difference of its logits as onnxruntime computes them on the CPU. The model card and the labels go into
    the file's metadata. ``image_shape``: channels, height, width.

    Raises:
        UserError: above :data:`ONNX_TOLERANCE`, and no file is left; or where a package is not installed.

    """
    height, width = image_shape[1:]
    return _write_onnx(path, _of_logits(subnet, image_shape), card, f"float32 (batch, {image_shape[0]}, {height}, {width})")


def write_onnx_uint8(path: Path, subnet: nn.Module, *, card: ModelCard) -> float:
    """The same for pixels: ``images``, uint8 (batch, height, width, chans) of any size, in, and ``probabilities`` out."""
    how = preprocessing_of_images(card, remedy="write_onnx takes it")
    return _write_onnx(path, _of_pixels(subnet, how), card, pixels_in_words(how))


def _write_onnx(path: Path, what: _Program, card: ModelCard, inputs: str) -> float:
    check_onnx_installed()
    import onnxruntime  # an optional package, and this takes a second

    program = torch.onnx.export(
        what.module.eval(),
        (what.example,),
        dynamo=True,
        input_names=["images"],
        output_names=[what.output],
        dynamic_shapes=what.dims,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props[METADATA] = json.dumps(card.to_dict())
    program.model.metadata_props[LABELS] = json.dumps(card.classes or [])
    program.model.metadata_props["input"] = inputs
    with written_whole(path) as temporary:
        program.save(temporary, external_data=False)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])

        def run(images: Tensor) -> Tensor:
            (outputs,) = session.run([what.output], {"images": images.numpy()})
            return torch.from_numpy(np.asarray(outputs))

        return _checked(path, _difference(run, what), ONNX_TOLERANCE, what.output)


# --- what both share --------------------------------------------------------------------------------------------------


def preprocessing_of_images(card: ModelCard, *, remedy: str = "export it without --uint8") -> dict[str, Any]:
    """How pictures become the network's input.

    Raises UserError, with the caller's ``remedy``, for a network of something else or without classes.
    """
    how = card.preprocessing or {}
    if "img_size" not in how:
        raise UserError(f"the network takes no images, so that nothing can prepare them; {remedy}")
    if not card.classes:
        raise UserError(f"the network's outputs are no classes, so that they have no probabilities; {remedy}")
    return how


def pixels_in_words(how: Mapping[str, Any]) -> str:
    """What a program of pixels takes."""
    return f"uint8 (batch, height, width, {how['in_chans']}), {'grey' if how['in_chans'] == 1 else 'RGB'}, of any size"


@torch.inference_mode()
def _difference(run: Callable[[Tensor], Tensor], what: _Program) -> float:
    """How far the outputs of ``run`` are from those that they must be."""
    largest = 0.0
    for inputs, expected in what.cases():
        difference = (run(inputs) - expected).abs().max().item()
        largest = difference if not difference <= largest else largest  # NaN stays
    return largest


def _checked(path: Path, difference: float, tolerance: float, what: str) -> float:
    """``difference``. Raises UserError when it is above ``tolerance``, so that the file is not kept."""
    if not difference <= tolerance:
        raise UserError(
            f"{path} was not written: its {what} differ from the network's by {difference:.1e}, more than {tolerance:.0e}; "
            "choose another format, and report this"
        )
    return difference
