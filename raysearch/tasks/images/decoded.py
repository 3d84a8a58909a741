"""Training images decoded once: one file of pixels per machine, which its training and loader processes map into memory.

Without it each image is decoded anew in every epoch. Both ways give the same pixels: an image is read, and its shorter side is
brought down to ``DataConfig.training_side``; only where the result is kept differs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from raysearch.store.files import written_whole
from raysearch.store.memory import free_memory_here
from raysearch.store.private import cache_folder, in_use, remove_unused
from raysearch.tasks.images.config import DataConfig
from raysearch.tasks.images.images import ArrayImages, EncodedImages, ImageSet, Labels
from raysearch.tasks.images.reading import READER, Mode, to_array
from raysearch.tasks.images.remote import Remote
from raysearch.tasks.images.stores import Store, threads_for
from raysearch.tasks.images.transforms import shrunk

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.5
"""Of the memory and of the disk that are free, decoded images may take so much."""

_BLOCK = 64
"""Images decoded and written at a time."""


def decoded_bytes(images: EncodedImages, config: DataConfig) -> int:
    """Bytes of the images as they are kept in memory, from the sizes that their files tell."""
    heights, widths = (images.records[name].astype(np.float64) for name in ("height", "width"))
    side = config.training_side
    scale = np.minimum(1.0, side / np.maximum(1, np.minimum(heights, widths))) if side else 1.0
    return math.ceil((heights * widths * scale**2).sum() * config.in_chans)


def fits_in_memory(size: int) -> bool:
    """Whether so many bytes are at most :data:`MEMORY_SHARE` of the free memory, and of the free disk of the cache folder."""
    return size <= MEMORY_SHARE * min(free_memory_here(), shutil.disk_usage(cache_folder("decoded")).free)


# --- the two ways -----------------------------------------------------------------------------------------------------


def training_images(images: ImageSet, config: DataConfig) -> ImageSet:
    """The images as training reads them: from memory where they fit, else from their files.

    The first process of a machine that asks makes the file of pixels; others wait for it. Raises
    UserError that names an unreadable image.
    """
    if not isinstance(images, EncodedImages):
        return images
    folder = cache_folder("decoded")
    parts = [READER, images.digest(), images.mode, images.white, config.training_side]
    name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    path = folder / f"{name}.pixels"
    if not path.exists() and not fits_in_memory(decoded_bytes(images, config)):
        return ShrunkImages(images, config.training_side)
    try:
        with in_use(folder / f"{name}.lock") as descriptor:
            if not path.exists():
                remove_unused(folder)
                _write(images, config, path)
    except OSError as error:  # a disk that others filled meanwhile: then from files, with the same result
        log.warning("training images are decoded anew in each epoch, as %s could not be written (%s)", path, error.strerror)
        return ShrunkImages(images, config.training_side)
    return DecodedImages(path, images.labels, images.mode, descriptor)


def _write(images: EncodedImages, config: DataConfig, path: Path) -> None:
    """Bare pixels one image after the other, and after them where each begins and how large it is."""
    smaller = ShrunkImages(images, config.training_side)
    places = np.zeros((len(images), 3), dtype="<i8")
    with written_whole(path) as temporary, temporary.open("wb") as file, ThreadPoolExecutor(threads_for(images.store)) as pool:
        for start in range(0, len(images), _BLOCK):
            block = range(start, min(start + _BLOCK, len(images)))
            for index, pixels in zip(block, pool.map(lambda i: to_array(smaller.decode(i)), block), strict=True):
                places[index] = file.tell(), *pixels.shape[1:]
                file.write(np.ascontiguousarray(np.moveaxis(pixels, 0, -1)).data)
        file.write(b"\0" * (-file.tell() % 8))
        file.write(places.data)


class ShrunkImages:
    """Images of files, brought down to a shorter side of ``side`` pixels when they are read; 0 leaves them as they are."""

    def __init__(self, images: EncodedImages, side: int) -> None:
        self._images, self._side = images, side

    @property
    def labels(self) -> Labels:
        """Of each image."""
        return self._images.labels

    @property
    def store(self) -> Store:
        """Where they are read."""
        return self._images.store

    def digest(self) -> str:
        """Of the files."""
        return self._images.digest()

    def __len__(self) -> int:
        return len(self._images)

    def decode(self, index: int) -> Image.Image:
        """One image. Raises UserError that names an unreadable file."""
        return shrunk(self._images.decode(index), self._side)

    def subset(self, indices: Sequence[int] | np.ndarray) -> Self:
        """The images at ``indices``, in that order."""
        return type(self)(self._images.subset(indices), self._side)


def reads_remotely(images: ImageSet) -> bool:
    """Whether images are fetched from an object store when they are asked for, by connections that do not survive a fork."""
    return isinstance(images, ShrunkImages) and isinstance(images.store.root, Remote)


class DecodedImages:
    """The same images from the mapped file of pixels, which costs memory once per machine.

    Args:
        path: the file.
        labels: of its images.
        mode: grey or colour.
        descriptor: says to others that the file is in use, while this object lives; None for a copy in another process.

    """

    def __init__(self, path: Path, labels: Labels, mode: Mode, descriptor: int | None) -> None:
        self.path, self.labels, self.mode = path, labels, mode
        self._descriptor = descriptor
        content = np.memmap(path, np.uint8, mode="r")
        end = len(content) - len(labels) * 24
        self._places = content[end:].view("<i8").reshape(len(labels), 3)
        self._content = content

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the file itself."""
        return type(self), (self.path, self.labels, self.mode, None)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            os.close(self._descriptor)  # pyright: ignore[reportArgumentType]
            self._descriptor = None

    def digest(self) -> str:
        """Of the file's name, which tells what it holds."""
        return self.path.stem

    def __len__(self) -> int:
        return len(self.labels)

    def decode(self, index: int) -> Image.Image:
        """One image; nothing is decoded any more."""
        start, height, width = self._places[index].tolist()
        shape = (height, width) if self.mode == "L" else (height, width, 3)
        return Image.fromarray(self._content[start : start + math.prod(shape)].reshape(shape))

    def subset(self, indices: Sequence[int] | np.ndarray) -> Self:
        """Not offered: the file holds one part."""
        raise NotImplementedError


def loader_processes(asked: int | None, images: ImageSet, config: DataConfig, *, world_size: int) -> int:
    """Processes that vary images for each of ``world_size`` training processes.

    What was asked for; else none for images that are in memory and small, and at most the cores that a training process of
    this machine has for itself.
    """
    if asked is not None:
        return asked
    import torch

    gpus = torch.cuda.device_count()
    cores = len(os.sched_getaffinity(0)) // max(1, min(world_size, gpus or world_size))
    in_memory = isinstance(images, ArrayImages | DecodedImages)
    if in_memory and (config.img_size <= 64 or not gpus):  # without a GPU the cores compute
        return 0
    return max(0, min(8, cores - 1 if gpus else cores // 2))
