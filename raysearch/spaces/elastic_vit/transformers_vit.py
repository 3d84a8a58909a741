"""Weights of a ``ViTModel`` or ``ViTForImageClassification`` of the library transformers under timm's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_NAMES = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(weight|bias)", r"patch_embed.proj.\1"),
    (r"encoder\.layer\.(\d+)\.layernorm_before\.(weight|bias)", r"blocks.\1.norm1.\2"),
    (r"encoder\.layer\.(\d+)\.layernorm_after\.(weight|bias)", r"blocks.\1.norm2.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(weight|bias)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.(weight|bias)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layer\.(\d+)\.output\.dense\.(weight|bias)", r"blocks.\1.mlp.fc2.\2"),
    (r"layernorm\.(weight|bias)", r"norm.\1"),
    (r"classifier\.(weight|bias)", r"head.\1"),
)
_PART = re.compile(r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)")
_LEFT_OUT = re.compile(r"pooler\.")
"""Of a ViTModel: what no classifier of timm's has."""


def from_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by timm's names, queries, keys and values in one; those that are timm's already as they are."""
    if not any("embeddings.patch_embeddings.projection" in name for name in weights):
        return dict(weights)
    made: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, weight in weights.items():
        short = name.removeprefix("vit.")
        if _LEFT_OUT.match(short):
            continue
        if (part := _PART.fullmatch(short)) is not None:
            block, which, kind = part.groups()
            parts.setdefault(f"blocks.{block}.attn.qkv.{kind}", {})[which] = weight
            continue
        made[next((re.sub(old, new, short) for old, new in _NAMES if re.fullmatch(old, short)), name)] = weight
    for name, found in parts.items():
        if found.keys() == {"query", "key", "value"}:
            made[name] = torch.cat([found[which] for which in ("query", "key", "value")])
    return made
