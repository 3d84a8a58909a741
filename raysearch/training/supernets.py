"""Supernets as files: weights and settings in one checkpoint; those of other programs are read by their family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from raysearch.errors import UserError
from raysearch.spaces import Family, Supernet
from raysearch.spaces.supernet import check_layout
from raysearch.training import checkpoint

KIND = "supernet"


@dataclass(frozen=True, slots=True)
class SupernetFile:
    """A supernet taken from disk: enough to build it again."""

    family: Family[Any, Any]
    settings: dict[str, Any]
    """Constructor arguments."""
    weights: dict[str, Tensor]
    images: str | None = None
    """Digest of the splits that it was trained on; None where that is not known, as of a published one."""
    config: dict[str, Any] | None = None
    """How the family was configured, space included, as JSON values; None where that is not known."""
    preprocessing: dict[str, Any] | None = None
    """How its inputs were prepared, as JSON values; None where that is not known."""
    classes: list[str] | None = None
    """Names of its outputs; None where they are not known."""

    def write(self, path: Path) -> None:
        """Put it at ``path`` as a checkpoint of our own, atomically."""
        metadata = {"kind": KIND, "family": self.family.name, "settings": self.settings, "images": self.images}
        metadata |= {"config": self.config, "preprocessing": self.preprocessing, "classes": self.classes}
        checkpoint.write(path, checkpoint.pack(self.weights, metadata))

    def build(self) -> Supernet[Any]:
        """The supernet; its parameters are the file's tensors, not copies of them."""
        with torch.device("meta"):  # no weights are drawn only to be replaced
            supernet = self.family.supernet(**self.settings)
        supernet.load_state_dict(self.weights, assign=True)
        return supernet


def read_supernet(path: Path, family: Family[Any, Any]) -> SupernetFile:
    """A checkpoint of our own (safetensors), or one of another program that the family can read (without executing it).

    Raises UserError, with the path, for a file that is missing, damaged, of another family or something else.
    """
    images = config = preprocessing = classes = None
    if family.read_foreign is None or _is_safetensors(path):
        weights, metadata = checkpoint.read(path)
        if metadata.get("kind") != KIND:
            raise UserError(f"{path} is a checkpoint of raysearch, but holds no supernet (a {metadata.get('kind')})")
        if metadata["family"] != family.name:
            raise UserError(f"{path} holds a supernet of the family {metadata['family']}, not {family.name}")
        settings, images, config = metadata["settings"], metadata.get("images"), metadata.get("config")
        preprocessing, classes = metadata.get("preprocessing"), metadata.get("classes")
    else:
        try:
            foreign = family.read_foreign(path)
        except ValueError as error:
            raise error if str(path) in str(error) else _unusable(path, error) from None
        weights, settings = dict(foreign.weights), dict(foreign.settings)
    try:
        with torch.device("meta"):  # names and shapes, without memory
            expected = family.supernet(**settings).state_dict()
        check_layout(weights, expected=expected)
        weights = {name: _of_type(weight, expected[name].dtype, name) for name, weight in weights.items()}
    except (TypeError, ValueError) as error:
        raise _unusable(path, error) from None
    return SupernetFile(family, settings, weights, images, config, preprocessing, classes)


def _of_type(weight: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """A weight in the type that networks compute in: files in half precision are common, and one made of integers is none."""
    if weight.dtype == dtype:
        return weight
    if not (weight.is_floating_point() and dtype.is_floating_point):
        raise UserError(f"{name} is of {str(weight.dtype).removeprefix('torch.')}, not {str(dtype).removeprefix('torch.')}")
    return weight.to(dtype)


def _unusable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} holds no usable supernet: {error}")


def _is_safetensors(path: Path) -> bool:
    """By name or by content: a node keeps files of another one under their digest."""
    if path.suffix == ".safetensors":
        return True
    try:
        with path.open("rb") as file:
            return file.read(9)[8:] == b"{"  # after the length of the JSON header
    except OSError:
        return False  # the other reader says what is wrong


def build_supernet(
    family: Family[Any, Any],
    settings: Mapping[str, Any],
    *,
    weight_init: Literal["trunc_normal", "xavier"],
    pos_embed_std: float,
    seed: int,
) -> Supernet[Any]:
    """A supernet with fresh weights, the same for the same seed on every process."""
    supernet = family.supernet(**settings)
    generator = torch.Generator().manual_seed(seed)
    supernet.reset_parameters(weight_init=weight_init, pos_embed_std=pos_embed_std, generator=generator)
    return supernet
