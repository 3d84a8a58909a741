"""Checkpoints: one safetensors file each, written whole or not at all. Reading one never executes code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch
from torch import Tensor

from raysearch.errors import UserError
from raysearch.store.files import make_folder, write_whole
from raysearch.store.names import utf8_path

KEY = "raysearch"
"""Name of the metadata entry that marks a file as ours and holds its JSON."""


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bytes:
    """A checkpoint as bytes: tensors by name and JSON metadata."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(contiguous, {KEY: json.dumps(metadata)})


def write(path: Path, content: bytes | memoryview) -> None:
    """Put ``content`` at ``path``, durably, whole or not at all; its folder is made where it is missing."""
    make_folder(path.parent)
    write_whole(path, content)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, mapped from the file, and metadata of a checkpoint.

    Raises UserError, with the path and the remedy, when the file is missing, damaged or not one of ours.
    """
    try:
        with utf8_path(path) as named, safetensors.safe_open(named, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, _metadata(file.metadata())  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or not a checkpoint of raysearch ({error}); restore it or start anew") from None


def unpack(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Inverse of :func:`pack`."""
    size = int.from_bytes(content[:8], "little")  # safetensors: the length of a JSON header, then the header
    return safetensors.torch.load(content), _metadata(json.loads(content[8 : 8 + size]).get("__metadata__"))


def _metadata(entries: dict[str, str] | None) -> dict[str, Any]:
    if KEY not in (entries or {}):
        raise UserError("not written by raysearch")
    return json.loads(cast(dict[str, str], entries)[KEY])


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors with ``prefix`` before each name."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix``, which is taken off."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
