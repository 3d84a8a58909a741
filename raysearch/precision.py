"""Number formats of a forward pass."""

from typing import Literal

Precision = Literal["auto", "float32", "bfloat16"]
"""``auto``: bfloat16 where a GPU computes in it, float32 elsewhere."""
