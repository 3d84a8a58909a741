"""Random access to the images of one split, from memory or from files."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import Protocol, Self, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from PIL import Image

from raysearch.errors import UserError
from raysearch.tasks.images.config import DataConfig
from raysearch.tasks.images.fingerprints import content_hash, ends_hash
from raysearch.tasks.images.places import Place
from raysearch.tasks.images.reading import READER, Mode, read_picture
from raysearch.tasks.images.stores import Store

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
    """Small images held in memory, all of one size."""

    def __init__(self, pixels: UInt8[np.ndarray, "n chans height width"], labels: Labels) -> None:
        self.pixels = pixels
        self.labels = labels

    def fits(self, config: DataConfig) -> bool:
        """Whether the network sees the images as they are."""
        return self.pixels.shape[2:] == (config.img_size, config.img_size) and config.uncropped

    def digest(self) -> str:
        """Hash of pixels and labels."""
        content = hashlib.sha256(f"{self.pixels.shape}".encode())
        content.update(np.ascontiguousarray(self.pixels).data)
        content.update(self.labels.astype("<i8" if self.labels.dtype == np.int64 else "<f4").tobytes())
        return content.hexdigest()

    def pictures(self) -> list[bytes]:
        """Of each image a hash of its pixels: equal ones are the same picture."""
        return [content_hash(np.ascontiguousarray(image).tobytes()) for image in self.pixels]

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


class EncodedImages:
    """Pictures in files, read and decoded when they are asked for.

    Args:
        store: where the names are.
        names: of the pictures in ``store``, as bytes. An array instead of a list of strings: it is one object, so
            loader processes share it with their parent instead of copying it page by page.
        records: what each picture is (:data:`~raysearch.tasks.images.fingerprints.FINGERPRINT`).
        labels: class of each, 0-based.
        mode: grey or colour, whatever the file holds.
        white: value of white in grey pictures of more than 8 bits, see :func:`~raysearch.tasks.images.reading.read_image`.
        whole: whether ``records`` know all bytes of a picture, or its size, beginning and end.
        as_in_0_1_0: have the digest that version 0.1.0 gave these files, which knew names, sizes and labels alone.

    """

    def __init__(
        self,
        store: Store,
        *,
        names: np.ndarray,
        records: np.ndarray,
        labels: Int64[np.ndarray, " n"],
        mode: Mode,
        white: float | None = None,
        whole: bool = True,
        as_in_0_1_0: bool = False,
    ) -> None:
        self.store = store
        self.names = names
        self.records = records
        self.labels = labels
        self.mode: Mode = mode
        self.white, self.whole, self.as_in_0_1_0 = white, whole, as_in_0_1_0

    def digest(self) -> str:
        """Hash of names, content and labels, and of the rules by which they are read."""
        content = hashlib.sha256(b"\0".join(self.names.tolist()))
        if self.as_in_0_1_0:
            content.update(self.records["size"].astype("<i8").tobytes())
        else:
            content.update(f"{READER} {self.mode} {self.white}".encode())
            content.update(np.ascontiguousarray(self.records["content"]).tobytes())
        content.update(self.labels.astype("<i8").tobytes())
        return content.hexdigest()

    def pictures(self) -> list[bytes]:
        """Of each image a hash of its pixels: equal ones are the same picture, in whatever file."""
        return [record.tobytes() for record in self.records["picture"]]

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> bytes:
        """What one image is called in :attr:`store`."""
        return bytes(self.names[index])

    def path(self, index: int) -> Place:
        """The file that one image is in."""
        return self.store.holder(self.name(index))

    def shown(self, index: int) -> str:
        """One image as messages name it."""
        return self.store.shown(self.name(index))

    def decode(self, index: int) -> Image.Image:
        """Read one image. Raises UserError that names it when it cannot be read or is no longer the one that was listed."""
        try:
            content = self.store.read(self.name(index))
        except OSError as error:
            raise UserError(f"{self.shown(index)} cannot be read ({error.strerror}): restore it") from None
        image = read_picture(content, self.mode, white=self.white, name=self.shown(index)).image
        found = content_hash(content) if self.whole else ends_hash(io.BytesIO(content))
        if found != self.records["content"][index].tobytes():
            raise UserError(f"{self.shown(index)} changed since this run began: restore it, or start a new run")
        return image

    def subset(self, indices: Sequence[int] | np.ndarray) -> Self:
        """The images at ``indices``, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return type(self)(
            self.store,
            names=self.names[chosen],
            records=self.records[chosen],
            labels=self.labels[chosen],
            mode=self.mode,
            white=self.white,
            whole=self.whole,
            as_in_0_1_0=self.as_in_0_1_0,
        )
