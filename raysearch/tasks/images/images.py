"""Random access to the images of one split, from memory or from files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, Self, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from PIL import Image

from raysearch.errors import UserError

Mode = Literal["L", "RGB"]
"""PIL's names for grey and colour."""


Labels = Int64[np.ndarray, " n"] | Float32[np.ndarray, " n"]
"""What each image is to be recognised as: its class, 0-based, or a number to be predicted."""


@runtime_checkable
class ImageSet(Protocol):
    """The images of one split, in a fixed order."""

    @property
    def labels(self) -> Labels:
        """Of each image."""
        ...

    def digest(self) -> str:
        """Hexadecimal hash; the same on every machine that sees the same images in the same order."""
        ...

    def __len__(self) -> int: ...

    def decode(self, index: int) -> Image.Image:
        """One image at its own size, grey (L) or RGB. Raises UserError that names an unreadable file."""
        ...

    def subset(self, indices: Sequence[int] | np.ndarray) -> Self:
        """The images at ``indices``, in that order."""
        ...


class ArrayImages:
    """Small images held in memory, all of one size: the size that the network sees."""

    def __init__(self, pixels: UInt8[np.ndarray, "n chans height width"], labels: Labels) -> None:
        self.pixels = pixels
        self.labels = labels

    def digest(self) -> str:
        """Hash of pixels and labels."""
        content = hashlib.sha256(f"{self.pixels.shape}".encode())
        content.update(np.ascontiguousarray(self.pixels).data)
        content.update(self.labels.astype("<i8" if self.labels.dtype == np.int64 else "<f4").tobytes())
        return content.hexdigest()

    def __len__(self) -> int:
        return len(self.labels)

    def decode(self, index: int) -> Image.Image:
        """The image as PIL holds it."""
        pixels = self.pixels[index]
        return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))

    def subset(self, indices: Sequence[int] | np.ndarray) -> Self:
        """A copy of the images at ``indices``."""
        chosen = np.asarray(indices, dtype=np.int64)
        return type(self)(self.pixels[chosen], self.labels[chosen])


class FolderImages:
    """Image files below ``root``, opened when they are asked for.

    Args:
        root: the folder that the names start from.
        names: paths of the files relative to ``root`` as bytes. An array instead of a list of strings: it is one object, so
            loader processes share it with their parent instead of copying it page by page.
        sizes: bytes of each file; part of the digest, so that a replaced file is noticed without being read.
        labels: class of each file, 0-based.
        mode: grey or colour, whatever the file holds.

    """

    def __init__(
        self, root: Path, *, names: np.ndarray, sizes: Int64[np.ndarray, " n"], labels: Int64[np.ndarray, " n"], mode: Mode
    ) -> None:
        self.root = root
        self.names = names
        self.sizes = sizes
        self.labels = labels
        self.mode: Mode = mode

    def digest(self) -> str:
        """Hash of names, sizes and labels; the pixels are not read."""
        content = hashlib.sha256(b"\0".join(self.names.tolist()))
        content.update(self.sizes.astype("<i8").tobytes())
        content.update(self.labels.astype("<i8").tobytes())
        return content.hexdigest()

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> Path:
        """The file of one image."""
        return self.root / os.fsdecode(bytes(self.names[index]))

    def decode(self, index: int) -> Image.Image:
        """Read one file. Raises UserError that names it when it cannot be read."""
        return read_image(self.path(index), self.mode)

    def subset(self, indices: Sequence[int] | np.ndarray) -> Self:
        """The files at ``indices``, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return type(self)(
            self.root, names=self.names[chosen], sizes=self.sizes[chosen], labels=self.labels[chosen], mode=self.mode
        )


# What PIL raises for files that are no images, are cut off, or claim an absurd size.
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def read_image(path: Path, mode: Mode) -> Image.Image:
    """The image in a file, converted to ``mode``. Raises UserError that names the file when it cannot be read."""
    try:
        with Image.open(path) as image:
            return _converted(image, mode)
    except _UNREADABLE as error:
        raise UserError(f"{path} is not a readable image ({_reason(error, path)}): replace or remove it") from None


def check_header(path: Path) -> None:
    """Raises UserError that names the file when it does not begin as an image."""
    try:
        with Image.open(path):
            pass
    except _UNREADABLE as error:
        raise UserError(f"{path} is not a readable image ({_reason(error, path)}): replace or remove it") from None


def _reason(error: BaseException, path: Path) -> str:
    """PIL's words without the path, which the message already shows."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.replace(f" {str(path)!r}", "")


def _converted(image: Image.Image, mode: Mode) -> Image.Image:
    if image.mode.startswith("I;16"):
        # PIL would clip 16-bit grey at 255 instead of scaling it.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        # PIL warns when a palette with transparent entries is converted to RGB directly.
        image = image.convert("RGBA")
    return image.convert(mode)
