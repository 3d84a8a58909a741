"""Checkpoints: one safetensors file each, written whole or not at all. Reading one never executes code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch
from torch import Tensor

KEY = "raysearch"
"""Name of the metadata entry that marks a file as ours and holds its JSON."""


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bytes:
    """A checkpoint as bytes: tensors by name and JSON metadata."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(contiguous, {KEY: json.dumps(metadata)})


def write(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` atomically and durably: temporary name, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a checkpoint.

    Raises ValueError, with the path and the remedy, when the file is missing, damaged or not one of ours.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = cast(dict[str, str], file.metadata() or {})
            if KEY not in metadata:
                raise ValueError(f"{path} is a safetensors file, but not a checkpoint of raysearch")
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(metadata[KEY])  # noqa: SIM118
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except (safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged or not a checkpoint ({error}); delete it to start again, or restore it") from None


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors with ``prefix`` before each name."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix``, which is taken off."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
