"""The model card: what a person who was given a network must know. The same values as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from raysearch.spaces import Family
from raysearch.store.files import write_whole
from raysearch.store.secrets import without_credentials as without_credentials

Form = Literal["safetensors", "timm", "torch-export", "onnx"]
"""Formats that a subnet is exported in; the first is always written."""

OF_ONE_NETWORK = ("id", "arch", "score", "score_images", "test_score", "test_images", "params", "macs", "latency_ms", "origin")
"""Values of a card that are those of one network; the others are the same for all subnets of a search."""


def write_markdown(
    path: Path, values: dict[str, Any], *, family: Family[Any, Any], forms: Sequence[Form] = ("safetensors", "timm")
) -> None:
    """Write the card to ``path``, whole or not at all. It stands beside the JSON and the weights of the same name."""
    write_whole(path, "\n".join(_lines(path.stem, values, family, forms)).rstrip() + "\n")


def _lines(stem: str, values: dict[str, Any], family: Family[Any, Any], forms: Sequence[Form]) -> Iterator[str]:
    arch, data = values["arch"], values.get("data")
    name = f"{data['recipe']}: " if data else ""
    yield f"# {name}subnet {values.get('id') or family.architecture.from_dict(arch).id}"
    yield ""
    yield (
        f"{family.description}. It was found by raysearch and has the weights that it inherits from the supernet; it was not "
        "trained further."
    )
    yield ""
    yield from _table(_scores(values))
    if data:
        yield "## Images"
        yield ""
        yield from _table(
            [
                ("data set", data["dataset"]),
                *((f"{part} images", f"{data[f'{part}_images']:,}") for part in ("train", "search", "test")),
                ("seed of the splits", str(data["seed"])),
                ("digest of the splits", f"`{data['digest']}`"),
            ]
        )
        yield (
            "What the data set does not divide by itself is drawn from it class by class with this seed. No image is in two "
            "splits. The supernet was trained on the first, candidates were scored on the second; the third was read once, by "
            "the closing report."
        )
        yield ""
    if classes := values.get("classes"):
        yield f"{len(classes)} classes, in the order of the logits: {_shortened(classes)}"
        yield ""
    yield from _preprocessing(values.get("preprocessing"))
    yield "## Architecture"
    yield ""
    settings = values.get("settings", {})
    yield from _table(
        [
            *((key, f"`{value}`") for key, value in arch.items()),
            *((key, f"`{value}`") for key, value in settings.items() if key not in arch),
        ]
    )
    yield "## Loading"
    yield ""
    for form in ("safetensors", "timm", "torch-export", "onnx"):
        if form in forms and (form == "safetensors" or values.get("preprocessing")):
            yield from _loading(form, stem, values, family)
    if "search_id" in values:
        yield "## Origin"
        yield ""
        yield from _table(_origin(values))


def _table(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    if rows:
        yield "| | |"
        yield "|-|-|"
        for name, value in rows:
            yield f"| {name} | {value.replace('|', chr(92) + '|')} |"
        yield ""


def _scores(values: dict[str, Any]) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, name in (("score", "search"), ("test_score", "test")):
        score, images = values.get(key), values.get("score_images" if key == "score" else "test_images")
        if score is not None:
            counted = f" ({round(score * images):,} of {images:,} images)" if images else ""
            rows.append((f"accuracy, {name} split", f"{score:.2%}{counted}"))
        elif key in values:
            rows.append((f"accuracy, {name} split", "not scored"))
    if "precision" in values:
        precision = values["precision"]
        rows.append(("scored in", "bfloat16 on GPUs that compute in it, else float32" if precision == "auto" else precision))
    rows += [
        (name, f"{values[key]:,}") for key, name in (("params", "parameters"), ("macs", "MACs of one image")) if key in values
    ]
    if values.get("latency_ms") is not None:
        where = values.get("latency", {})
        place = f" ({where['device']}, batches of {where['batch_size']}, {where['precision']})" if where else ""
        rows.append(("latency", f"{values['latency_ms']:.3g} ms{place}"))
    return rows


def _preprocessing(how: dict[str, Any] | None) -> Iterator[str]:
    if how is None:
        return
    size, kind = how["img_size"], "grey" if how["in_chans"] == 1 else "RGB"
    yield "## Preprocessing"
    yield ""
    yield (
        f"Pixels from 0 to 255, {kind}; the shorter side resized to {int(size / how['crop_pct'])} ({how['interpolation']}), "
        f"{size} x {size} cut out of the centre; then `(pixel / 255 - mean) / std` with mean {_shortened(how['mean'])} and "
        f"std {_shortened(how['std'])}."
    )
    yield ""


def _shortened(items: Sequence[Any]) -> str:
    shown = ", ".join(str(item) for item in items[:20])
    return shown if len(items) <= 20 else f"{shown}, ... (all in the JSON file)"


def _origin(values: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("search", f"`{values['search_id']}`")]
    if "origin" in values:
        rows.append(("candidate", values["origin"]))
    if "command" in values:
        rows.append(("command", f"`{values['command']}`"))
    if "created" in values:
        rows.append(("written", values["created"]))
    if versions := values.get("versions"):
        rows.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    return rows


# --- code that loads it: tests run each of these ----------------------------------------------------------------------


def _loading(form: Form, stem: str, values: dict[str, Any], family: Family[Any, Any]) -> Iterator[str]:
    if form == "timm" and family.timm is None:
        return
    title, code = {
        "safetensors": ("With raysearch", _RAYSEARCH),
        "timm": ("With timm (raysearch installed)", _TIMM if stem == "model" else _TIMM_CONFIG),
        "torch-export": ("With PyTorch alone", _TORCH_EXPORT),
        "onnx": ("With onnxruntime alone", _ONNX),
    }[form]
    how = values.get("preprocessing") or {"in_chans": "chans", "img_size": "size"}
    shape = f"{how['in_chans']}, {how['img_size']}, {how['img_size']}"
    yield f"{title}, in the folder of this file:"
    yield ""
    yield "```python"
    yield (
        code.strip()
        .replace("STEM", stem)
        .replace("SHAPE", shape)
        .replace("NAME", family.timm.architecture if family.timm else "")
    )
    yield "```"
    yield ""


_RAYSEARCH = """
from pathlib import Path

from raysearch.export import load_subnet

network = load_subnet(Path("STEM.json"))  # prepared images (batch, SHAPE) -> logits
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
