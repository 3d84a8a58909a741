"""Parquet and Arrow files that hold encoded pictures, as the Hugging Face hub has them: ``image`` and ``label`` in each row.

An image is a binary value, or a struct with one called ``bytes``; a class is a text, or a number whose name stands in the
schema's metadata. Values in an Arrow file of this machine are read from where they stand. Those of Parquet have no place of
their own: they are unpacked, a few rows at a time, into one file of the cache.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysearch.errors import UserError
from raysearch.store.names import shown, utf8_path
from raysearch.tasks.images.config import DataConfig
from raysearch.tasks.images.manifests import IMAGE, chosen_columns
from raysearch.tasks.images.places import Place, open_binary, state_of
from raysearch.tasks.images.tars import Slice

_ROWS = 16
"""Rows that are in memory at a time, beside a page of the file."""
_BUFFER = 4 * 2**20
"""Bytes of a column that are read at a time."""


def is_table_of_images(place: Place) -> bool:
    """Whether a Parquet file has a column of encoded images. Raises UserError for one that cannot be read."""
    with ExitStack() as stack:
        return bool(_encoded(_parquet(place, stack).schema_arrow))


def class_names(place: Place, config: DataConfig) -> tuple[str, ...]:
    """Names of the numbers in the column of classes, as the schema's metadata have them; none where they do not."""
    with ExitStack() as stack:
        schema = _opened(place, stack)[0]
        _, label, _ = _columns(schema, config, place)
        try:
            features: Any = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
            return tuple(map(str, features[label]["names"]))
        except (KeyError, ValueError, TypeError):
            return ()


def unpacked_bytes(place: Place) -> int:
    """About how much room the pictures of a file take when they are unpacked."""
    if not place.name.lower().endswith(".parquet"):
        return state_of(place)[0]
    with ExitStack() as stack:
        metadata: Any = _parquet(place, stack).metadata
        groups = (metadata.row_group(index) for index in range(metadata.num_row_groups))
        return sum(group.column(i).total_uncompressed_size for group in groups for i in range(group.num_columns))


def in_place(place: Place) -> bool:
    """Whether the pictures of a file can be read from where they stand: Arrow, not compressed, on this machine."""
    if not isinstance(place, Path) or place.name.lower().endswith(".parquet"):
        return False
    with ExitStack() as stack:
        _, batches, mapped = _opened(place, stack)
        first = next(iter(batches), None)
        return first is None or all(
            _offset_in(array, mapped) is not None for array in _binaries(first) if array.buffers()[2] is not None
        )


def table_slices(place: Place, config: DataConfig, *, skipped: Counter[str], to: BinaryIO | None) -> Iterator[Slice]:
    """The pictures of a file by row, from 0. Counts in ``skipped`` rows without a picture or without a class.

    ``to``: pictures are written there, and offsets are in it; None: they are read from where they stand (:func:`in_place`).
    Raises UserError that names a file which cannot be read, and columns that are not there.
    """
    with ExitStack() as stack:
        schema, batches, mapped = _opened(place, stack)
        image, label, split = _columns(schema, config, place)
        row = 0
        try:
            for batch in batches:
                values = _encoded_values(batch.column(image))
                labels = _labels(batch.column(label), place, label)
                parts = [""] * len(labels) if split is None else [str(part or "") for part in batch.column(split).to_pylist()]
                offset = 0 if to is None else to.tell()
                start = 0 if to is not None else _offset_in(values, mapped)
                ends = _ends(values)
                for index, (text, part) in enumerate(zip(labels, parts, strict=True)):
                    if not values[index].is_valid or ends[index] == ends[index + 1]:
                        skipped["rows without an encoded picture"] += 1
                    elif text is None:
                        skipped["rows without a class"] += 1
                    elif to is not None:
                        size = to.write(values[index].as_buffer())
                        yield Slice(str(row + index), offset, size, text, part)
                        offset += size
                    else:
                        assert start is not None  # in_place was asked
                        begin, end = int(ends[index]), int(ends[index + 1])
                        yield Slice(str(row + index), start + begin, end - begin, text, part)
                row += len(labels)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{shown(str(place))} is damaged ({_brief(error)}): fetch it again") from None


# --- files ------------------------------------------------------------------------------------------------------------


def _opened(place: Place, stack: ExitStack) -> tuple[Any, Any, Any]:
    """Schema and record batches of a file, and the whole of it where it is mapped into memory; closed with ``stack``."""
    if place.name.lower().endswith(".parquet"):
        file = _parquet(place, stack)
        return file.schema_arrow, file.iter_batches(batch_size=_ROWS), None
    try:
        mapped = None
        if isinstance(place, Path):
            source: Any = stack.enter_context(pa.memory_map(str(stack.enter_context(utf8_path(place)))))
            mapped = source.read_buffer()
            source.seek(0)
        else:
            source = stack.enter_context(open_binary(place))
        try:
            reader: Any = stack.enter_context(pa.ipc.open_file(source))
            return reader.schema, (reader.get_batch(index) for index in range(reader.num_record_batches)), mapped
        except pa.ArrowInvalid:  # datasets.save_to_disk writes the other format under the same ending
            source.seek(0)
            reader = stack.enter_context(pa.ipc.open_stream(source))
            return reader.schema, reader, mapped
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{shown(str(place))} is not a whole Arrow file ({_brief(error)}): fetch it again") from None


def _parquet(place: Place, stack: ExitStack) -> Any:
    try:
        file = stack.enter_context(open_binary(place))
        # Without a buffer, a column of a row group is read at once, and there may be one group for all rows.
        return stack.enter_context(pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER))
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{shown(str(place))} is not a whole Parquet file ({_brief(error)}): fetch it again") from None


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


# --- columns ----------------------------------------------------------------------------------------------------------


def _encoded(schema: Any) -> list[str]:
    """Columns that may hold encoded pictures."""
    return [field.name for field in schema if _is_binary(field.type) or _bytes_field(field.type) is not None]


def _is_binary(kind: Any) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _bytes_field(kind: Any) -> int | None:
    if not pa.types.is_struct(kind):
        return None
    index: int = kind.get_field_index("bytes")
    return index if index >= 0 and _is_binary(kind.field(index).type) else None


def _columns(schema: Any, config: DataConfig, place: Place) -> tuple[str, str, str | None]:
    source, candidates = shown(str(place)), _encoded(schema)
    if not candidates:
        raise UserError(
            f"{source} has no column of encoded images ({', '.join(map(shown, schema.names))}): give a table of paths by its "
            "own name, as --data labels.parquet"
        )
    if config.image_column is not None and config.image_column not in candidates:
        raise UserError(
            f"{source} has no encoded images in a column {shown(config.image_column)!r} (--dataset.image-column): those with "
            f"such are {', '.join(map(shown, candidates))}"
        )
    usual = [name for name in IMAGE if name in candidates]
    image = config.image_column or next(iter(usual), candidates[0])
    others = [name for name in schema.names if name not in candidates]
    _, label, split = chosen_columns([image, *others], _with_image(config, image), source=source)
    return image, label, split


def _with_image(config: DataConfig, image: str) -> DataConfig:
    from dataclasses import replace

    return replace(config, image_column=image)


def _encoded_values(column: Any) -> Any:
    """The binary values of a column of pictures."""
    index = _bytes_field(column.type)
    return column if index is None else column.flatten()[index]


def _binaries(batch: Any) -> Sequence[Any]:
    return [_encoded_values(batch.column(name)) for name in _encoded(batch.schema)]


def _ends(values: Any) -> np.ndarray:
    """Where each value begins and ends among the bytes of all: one number more than there are values."""
    dtype = np.dtype("<i8" if pa.types.is_large_binary(values.type) else "<i4")
    if not len(values):
        return np.zeros(1, dtype)
    return np.frombuffer(values.buffers()[1], dtype, count=len(values) + 1, offset=values.offset * dtype.itemsize)


def _offset_in(values: Any, mapped: Any) -> int | None:
    """Where in a mapped file the bytes of all values stand; None where they are not in it, as compressed ones."""
    data = values.buffers()[2]
    if mapped is None or data is None:
        return None
    offset = data.address - mapped.address
    return offset if offset >= 0 and offset + data.size <= mapped.size else None


def _labels(column: Any, place: Place, name: str) -> list[str | None]:
    """Classes as texts; None where there is none, or a number below 0, as sets whose classes are kept secret have it."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_integer(kind):
        return [None if value is None or value < 0 else str(value) for value in column.to_pylist()]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind):
        return [None if value is None or value == "" else str(value) for value in column.to_pylist()]
    raise UserError(
        f"{shown(str(place))} has {kind} in its column {name!r}, where texts or whole numbers name classes: name another with "
        "--dataset.label-column"
    )
