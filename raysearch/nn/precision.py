"""Number formats of a forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "float32", "bfloat16"]
"""``auto``: bfloat16 where a GPU computes in it, float32 elsewhere."""


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context in which a forward pass runs with ``precision`` on ``device``."""
    import torch  # here, as processes that compute nothing read settings too

    bfloat16 = precision == "bfloat16" or (precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported())
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16)
