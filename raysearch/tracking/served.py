"""What a registered classifier of pictures runs wherever it is loaded, where raysearch is not installed too.

This file and those of raysearch that it imports, of which it must need few, are copied beside the program by
:mod:`~raysearch.tracking.copies`; mlflow, torch and Pillow are enough to run them. The program (``model.pt2``) takes pixels of
any size and gives probabilities; here pictures of any form become pixels, and probabilities become names.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from PIL import Image

from raysearch.errors import UserError
from raysearch.tasks.images.reading import Mode, file_of, read_image

PROGRAM = "model.pt2"
COLUMN = "image"
"""Of a table, the column that holds pictures; one of another name will do where it is the only one."""
TOP = 3
"""Names given for each picture where ``top_k`` says no other number."""
_TAKES = (
    "give paths, the bytes of files, base64 strings, or uint8 pixels of shape (height, width, chans) or "
    "(pictures, height, width, chans), chans 1, 3 (RGB) or 4"
)
_BATCH = 32
"""Pictures of one size that are computed at a time."""


class PictureClassifier:
    """Pictures to names with probabilities, as MLflow calls it."""

    def __init__(self, folder: Path) -> None:
        extra = {"labels.json": "", "raysearch.json": ""}
        self._program = torch.export.load(folder / PROGRAM, extra_files=extra).module()
        self._classes: list[str] = json.loads(extra["labels.json"])
        how = json.loads(extra["raysearch.json"])["preprocessing"]
        self._mode: Mode = "L" if how["in_chans"] == 1 else "RGB"
        self._white: float | None = how.get("white")

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """One row for each picture: ``name``, ``probability``, and of the ``top_k`` best ``names`` and ``probabilities``.

        ``model_input`` is one picture, a list of them, or a table with a column of them. Raises MlflowException, which a server
        answers as 400, for what is no picture: nothing is guessed, least of all from normalised floats.
        """
        wanted = (params or {}).get("top_k")
        top = TOP if wanted is None else int(wanted)  # JSON's null comes as None
        if top < 1:
            _refuse(f"top_k is {top}, must be at least 1")
        rows: list[dict[str, Any]] = []
        for pixels in self._pixels(model_input):
            for start in range(0, len(pixels), _BATCH):
                with torch.no_grad():
                    probabilities: torch.Tensor = self._program(torch.from_numpy(pixels[start : start + _BATCH]))
                values, indices = probabilities.topk(min(top, len(self._classes)))
                for found, chosen in zip(values.tolist(), indices.tolist(), strict=True):
                    names = [self._classes[index] for index in chosen]
                    rows.append({"name": names[0], "probability": found[0], "names": names, "probabilities": found})
        return pd.DataFrame(rows, columns=["name", "probability", "names", "probabilities"])

    def _pixels(self, given: Any) -> Iterator[np.ndarray]:
        """Batches (pictures, height, width, chans) of equal sizes, in the order of the pictures."""
        for item in _items(given):
            if isinstance(item, np.ndarray):
                yield np.stack([self._read(file_of(one)) for one in item])
            else:
                yield self._read(item)[None]

    def _read(self, item: str | bytes | os.PathLike[str]) -> np.ndarray:
        """Pixels (height, width, chans) of a file as a viewer shows it: of its bytes, those in a string, or its path."""
        content = _decoded(item) if isinstance(item, str) else item if isinstance(item, bytes) else None
        try:
            source = Path(os.fsdecode(item)) if content is None else content
            pixels = np.array(read_image(source, self._mode, white=self._white))
        except UserError as error:
            _refuse(f"{error if len(str(error)) < 300 else str(error)[:50] + '...'}; {_TAKES}")
        return pixels[..., None] if pixels.ndim == 2 else pixels


def _load_pyfunc(path: str) -> PictureClassifier:  # pyright: ignore[reportUnusedFunction]
    """What MLflow calls when the model is loaded."""
    return PictureClassifier(Path(path))


# --- what may be given ------------------------------------------------------------------------------------------------


def _items(given: Any) -> Iterator[Any]:
    """Each picture, as string, bytes, path, or a batch of pixels (pictures, height, width, chans)."""
    if isinstance(given, pd.DataFrame | Mapping):
        columns = list(given.keys())
        if COLUMN not in columns and len(columns) != 1:
            _refuse(
                f"a table with the columns {', '.join(map(str, columns[:5]))}: pictures stand in a column {COLUMN!r}; {_TAKES}"
            )
        column = given[COLUMN if COLUMN in columns else columns[0]]
        if isinstance(column, pd.DataFrame):
            _refuse(f"a table with several columns {column.columns[0]!r}: {_TAKES}")
        yield from _items(column)
    elif isinstance(given, pd.Series):
        yield from _items(given.tolist())
    elif isinstance(given, str | bytes | os.PathLike):
        yield given
    elif isinstance(given, list | tuple):
        if any(isinstance(item, str | bytes | os.PathLike | np.ndarray | Mapping | Image.Image) for item in given):
            for item in given:
                yield from _items(item)
        elif given:
            yield from _items(_as_array(given))
    elif isinstance(given, np.ndarray):
        if given.dtype.kind in "OU":
            yield from _items(given.ravel().tolist())
        elif given.dtype.kind == "S":  # numpy drops zeros at the end, which are part of a file
            yield from (item.ljust(given.dtype.itemsize, b"\0") for item in given.ravel().tolist())
        else:
            yield _checked(given)
    else:
        _refuse(f"{type(given).__name__}: {_TAKES}")


def _as_array(given: Sequence[Any]) -> np.ndarray:
    """Numbers, or texts, in lists of lists."""
    try:
        array = np.asarray(given)
    except ValueError:
        _refuse(f"a list of lists of unequal lengths: {_TAKES}")
    if array.dtype.kind == "O":
        _refuse(f"a list of {type(given[0]).__name__}: {_TAKES}")
    return array


def _checked(pixels: np.ndarray) -> np.ndarray:
    """Pixels as a batch of pictures. Refuses what may be something else: flat lists, channels first, prepared floats."""
    shown = f"numbers of shape {pixels.shape} ({pixels.dtype})"
    if pixels.dtype.kind not in "iu" or (pixels.size and not 0 <= pixels.min() <= pixels.max() <= 255):
        _refuse(f"{shown} are no pixels from 0 to 255 in whole numbers; {_TAKES}. Normalised images are not taken")
    if pixels.ndim not in (3, 4) or pixels.shape[-1] not in (1, 3, 4) or not pixels.size:
        _refuse(f"{shown}: {_TAKES}")
    return pixels.astype(np.uint8).reshape(-1, *pixels.shape[-3:])


def _decoded(text: str) -> bytes | None:
    """The file that a base64 string holds, as in JSON; None for a string that holds none, as a path."""
    content = text.partition(",")[2] if text.startswith("data:") else text
    try:
        data = base64.b64decode("".join(content.split()), validate=True)
        with Image.open(io.BytesIO(data)):
            return data
    except (binascii.Error, ValueError, OSError, SyntaxError, Image.DecompressionBombError):
        return None


def _refuse(message: str) -> NoReturn:
    raise MlflowException.invalid_parameter_value(message)
