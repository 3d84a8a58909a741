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
    text = "\n".join(_lines(path.stem, card, family, forms)).rstrip() + "\n"
    write_whole(path, text.encode("utf-8", "backslashreplace"))  # names of folders may be bytes of any kind


def _lines(stem: str, card: ModelCard, family: Family[Any, Any], forms: Sequence[Form]) -> Iterator[str]:
    data = card.data
    name = f"{data.recipe}: " if data else ""
    yield f"# {name}subnet {card.id or family.architecture.from_dict(card.arch).id}"
    yield ""
    yield f"{family.description}. It was found by raysearch and {_weights(card)}."
    yield ""
    if card.remark is not None:
        yield card.remark
        yield ""
    yield from _table(facts(card))
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
            "splits. Candidates were scored on the search images; the test images were read once, by the closing report. "
            + (card.seen or "The supernet was trained on the train images.")
        )
        yield ""
    if card.pretrained:
        yield "## Pretrained weights"
        yield ""
        yield "The search began with these weights: their licence holds for what was made of them."
        yield ""
        told = {"license": "not told by the pretrained network: look it up before you pass this one on", **card.pretrained}
        yield from _table([(name.replace("license", "licence"), value) for name, value in told.items()])
    if card.classes:
        yield f"{len(card.classes)} classes, in the order of the logits: {shortened(card.classes)}"
        yield ""
    if knows_names(card):
        yield from _names_of_pictures(stem, card)
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


def _weights(card: ModelCard) -> str:
    """Where the network has its weights from, in words."""
    done = card.training
    if done is None:
        return "has the weights that it inherits from the supernet; it was not trained further"
    epochs = f"{done.epochs} epoch{'s' * (done.epochs != 1)}"
    words = {
        "fine-tuned": f"was fine-tuned for {epochs}, beginning with {done.began}",
        "trained from scratch": f"was trained alone for {epochs}, beginning with {done.began}",
        "transferred": f"was trained on other data for {epochs}, beginning with {done.began}",
    }[done.how]
    words += f": batches of {done.batch_size}, learning rate up to {done.lr:.2g}"
    words += f", taught by {done.taught} beside the labels" if done.taught else ", taught by the labels alone"
    if done.earlier_test is not None and done.test_gain is not None:
        gain = f"{card.scale.difference(done.test_gain.value, sign='+')} ± {card.scale.difference(done.test_gain.half)}"
        words += (
            f". With the weights that it had before its {card.score_name} is {card.scale.text(done.earlier_test, unit='%')} "
            f"on the test split: this training changed it by {gain}{card.scale.points} (95 %, in pairs of items)"
        )
    return words


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


def facts(card: ModelCard) -> list[tuple[str, str]]:
    """Scores with the images they are means over, sizes and latency: names and values as people read them."""
    rows: list[tuple[str, str]] = []
    for split, score, items in (("search", card.score, card.score_images), ("test", card.test_score, card.test_images)):
        name = f"{card.score_name}, {split} split"
        if score is not None:
            right = f"{round(score * items):,} of " if card.scale.is_share and items else ""
            counted = f" ({right}{items:,} images)" if items else ""
            rows.append((name, f"{card.scale.text(score, unit='%')}{counted}"))
        elif items is not None:
            rows.append((name, "not scored"))
    if card.test_score is not None:
        from raysearch.report.intervals import score_words  # pages and charts come with it, which a card that is read needs not

        # Of the search split there is none: the network was chosen by its score there.
        if interval := score_words(card.test_score, card.test_images, card.scale):
            rows.append((f"{card.score_name}, test split, 95 % interval", f"{interval} %"))
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


def knows_names(card: ModelCard) -> bool:
    """Whether the network makes names of pictures: it takes images, and its outputs are classes."""
    return _of_images(card.preprocessing) and bool(card.classes)


def _names_of_pictures(stem: str, card: ModelCard) -> Iterator[str]:
    yield "## From a picture to a name"
    yield ""
    yield "In the folder of this file, with raysearch installed:"
    yield ""
    yield "```"
    yield f"raysearch predict {stem}.json photo.jpg folder/ 'new/*.png'"
    yield "```"
    yield ""
    yield from _code(_CLASSIFIER.replace("STEM", stem))
    grey = card.preprocessing is not None and card.preprocessing["in_chans"] == 1
    colours = (
        "Colours become grey." if grey else "Pixels given as an array are RGB; those of OpenCV are BGR and must be turned."
    )
    if card.programs_take == "pixels":
        programs = "The programs below do the same to decoded pixels of any size."
    else:
        programs = "Programs that do the same without raysearch are written by `raysearch export FOLDER --uint8`."
    yield (
        "Both prepare a picture as those of the test split were prepared, and need no Ray: it is turned as its EXIF "
        f"orientation says, put over white where it is transparent, and brought to 8 bits. {colours} {programs}"
    )
    yield ""


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
        f"{size} x {size} cut out of the centre; then `(pixel / 255 - mean) / std` with mean {shortened(how['mean'])} and "
        f"std {shortened(how['std'])}."
        + (f" In grey pictures of more than 8 bits {white:.15g} is white." if (white := how.get("white")) else "")
    )
    yield ""


def shortened(items: Sequence[Any]) -> str:
    """The first twenty of a list, in words."""
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
    pixels = card.programs_take == "pixels"
    title, code = {
        "safetensors": ("With raysearch", _RAYSEARCH),
        "timm": ("With timm (raysearch installed)", _TIMM if stem == "model" else _TIMM_CONFIG),
        "torch-export": ("With PyTorch alone", _TORCH_EXPORT_PIXELS if pixels else _TORCH_EXPORT),
        "onnx": ("With onnxruntime alone", _ONNX_PIXELS if pixels else _ONNX),
    }[form]
    how = card.preprocessing
    if how is None or _of_images(how):
        how = how or {"in_chans": "chans", "img_size": "size"}
        shape, inputs = f"{how['in_chans']}, {how['img_size']}, {how['img_size']}", "images"
    else:
        shape, inputs = "...", "inputs"
    yield f"{title}, in the folder of this file:"
    yield ""
    grey = how.get("in_chans") == 1
    yield from _code(
        code.strip()
        .replace("STEM", stem)
        .replace("INPUTS", inputs)
        .replace("SHAPE", shape)
        .replace("NAME", family.timm.architecture if family.timm else "")
        .replace("MODE", "L" if grey else "RGB")
        .replace("WHITE", f"{white:.15g}" if (white := how.get("white")) else '1 if picture.mode == "F" else 65535')
        .replace("ANY_SIZE", f"height, width, {how.get('in_chans')}")
        .replace("AS_BATCH", "[None, :, :, None]" if grey else "[None]")
    )


def _code(program: str) -> Iterator[str]:
    yield "```python"
    yield program.strip()
    yield "```"
    yield ""


_CLASSIFIER = """
from raysearch.export import load_classifier

classify = load_classifier("STEM.json")
for guess in classify("photo.jpg", top=3):  # or bytes, an open file, a PIL image, or uint8 pixels
    print(guess.name, guess.probability)
"""

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

_PICTURE = """
def pixels_of(path):  # a picture file as uint8 (1, ANY_SIZE): upright, over white
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(Image.open(path))
    if picture.mode[0] in "IF":  # more than 8 bits; what a TIFF itself says of its white is not read here
        white = WHITE
        picture = Image.fromarray(np.rint(np.clip(np.asarray(picture, float) / white, 0, 1) * 255).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.array(picture.convert("MODE"))AS_BATCH
"""

_TORCH_EXPORT_PIXELS = f"""
import json

import numpy as np
import torch

extra = {{"labels.json": ""}}
network = torch.export.load("STEM.pt2", extra_files=extra).module()
labels = json.loads(extra["labels.json"])


def probabilities(pixels):  # uint8 (batch, ANY_SIZE), MODE, of any size -> (batch, classes)
    with torch.inference_mode():
        return network(torch.from_numpy(pixels)).numpy()

{_PICTURE}"""

_ONNX_PIXELS = f"""
import json

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("STEM.onnx", providers=["CPUExecutionProvider"])
labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])


def probabilities(pixels):  # uint8 (batch, ANY_SIZE), MODE, of any size -> (batch, classes)
    return session.run(["probabilities"], {{"images": pixels}})[0]

{_PICTURE}"""
