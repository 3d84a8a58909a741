"""Evaluation images where the network computes: resident on a GPU when they fit, streamed to it when they do not."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

from raysearch.tasks.images.cache import CachedImages

_BLOCK = 512
"""Images that are staged at a time on their way to become resident."""


def image_format(device: torch.device) -> torch.memory_format:
    """How images and convolution weights lie in memory: channels last on GPUs, whose convolutions ask for it."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def room_on(device: torch.device) -> int:
    """Bytes of images that may stay on ``device``: half of a GPU's free memory. None on a CPU, which reads the mapped file."""
    return torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else 0


class DeviceImages:
    """A split's pixels and labels on a device, a batch at a time.

    Pixels stay uint8, to be normalised on the device. They are copied there once when they fit into ``room_bytes``, otherwise
    each batch anew: to a GPU from pinned memory and without waiting, so that the next batch is read while one is computed.

    Args:
        images: the cached split.
        device: where batches are needed.
        room_bytes: most bytes of pixels that may stay there, as :func:`room_on` says.

    """

    def __init__(self, images: CachedImages, device: torch.device, *, room_bytes: int) -> None:
        self.cached, self.device = images, device
        self._pixels: Tensor | None = None
        self._labels = torch.from_numpy(np.array(images.labels)).to(device)
        if images.images.nbytes <= room_bytes:
            shape, layout = images.images.shape, image_format(device)
            self._pixels = torch.empty(shape, dtype=torch.uint8, device=device, memory_format=layout)
            for start in range(0, len(self), _BLOCK):
                block = slice(start, start + _BLOCK)
                self._pixels[block] = self._staged(block).to(device, non_blocking=True)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.cached.labels)

    def batch(
        self, chosen: slice | Int64[np.ndarray, " batch"]
    ) -> tuple[UInt8[Tensor, "batch chans height width"], Shaped[Tensor, " batch"]]:
        """Pixels and labels of the ``chosen`` images on the device, in the order of an index array or of the split."""
        index = chosen if isinstance(chosen, slice) else torch.from_numpy(chosen).to(self.device, non_blocking=True)
        if self._pixels is not None:
            return self._pixels[index], self._labels[index]
        pixels = self._staged(chosen).to(self.device, non_blocking=True, memory_format=image_format(self.device))
        return pixels, self._labels[index]

    def _staged(self, chosen: slice | np.ndarray) -> Tensor:
        """A copy in memory that a GPU can read by itself; torch keeps it until a pending transfer is done."""
        pixels = self.cached.images[chosen]
        staged = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        staged.numpy()[...] = pixels
        return staged
