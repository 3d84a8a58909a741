"""Number formats of a forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "float32", "bfloat16", "float16"]
"""``auto``: bfloat16 where a GPU computes in it, float32 elsewhere. float16 is for GPUs without bfloat16; training then scales
the loss, so that small gradients are not lost."""


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context in which a forward pass runs with ``precision`` on ``device``."""
    import torch  # here, as processes that compute nothing read settings too

    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    half = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast(device.type, dtype=half, enabled=precision != "float32")
