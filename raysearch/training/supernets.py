"""Supernets as files: weights and settings in one checkpoint; published ones are read too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from raysearch.spaces.autoformer import geometry_of, read_published
from raysearch.spaces.autoformer.published import check_layout
from raysearch.spaces.family import family as space_family
from raysearch.spaces.supernet import Supernet
from raysearch.training import checkpoint

KIND = "supernet"


@dataclass(frozen=True, slots=True)
class SupernetFile:
    """A supernet taken from disk: enough to build it again."""

    family: str
    settings: dict[str, Any]
    """Constructor arguments."""
    weights: dict[str, Tensor]
    images: str | None = None
    """Digest of the splits that it was trained on; None where that is not known, as of a published one."""

    def write(self, path: Path) -> None:
        """Put it at ``path`` as a checkpoint of our own, atomically."""
        metadata = {"kind": KIND, "family": self.family, "settings": self.settings, "images": self.images}
        checkpoint.write(path, checkpoint.pack(self.weights, metadata))

    def build(self) -> Supernet[Any]:
        """The supernet; its parameters are the file's tensors, not copies of them."""
        with torch.device("meta"):  # no weights are drawn only to be replaced
            supernet = space_family(self.family).supernet(**self.settings)
        supernet.load_state_dict(self.weights, assign=True)
        return supernet


def read_supernet(path: Path) -> SupernetFile:
    """A checkpoint of our own (safetensors) or AutoFormer's published pickle (read without executing it).

    Raises ValueError, with the path, for a file that is missing, damaged or something else.
    """
    images = None
    if _is_safetensors(path):
        weights, metadata = checkpoint.read(path)
        if metadata.get("kind") != KIND:
            raise ValueError(f"{path} is a checkpoint of raysearch, but holds no supernet (a {metadata.get('kind')})")
        family, settings, images = metadata["family"], metadata["settings"], metadata.get("images")
    else:
        weights, family, settings = read_published(path), "autoformer", None
    try:
        settings = settings or {**asdict(geometry_of(weights)), "drop_path_rate": 0.0}
        with torch.device("meta"):  # names and shapes, without memory
            expected = space_family(family).supernet(**settings).state_dict()
        check_layout(weights, expected=expected)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no usable supernet: {error}") from None
    return SupernetFile(family, settings, weights, images)


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
    family: str,
    settings: Mapping[str, Any],
    *,
    weight_init: Literal["trunc_normal", "xavier"],
    pos_embed_std: float,
    seed: int,
) -> Supernet[Any]:
    """A supernet with fresh weights, the same for the same seed on every process."""
    supernet = space_family(family).supernet(**settings)
    generator = torch.Generator().manual_seed(seed)
    supernet.reset_parameters(weight_init=weight_init, pos_embed_std=pos_embed_std, generator=generator)
    return supernet
