"""Tables that list images: CSV, TSV or Parquet with a path and a class per row, and the part where the table says it."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from typing import Any

from raysearch.errors import UserError
from raysearch.store.names import shown
from raysearch.tasks.images.config import DataConfig
from raysearch.tasks.images.folders import PARTS, part_named
from raysearch.tasks.images.listing import Found, Listing, numbered
from raysearch.tasks.images.places import Place, open_binary, place_of, read_text
from raysearch.tasks.images.remote import is_address
from raysearch.tasks.images.stores import Files

IMAGE = ("path", "file", "filename", "file_name", "image", "img")
"""Columns that are taken for the images, in this order, where no other is named."""
LABEL = ("label", "labels", "class", "category", "target")
SPLIT = ("split",)

Rows = dict[str, list[str]]
"""A table by column; what is absent in a row is an empty text."""


def find_listed(place: Place, config: DataConfig) -> Found:
    """The images that a table lists; relative paths are relative to it.

    Raises UserError that names the table, and the row where it is one, for columns that are not there, for rows without a path
    or a class, and for parts of other names.
    """
    source = shown(str(place))
    columns, rows = (_parquet if place.name.lower().endswith(".parquet") else _csv)(place)
    image, label, split = chosen_columns(list(columns), config, source=source)
    paths, labels = columns[image], columns[label]
    if not paths:
        raise UserError(f"{source} has no rows: list images in it, a path and a class each")
    for column, values in ((image, paths), (label, labels)):
        if "" in values:
            row = rows[values.index("")]
            raise UserError(f"{source}, row {row} has nothing in the column {column!r}: complete or remove it")
    classes, numbers = numbered(labels, source=source)
    store, names = _stored(paths, place, source)
    parts: dict[str, Listing] = {}
    for index, part in enumerate(_parts(columns[split], rows, source, split) if split else ["train"] * len(paths)):
        if part not in parts:
            of_part = source if split is None else f"{source}, {part} images"
            parts[part] = Listing(store, source=of_part, rows=[])
        listing = parts[part]
        listing.names.append(names[index])
        listing.labels.append(numbers[index])
        assert listing.rows is not None
        listing.rows.append(rows[index])
    if "train" not in parts:
        raise UserError(f"{source} has no train images in the column {split!r}: name some so")
    return Found(classes, {part: parts[part] for part in PARTS if part in parts})


def chosen_columns(present: Sequence[str], config: DataConfig, *, source: str) -> tuple[str, str, str | None]:
    """Which columns of a table have the image, the class and the part; None where no column says the part.

    Raises UserError that lists the columns there are.
    """

    def column(asked: str | None, usual: Sequence[str], flag: str) -> str | None:
        if asked is not None and asked not in present:
            raise UserError(
                f"{source} has no column {shown(asked)!r} (--dataset.{flag}): its columns are {', '.join(map(shown, present))}"
            )
        known = {name.lower(): name for name in reversed(present)}
        return asked or next((known[name] for name in usual if name in known), None)

    image = column(config.image_column, IMAGE, "image-column")
    label = column(config.label_column, LABEL, "label-column")
    for found, usual, flag in ((image, IMAGE, "image-column"), (label, LABEL, "label-column")):
        if found is None:
            raise UserError(
                f"{source} has none of the columns {', '.join(usual)}, but {', '.join(map(shown, present)) or 'none at all'}: "
                f"name one with --dataset.{flag}"
            )
    assert image is not None
    assert label is not None
    return image, label, column(config.split_column, SPLIT, "split-column")


def _parts(values: Sequence[str], rows: Sequence[int], source: str, column: str) -> list[str]:
    known = {value: part_named(value.strip()) for value in set(values)}
    for index, value in enumerate(values):
        if known[value] is None:
            raise UserError(
                f"{source}, row {rows[index]} has {shown(value)!r} in the column {column!r}: parts are "
                f"{', '.join(name for names in PARTS.values() for name in names)}"
            )
    return [part for value in values if (part := known[value]) is not None]


def _stored(paths: Sequence[str], place: Place, source: str) -> tuple[Files, list[bytes]]:
    """Where the images are, and their names there."""
    addresses = [is_address(path) for path in paths]
    if not any(addresses):
        return Files(place.parent), [os.fsencode(path) for path in paths]
    buckets = {"/".join(path.split("/", 3)[:3]) for path in paths}
    if not all(addresses) or len(buckets) > 1:
        raise UserError(f"{source} lists images of several places ({', '.join(sorted(buckets)[:2])}): make a table for each")
    folder = os.path.commonpath([path.rpartition("/")[0].replace("://", "/") for path in paths]).replace("/", "://", 1)
    return Files(place_of(folder)), [os.fsencode(path.removeprefix(f"{folder}/")) for path in paths]


# --- reading ----------------------------------------------------------------------------------------------------------


def _csv(place: Place) -> tuple[Rows, Sequence[int]]:
    """The columns of a table, and the number of each row, as programs that show tables count: below the names comes row 2."""
    source, text = shown(str(place)), read_text(place)
    header = text.partition("\n")[0]
    separator = "\t" if place.name.lower().endswith(".tsv") else max(",;\t", key=header.count)
    kept: list[list[str]] = []
    numbers: list[int] = []
    try:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        columns = [name.strip() for name in next(lines, [])]
        for number, row in enumerate(lines, 2):
            if row and len(row) != len(columns):
                raise UserError(
                    f"{source}, row {number} has {len(row)} values for {len(columns)} columns: mend it; a value with "
                    f"{'a tab' if separator == chr(9) else repr(separator)} in it stands in quotation marks"
                )
            if row:  # an empty line stands at the end, mostly
                kept.append([value.strip() for value in row])
                numbers.append(number)
    except csv.Error as error:
        raise UserError(f"{source} is no table ({error}): save it as CSV in UTF-8") from None
    return {name: [row[index] for row in kept] for index, name in enumerate(columns)}, numbers


def _parquet(place: Place) -> tuple[Rows, Sequence[int]]:
    """As :func:`_csv`; rows are counted from 1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_binary(place) as file:
            table: Any = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{shown(str(place))} cannot be read as Parquet ({error}): write it anew") from None
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    texts = {name: ["" if value is None else str(value) for value in values] for name, values in columns.items()}
    return texts, range(1, table.num_rows + 1)
