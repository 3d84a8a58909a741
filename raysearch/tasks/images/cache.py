"""Decoded evaluation images in one Arrow file, which every evaluator of a machine maps into memory.

The file is Arrow IPC with one record batch: ``image`` (fixed-shape uint8 tensor, channels first) and ``label`` (int64, or
float32 where numbers are predicted). Being
mapped, it costs memory once per machine, whatever the number of evaluators.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from raysearch.errors import UserError
from raysearch.store.files import make_folder, written_whole
from raysearch.tasks.images.config import DataConfig
from raysearch.tasks.images.images import ArrayImages, EncodedImages, ImageSet, Labels
from raysearch.tasks.images.reading import READER, to_array
from raysearch.tasks.images.stores import threads_for
from raysearch.tasks.images.transforms import evaluation_crop

_KEY = b"raysearch.cache"
_BLOCK = 64
"""Images decoded and written at a time: what bounds the memory of writing."""


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """What a cache file holds."""

    path: Path
    digest: str
    """SHA-256 over pixels and labels, hexadecimal."""
    source: str
    """Identifies the images and the way they were resized: equal sources give equal files."""
    shape: tuple[int, int, int, int]
    """Images, channels, height, width."""


@dataclass(frozen=True, slots=True)
class CachedImages:
    """Images and labels as read-only views of the mapped file; nothing is copied."""

    images: UInt8[np.ndarray, "n chans height width"]
    labels: Labels
    info: CacheInfo


def write_cache(images: ImageSet, path: Path, config: DataConfig) -> CacheInfo:
    """Decode ``images`` once for evaluation and write them to ``path``, whole or not at all.

    Nothing is decoded when ``path`` already holds exactly these images. Memory stays at a few blocks of images, whatever their
    number; the folder needs room for twice the pixels while the file is written.

    Raises:
        UserError: for an unreadable image, naming it.

    """
    shape = (len(images), config.in_chans, config.img_size, config.img_size)
    source = _source(images, config)
    if path.exists():
        try:
            present = open_cache(path).info
        except ValueError:
            pass  # a damaged or foreign file is written anew
        else:
            if present.source == source:
                return present

    make_folder(path.parent)
    content = hashlib.sha256()
    # First the bare pixels: the Arrow file's schema carries their digest and is written before them.
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        raw = Path(folder) / "pixels"
        with raw.open("wb") as file:
            for block in evaluation_blocks(images, config):
                content.update(block.data)
                file.write(block.data)
        labels = np.ascontiguousarray(images.labels)
        content.update(labels.data)
        info = CacheInfo(path=path, digest=content.hexdigest(), source=source, shape=shape)
        with written_whole(path) as temporary:
            _write_arrow(temporary, raw, labels, info)
    return info


def open_cache(path: Path) -> CachedImages:
    """Map a cache file and compare its content with its digest.

    Raises UserError that names the file when it is missing, damaged or no such file.
    """
    try:
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as reader:
            stored = json.loads((reader.schema.metadata or {})[_KEY])
            batch = reader.get_batch(0)
            pixels = _view(cast(pa.ExtensionArray, batch.column("image")).storage.values, np.uint8)
            images = pixels.reshape(stored["shape"])
            column = batch.column("label")
            labels = _view(column, np.int64 if pa.types.is_integer(column.type) else np.float32)
            info = CacheInfo(path=path, digest=stored["digest"], source=stored["source"], shape=tuple(stored["shape"]))
    except FileNotFoundError:
        raise UserError(f"no image cache {path}") from None
    # pyarrow's own errors are ValueError, KeyError, TypeError or OSError; a foreign Arrow file lacks the key or the columns.
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a whole image cache ({error}): remove it, it will be written anew") from None
    content = hashlib.sha256(images.data)
    content.update(labels.data)
    if content.hexdigest() != info.digest or len(labels) != len(images):
        raise UserError(f"{path} is damaged, its content does not match its digest: remove it, it will be written anew")
    return CachedImages(images=images, labels=labels, info=info)


def _view(array: pa.Array, dtype: type[np.generic]) -> np.ndarray:
    """The values of an Arrow array without copying them."""
    return np.frombuffer(array.buffers()[1], dtype=dtype, count=len(array), offset=array.offset * np.dtype(dtype).itemsize)


def evaluation_blocks(images: ImageSet, config: DataConfig) -> Iterator[UInt8[np.ndarray, "block chans height width"]]:
    """The images as the network sees them for evaluation, a few at a time, in order."""
    starts = range(0, len(images), _BLOCK)
    if isinstance(images, ArrayImages) and images.fits(config):
        for start in starts:
            yield np.ascontiguousarray(images.pixels[start : start + _BLOCK])
        return
    crop = evaluation_crop(config)
    threads = threads_for(images.store) if isinstance(images, EncodedImages) else os.cpu_count()
    with ThreadPoolExecutor(threads) as pool:
        for start in starts:
            indices = range(start, min(start + _BLOCK, len(images)))
            yield np.stack(list(pool.map(lambda index: to_array(crop(images.decode(index))), indices)))


def _source(images: ImageSet, config: DataConfig) -> str:
    parts = [READER, images.digest(), config.white, config.img_size, config.in_chans, config.interpolation, config.crop_pct]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _write_arrow(path: Path, raw: Path, labels: Labels, info: CacheInfo) -> None:
    """The cache file from a file of bare pixels, which is mapped and passes through no memory of this process."""
    shape = info.shape[1:]
    pixels = pa.Array.from_buffers(pa.uint8(), math.prod(info.shape), [None, pa.py_buffer(np.memmap(raw, np.uint8, mode="r"))])
    storage = pa.FixedSizeListArray.from_arrays(pixels, math.prod(shape))
    images = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.uint8(), shape), storage)
    stored = {"digest": info.digest, "source": info.source, "shape": info.shape}
    schema = pa.schema(
        [("image", images.type), ("label", pa.from_numpy_dtype(labels.dtype))], metadata={_KEY: json.dumps(stored)}
    )
    # Without the option, Arrow refuses more than 2^31 values: 14,000 colour images of 224 pixels.
    options = pa.ipc.IpcWriteOptions(allow_64bit=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema, options=options) as writer:
        writer.write_batch(pa.record_batch([images, pa.array(labels)], schema=schema))
