"""Published AutoFormer checkpoints: read without executing them, checked, and their geometry inferred."""

from __future__ import annotations

import argparse
import logging
import math
import pathlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from raysearch.errors import UserError
from raysearch.spaces.autoformer.geometry import AutoFormerGeometry

log = logging.getLogger(__name__)

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state", "model")
"""Where training programs put the weights in what they save; the first that is there counts."""
_PREFIXES = ("module.", "_orig_mod.", "model.")
"""What wrappers put before all names: distributed training, torch.compile, trainers."""
_ALLOWED = [argparse.Namespace, pathlib.PosixPath]
"""What published files hold besides tensors: the training script's arguments."""


def read_published(path: Path) -> dict[str, Tensor]:
    """The weights of a ``.pth`` file ``{"model": state_dict, ...}`` or of a bare state dict, on the CPU.

    Of several state dicts the first in the order of :data:`_WRAPPERS` is taken, and a warning says so; prefixes as ``module.``
    are taken off.

    Only tensors, plain containers and argument lists are read; a file that asks for anything else is refused and none of its
    code runs. Raises UserError that names the file when it is missing, damaged or holds no state dict.
    """
    # PyTorch's context takes away at its end what was allowed before it too, as timm_models.py allows paths for good.
    known = torch.serialization.get_safe_globals()
    try:
        with torch.serialization.safe_globals([kind for kind in _ALLOWED if kind not in known]):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except Exception as error:  # a damaged pickle can fail anywhere in the reader, with any exception
        raise UserError(f"{path} is not a readable PyTorch checkpoint: {_reason(path, error)}") from error
    content = _weights_of(content, path)
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{path} holds no state dict, neither under {', '.join(map(repr, _WRAPPERS))} nor by itself")
    state = cast(Mapping[Any, Any], content)
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UserError(f"{path} holds no state dict: {name!r} is {type(value).__name__}, not a tensor")
    return _without_prefixes(dict(cast(Mapping[str, Tensor], state)))


def _weights_of(content: Any, path: Path) -> Any:
    """The weights among what a training program saves: running means before the last step's, which is timm's rule too."""
    if not isinstance(content, Mapping):
        return content
    values = cast(Mapping[Any, Any], content)
    found = [name for name in _WRAPPERS if isinstance(values.get(name), Mapping) and values[name]]
    if len(found) > 1:
        log.warning("%s holds weights under %s: those under %r are taken", path, " and ".join(map(repr, found)), found[0])
    return values[found[0]] if found else values


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names that the network gives its weights, without those that wrappers put before all of them."""
    while prefix := next((prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in state)), None):
        state = {name.removeprefix(prefix): weight for name, weight in state.items()}
    return state


def _reason(path: Path, error: Exception) -> str:
    """Why a file cannot be read, in plain words: what it holds beside tensors, where that is why."""
    said = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # another error of the same file, or a format before zip
        foreign = re.findall(r"GLOBAL (\S+)", said)
    if not foreign:
        return (said.strip().splitlines() or [type(error).__name__])[0][:160]
    return (
        f"it holds Python objects beside tensors ({', '.join(foreign)}), and to read them would run their code. Save the "
        "weights alone with the program that made it: torch.save({'model': model.state_dict()}, 'weights.pth')"
    )


def geometry_of(
    state_dict: Mapping[str, Tensor], *, img_size: int | None = None, global_pool: Literal["avg", "token"] = "avg"
) -> AutoFormerGeometry:
    """The sizes of the supernet that ``state_dict`` belongs to, from the shapes of its tensors.

    ``img_size`` is needed for weights without position embedding alone; ``global_pool`` leaves no trace in the weights.
    Raises UserError when keys are absent or shapes contradict each other.
    """

    def shape(name: str, axes: int) -> tuple[int, ...]:
        if name not in state_dict:
            raise UserError(f"not an AutoFormer checkpoint: {name} is missing")
        if state_dict[name].ndim != axes:
            raise UserError(f"not an AutoFormer checkpoint: {name} has shape {tuple(state_dict[name].shape)}")
        return tuple(state_dict[name].shape)

    embed_dim, in_chans, patch_size, _ = shape("patch_embed_super.proj.weight", 4)
    num_classes, _ = shape("head.weight", 2)
    matches = (re.match(r"blocks\.(\d+)\.", name) for name in state_dict)
    depth = 1 + max((int(match[1]) for match in matches if match), default=0)
    qkv_rows, _ = shape("blocks.0.attn.qkv.weight", 2)
    hidden_features, _ = shape("blocks.0.fc1.weight", 2)
    relative_position = any(".rel_pos_embed_" in name for name in state_dict)
    head_dim, max_relative_position = 64, 14
    if relative_position:
        rows, head_dim = shape("blocks.0.attn.rel_pos_embed_k.embeddings_table_v", 2)
        max_relative_position = (rows - 2) // 2
    if qkv_rows % (3 * head_dim):
        raise UserError(f"not an AutoFormer checkpoint: {qkv_rows} qkv rows are no multiple of 3 x head dimension {head_dim}")
    if "pos_embed" in state_dict:
        _, tokens, _ = shape("pos_embed", 3)
        grid_size = math.isqrt(tokens - 1)
        if grid_size**2 != tokens - 1:
            raise UserError(f"position embedding of {tokens} tokens is no class token and square grid of patches")
        img_size = grid_size * patch_size
    elif img_size is None:
        raise UserError("weights without position embedding do not tell the image size; give img_size")
    return AutoFormerGeometry(
        img_size=img_size,
        patch_size=patch_size,
        in_chans=in_chans,
        num_classes=num_classes,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=qkv_rows // (3 * head_dim),
        mlp_ratio=_ratio(embed_dim, hidden_features),
        head_dim=head_dim,
        global_pool=global_pool,
        relative_position=relative_position,
        abs_pos="pos_embed" in state_dict,
        max_relative_position=max_relative_position,
        qkv_bias="blocks.0.attn.qkv.bias" in state_dict,
    )


def _ratio(embed_dim: int, hidden_features: int) -> float:
    """A ratio that gives ``hidden_features`` again when it is multiplied and rounded down."""
    ratio = hidden_features / embed_dim
    return ratio if int(embed_dim * ratio) == hidden_features else math.nextafter(ratio, math.inf)
