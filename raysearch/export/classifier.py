"""From a picture to names: a network with the product's own way of reading and preparing pictures around it."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import ExifTags, Image
from torch import Tensor, nn

from raysearch.errors import UserError
from raysearch.export.programs import preprocessing_of_images
from raysearch.export.subnet_file import load_subnet, read_card
from raysearch.spaces import Family
from raysearch.store.model_card import ModelCard
from raysearch.tasks.images.config import DataConfig
from raysearch.tasks.images.reading import file_of
from raysearch.tasks.images.transforms import Normalisation, evaluation_array


@runtime_checkable
class OpenFile(Protocol):
    """What has the bytes of a picture to read: a file opened as binary, of whatever kind."""

    def read(self) -> bytes:
        """All that is left of it."""
        ...


Picture = str | os.PathLike[str] | bytes | OpenFile | Image.Image | np.ndarray
"""A path, the bytes of a file, an open file, a PIL image, or pixels: uint8 (height, width) or (height, width, chans), RGB."""

_BATCH = 32
"""Pictures that are computed at a time."""


@dataclass(frozen=True, slots=True)
class Guess:
    """One class that a picture may show."""

    name: str
    probability: float


class ImageClassifier:
    """Pictures to names with probabilities. Everything is done to a picture that was done to those of the test split.

    Args:
        network: maps prepared images to logits.
        card: its classes and how images are prepared.

    Raises:
        UserError: the network takes no images, or its outputs are no classes.

    """

    def __init__(self, network: nn.Module, card: ModelCard) -> None:
        how = preprocessing_of_images(card, remedy="load_subnet gives its outputs as they are")
        names = ("img_size", "in_chans", "interpolation", "crop_pct")
        settings: dict[str, Any] = {name: how[name] for name in names}
        settings |= {"mean": tuple(how["mean"]), "std": tuple(how["std"]), "white": how.get("white")}
        self._config = DataConfig(dataset="images", **settings)
        self._normalise = Normalisation(self._config.mean, self._config.std)
        self.network, self.card = network.eval(), card
        self.classes = tuple(card.classes or ())

    def __call__(self, picture: Picture, *, top: int = 3) -> list[Guess]:
        """The ``top`` most probable classes of one picture, best first. Raises UserError that names an unreadable one."""
        return self.rank(self.probabilities(self.prepare(picture)[None]), top=top)[0]

    def many(self, pictures: Iterable[Picture], *, top: int = 3) -> Iterator[list[Guess]]:
        """The same of each picture, a few at a time; any number of them takes the memory of a few."""
        left = iter(pictures)
        while block := [self.prepare(picture) for picture in islice(left, _BATCH)]:
            yield from self.rank(self.probabilities(np.stack(block)), top=top)

    def prepare(self, picture: Picture) -> UInt8[np.ndarray, "chans size size"]:
        """A picture as the network sees it, before it is normalised. Raises UserError that names an unreadable one."""
        return evaluation_array(_source(picture), self._config)

    @torch.inference_mode()
    def probabilities(self, pixels: UInt8[np.ndarray, "batch chans size size"]) -> Float32[Tensor, "batch classes"]:
        """Of prepared pictures; each row sums to 1."""
        return self.network(self._normalise(torch.tensor(pixels))).float().softmax(dim=1)

    def rank(self, probabilities: Float32[Tensor, "batch classes"], *, top: int) -> list[list[Guess]]:
        """The ``top`` best of each row by name. Raises UserError for less than one."""
        if top < 1:
            raise UserError(f"--top is {top}, must be at least 1")
        values, indices = probabilities.topk(min(top, len(self.classes)))
        rows: Sequence[Any] = list(zip(values.tolist(), indices.tolist(), strict=True))
        return [[Guess(self.classes[i], p) for p, i in zip(*row, strict=True)] for row in rows]


def load_classifier(path: str | Path, *, family: Family[Any, Any] | str | None = None) -> ImageClassifier:
    """The network of ``champion.json``, or of ``model.json`` of an export, for pictures as they are.

    Args:
        path: the JSON file; its weights stand beside it.
        family: needed for one of your own, as :func:`~raysearch.export.load_subnet` takes it.

    Raises:
        UserError: a file is missing, damaged or another's, the family is not known, or the network knows no classes.

    """
    return ImageClassifier(load_subnet(Path(path), family=family), read_card(Path(path)))


def _source(picture: Picture) -> Path | bytes:
    """What the reader of files takes. Raises UserError for what is no picture in any form."""
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, str | os.PathLike):
        return Path(picture)
    if isinstance(picture, np.ndarray):
        return file_of(picture)
    if isinstance(picture, Image.Image):
        return _file_of_image(picture)
    is_open = isinstance(picture, OpenFile)  # pyright: ignore[reportUnnecessaryIsInstance]  # what is declared is not all that comes
    if is_open and not hasattr(picture, "encoding"):  # which files opened as text have
        return picture.read()
    raise UserError(
        f"{type(picture).__name__}: give a picture as a path, the bytes of a file, a file opened as binary, a PIL image, or "
        "uint8 pixels"
    )


def _file_of_image(image: Image.Image) -> bytes:
    """A PIL image as a file with its transparency and its orientation.

    Raises UserError for modes that PNG does not hold, for more than 8 bits, whose white only its own file may know, and where
    that file cannot be read.
    """
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        raise UserError(f"a PIL image of mode {image.mode}: give the path of its file, or an image of mode L or RGB")
    file, kept, orientation = io.BytesIO(), Image.Exif(), ExifTags.Base.Orientation
    try:
        kept[orientation] = image.getexif().get(orientation, 1)
        image.save(file, "PNG", compress_level=0, exif=kept)
    except (OSError, ValueError, SyntaxError, LookupError, TypeError, struct.error) as error:  # it may be read only now
        raise UserError(f"the PIL image is not readable ({error}): give the path of its file") from None
    return file.getvalue()
