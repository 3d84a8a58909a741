"""The same pictures kept in every way that ``--data`` takes: each function writes a folder of classes anew, in its way."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Kept = Callable[[Path, Path], Path]
"""From a folder of class folders, or of parts with such, and an empty folder to what ``--data`` then is."""


def pictures(source: Path) -> Iterator[tuple[Path, str, str]]:
    """File, class and part of each picture, in the order of a folder's listing."""
    for path in sorted(source.rglob("*.*")):
        part = path.parent.parent.name if path.parent.parent != source else ""
        yield path, path.parent.name, part


def _rows(source: Path, folder: Path) -> list[dict[str, str]]:
    """With paths relative to ``folder``, where the pictures are copied, by number: no folder tells a class."""
    rows: list[dict[str, str]] = []
    for number, (path, label, part) in enumerate(pictures(source)):
        copy = folder / "photos" / f"{number:04}{path.suffix}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
        rows.append({"path": str(copy.relative_to(folder)), "label": label, **({"split": part} if part else {})})
    return rows


def as_csv(source: Path, folder: Path) -> Path:
    rows = _rows(source, folder)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "labels.csv"


def as_parquet_of_paths(source: Path, folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(_rows(source, folder)), folder / "labels.parquet")
    return folder / "labels.parquet"


KEPT: dict[str, Kept] = {
    "csv": as_csv,
    "parquet of paths": as_parquet_of_paths,
}
