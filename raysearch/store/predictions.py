"""What a network says of every item of the test split: the file that per-class numbers and example pictures are made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int64

from raysearch.errors import UserError
from raysearch.store.files import written_whole
from raysearch.store.names import shown

PREDICTIONS = "test-predictions.parquet"
"""File of the champion's predictions in an output folder."""

SCHEMA = pa.schema(
    [
        ("item", pa.int64()),
        ("name", pa.string()),  # of the file, where items are files
        ("label", pa.int64()),
        ("predicted", pa.int64()),
        ("confidence", pa.float32()),
        ("picture", pa.binary()),  # PNG, of a few
    ]
)
"""Columns of :data:`PREDICTIONS`, a row per item of the test split in its order; its metadata names the classes."""
_CLASSES = b"raysearch.classes"


@dataclass(frozen=True, eq=False, slots=True)
class Predictions:
    """The most likely class of each item, beside the true one."""

    labels: Int64[np.ndarray, " items"]
    """The true classes, 0-based."""
    predicted: Int64[np.ndarray, " items"]
    confidence: Float32[np.ndarray, " items"]
    """Probability of the predicted class, 0 to 1, as the network's softmax says."""
    pictures: Mapping[int, bytes] = field(default_factory=dict[int, bytes])
    """Of some items, a small picture as PNG."""
    classes: tuple[str, ...] = ()
    """Names of the classes; empty: their numbers are their names."""
    names: Sequence[str] | None = None
    """Of the items, as their files are called; None where they are no files."""

    def confident_mistakes(self, count: int) -> list[int]:
        """Items that are wrong, at most so many, the most confident first."""
        wrong = np.flatnonzero(self.labels != self.predicted)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")][:count].tolist()

    def class_name(self, index: int) -> str:
        """What a class is called."""
        return self.classes[index] if index < len(self.classes) else str(index)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write the table to ``path``, durably, whole or not at all."""
    items = range(len(predictions.labels))
    columns = [
        pa.array(items, pa.int64()),
        pa.array([None] * len(items) if predictions.names is None else list(map(shown, predictions.names)), pa.string()),
        pa.array(predictions.labels),
        pa.array(predictions.predicted),
        pa.array(predictions.confidence),
        pa.array([predictions.pictures.get(item) for item in items], pa.binary()),
    ]
    schema = SCHEMA.with_metadata({_CLASSES: json.dumps(predictions.classes)})  # ASCII, whatever the names
    with written_whole(path) as temporary:
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), temporary)


def read_predictions(path: Path) -> Predictions:
    """The table of :data:`PREDICTIONS`. Raises UserError of one line, which names the file, when it is missing or damaged."""
    if not path.exists():
        raise UserError(f"{path} is missing; restore it")
    try:
        table = pq.read_table(path)
        classes = json.loads((table.schema.metadata or {}).get(_CLASSES, b"[]"))
        label, predicted, confidence = (table[name].to_numpy() for name in ("label", "predicted", "confidence"))
        pictures = enumerate(table["picture"].to_pylist())
        names = table["name"].to_pylist()
        return Predictions(
            labels=label.astype(np.int64),
            predicted=predicted.astype(np.int64),
            confidence=confidence.astype(np.float32),
            pictures={item: picture for item, picture in pictures if picture is not None},
            classes=tuple(map(str, classes)),
            names=None if None in names else names,
        )
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or ["unreadable"])[0]
        raise UserError(f"{path} is damaged or no table of predictions: {reason}; restore it") from None
