"""What timm must know about a subnet, as plain values; ``config.json`` for ``timm.create_model("local-dir:FOLDER")``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ARCHITECTURE = "raysearch_autoformer"
"""Name under which :mod:`~raysearch.spaces.autoformer.timm_models` registers networks of any size."""


def model_args(values: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments of timm_models.AutoFormer, but for the number of classes, from a model card."""
    sizes = ("img_size", "patch_size", "in_chans", "head_dim", "global_pool", "relative_position", "abs_pos")
    sizes = (*sizes, "max_relative_position", "qkv_bias")
    return {**values["arch"], **{name: values["settings"][name] for name in sizes if name in values["settings"]}}


def pretrained_config(*, num_classes: int, in_chans: int, img_size: int, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """Record, as timm keeps it, of how images are prepared and which layers are first and last."""
    return {
        "num_classes": num_classes,
        "input_size": [in_chans, img_size, img_size],
        "fixed_input_size": True,
        "interpolation": preprocessing["interpolation"],
        "crop_pct": preprocessing["crop_pct"],
        "crop_mode": "center",
        "mean": list(preprocessing["mean"]),
        "std": list(preprocessing["std"]),
        "pool_size": None,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }


def folder_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """``config.json`` beside ``model.safetensors``, from a model card."""
    settings = values["settings"]
    shape = {name: settings[name] for name in ("num_classes", "in_chans", "img_size")}
    return {
        "architecture": ARCHITECTURE,
        "num_classes": settings["num_classes"],
        "num_features": values["arch"]["embed_dim"],
        "label_names": values["classes"],
        "model_args": model_args(values),
        "pretrained_cfg": pretrained_config(**shape, preprocessing=values["preprocessing"]),
    }
