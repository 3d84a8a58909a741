"""The model card for people: Markdown beside the JSON file that holds the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from raysearch.spaces import Family
from raysearch.store.files import write_whole
from raysearch.store.model_card import ModelCard
from raysearch.store.scores import NONE

Form = Literal["safetensors", "timm", "torch-export", "onnx"]
"""Formats that a subnet is exported in; the first is always written."""


def write_markdown(
    path: Path, card: ModelCard, *, family: Family[Any, Any], forms: Sequence[Form] = ("safetensors", "timm")
) -> None:
    """Write the card to ``path``, whole or not at all. It stands beside the JSON and the weights of the same name."""
    write_whole(path, "\n".join(_lines(path.stem, card, family, forms)).rstrip() + "\n")


def _lines(stem: str, card: ModelCard, family: Family[Any, Any], forms: Sequence[Form]) -> Iterator[str]:
    data = card.data
    name = f"{data.recipe}: " if data else ""
    yield f"# {name}subnet {card.id or family.architecture.from_dict(card.arch).id}"
    yield ""
    yield (
        f"{family.description}. It was found by raysearch and has the weights that it inherits from the supernet; it was not "
        "trained further."
    )
    yield ""
    yield from _table(_scores(card))
    if data:
        yield "## Images"
        yield ""
        yield from _table(
            [
                ("data set", data.dataset),
                ("train images", f"{data.train_images:,}"),
                ("search images", f"{data.search_images:,}"),
                *([("finalist images", f"{data.finalist_images:,}")] if data.finalist_images else []),
                ("test images", f"{data.test_images:,}"),
                ("seed of the splits", str(data.seed)),
                ("digest of the splits", f"`{data.digest}`"),
            ]
        )
        yield (
            "What the data set does not divide by itself is drawn from it class by class with this seed. No image is in two "
            "splits. The supernet was trained on the train images, candidates were scored on the search images; the test "
            "images were read once, by the closing report."
        )
        yield ""
    if card.classes:
        yield f"{len(card.classes)} classes, in the order of the logits: {_shortened(card.classes)}"
        yield ""
    yield from _preprocessing(card.preprocessing)
    yield "## Architecture"
    yield ""
    yield from _table(
        [
            *((key, f"`{_value(value)}`") for key, value in card.arch.items()),
            *((key, f"`{_value(value)}`") for key, value in card.settings.items() if key not in card.arch),
        ]
    )
    yield "## Loading"
    yield ""
    for form in ("safetensors", "timm", "torch-export", "onnx"):
        # How images become inputs must be known for all but the first.
        if form in forms and (form == "safetensors" or _of_images(card.preprocessing)):
            yield from _loading(form, stem, card, family)
    if card.search_id is not None:
        yield "## Origin"
        yield ""
        yield from _table(_origin(card, card.search_id))


def _value(value: Any) -> str:
    """A choice or a setting; a dash stands for a block that is left out."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, cast(Sequence[Any], value)))}]"
    return NONE if value is None else str(value)


def _table(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    if rows:
        yield "| | |"
        yield "|-|-|"
        for name, value in rows:
            yield f"| {name} | {value.replace('|', chr(92) + '|')} |"
        yield ""


def _scores(card: ModelCard) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for split, score, items in (("search", card.score, card.score_images), ("test", card.test_score, card.test_images)):
        name = f"{card.score_name}, {split} split"
        if score is not None:
            right = f"{round(score * items):,} of " if card.scale.is_share and items else ""
            counted = f" ({right}{items:,} images)" if items else ""
            rows.append((name, f"{card.scale.text(score, unit='%')}{counted}"))
        elif items is not None:
            rows.append((name, "not scored"))
    if card.precision is not None:
        auto = "bfloat16 on GPUs that compute in it, else float32"
        rows.append(("scored in", auto if card.precision == "auto" else card.precision))
    sizes = (("parameters", card.params), ("MACs of one image", card.macs))
    rows += [(name, f"{size:,}") for name, size in sizes if size is not None]
    if card.latency_ms is not None:
        where = card.latency
        place = f" ({where.device}, batches of {where.batch_size}, {where.precision})" if where else ""
        rows.append(("latency", f"{card.latency_ms:.3g} ms{place}"))
    return rows


def _of_images(how: dict[str, Any] | None) -> bool:
    """Whether the preprocessing is that of images."""
    return how is not None and "img_size" in how


def _preprocessing(how: dict[str, Any] | None) -> Iterator[str]:
    if not how:
        return
    yield "## Preprocessing"
    yield ""
    if not _of_images(how):
        yield from _table([(key, f"`{_value(value)}`") for key, value in how.items()])
        return
    size, kind = how["img_size"], "grey" if how["in_chans"] == 1 else "RGB"
    yield (
        f"Pixels from 0 to 255, {kind}; the shorter side resized to {int(size / how['crop_pct'])} ({how['interpolation']}), "
        f"{size} x {size} cut out of the centre; then `(pixel / 255 - mean) / std` with mean {_shortened(how['mean'])} and "
        f"std {_shortened(how['std'])}."
    )
    yield ""


def _shortened(items: Sequence[Any]) -> str:
    shown = ", ".join(str(item) for item in items[:20])
    return shown if len(items) <= 20 else f"{shown}, ... (all in the JSON file)"


def _origin(card: ModelCard, search_id: str) -> list[tuple[str, str]]:
    rows = [("search", f"`{search_id}`")]
    if card.origin is not None:
        rows.append(("candidate", card.origin))
    if card.command is not None:
        rows.append(("command", f"`{card.command}`"))
    if card.created is not None:
        rows.append(("written", card.created))
    if card.versions:
        rows.append(("versions", ", ".join(f"{name} {version}" for name, version in card.versions.items())))
    return rows


# --- code that loads it: tests run each of these ----------------------------------------------------------------------


def _loading(form: Form, stem: str, card: ModelCard, family: Family[Any, Any]) -> Iterator[str]:
    if form == "timm" and family.timm is None:
        return
    title, code = {
        "safetensors": ("With raysearch", _RAYSEARCH),
        "timm": ("With timm (raysearch installed)", _TIMM if stem == "model" else _TIMM_CONFIG),
        "torch-export": ("With PyTorch alone", _TORCH_EXPORT),
        "onnx": ("With onnxruntime alone", _ONNX),
    }[form]
    how = card.preprocessing
    if how is None or _of_images(how):
        how = how or {"in_chans": "chans", "img_size": "size"}
        shape, inputs = f"{how['in_chans']}, {how['img_size']}, {how['img_size']}", "images"
    else:
        shape, inputs = "...", "inputs"
    yield f"{title}, in the folder of this file:"
    yield ""
    yield "```python"
    yield (
        code.strip()
        .replace("STEM", stem)
        .replace("INPUTS", inputs)
        .replace("SHAPE", shape)
        .replace("NAME", family.timm.architecture if family.timm else "")
    )
    yield "```"
    yield ""


_RAYSEARCH = """
from pathlib import Path

from raysearch.export import load_subnet

network = load_subnet(Path("STEM.json"))  # prepared INPUTS (batch, SHAPE) -> logits
"""

_TIMM = """
import timm
import raysearch.export.timm  # registers the architecture

network = timm.create_model("local-dir:.", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))  # a PIL image -> (SHAPE)
"""

_TIMM_CONFIG = """
import timm
import raysearch.export.timm  # registers the architecture

network = timm.create_model("NAME", config="STEM.json", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))  # a PIL image -> (SHAPE)
"""

_PREPARE = """
card = json.loads(Path("STEM.json").read_text())
mean, std = (np.array(card["preprocessing"][name], np.float32).reshape(1, -1, 1, 1) for name in ("mean", "std"))


def prepare(pixels):  # resized and cropped, uint8 (batch, SHAPE)
    return (pixels.astype(np.float32) / 255 - mean) / std
"""

_TORCH_EXPORT = f"""
import json
from pathlib import Path

import numpy as np
import torch

{_PREPARE.strip()}


network = torch.export.load("STEM.pt2").module()


def logits(pixels):
    with torch.inference_mode():
        return network(torch.from_numpy(prepare(pixels))).numpy()
"""

_ONNX = f"""
import json
from pathlib import Path

import numpy as np
import onnxruntime

{_PREPARE.strip()}


session = onnxruntime.InferenceSession("STEM.onnx", providers=["CPUExecutionProvider"])


def logits(pixels):
    return session.run(["logits"], {{"images": prepare(pixels)}})[0]
"""
