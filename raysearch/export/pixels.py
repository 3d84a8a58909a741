"""From pixels of any size to probabilities, as one module: what a program needs that nobody prepares pictures for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Float32, Float64, UInt8
from torch import Tensor, nn

_FIXED_POINT = 2.0**22
"""Pillow rounds the weights of 8-bit pictures to multiples of the inverse."""


class Preparation(nn.Module):
    """The evaluation transform of pictures as tensor operations: resize of the shorter side, centre crop, normalisation.

    It computes what Pillow computes for 8-bit pictures (antialiased, with weights in fixed point and a rounded picture between
    the two passes), so that a network sees the same pixels bit for bit; but for pictures more than about twice as tall as
    wide, which Pillow from 13 on resizes in the other order of passes. The weights form two matrices, of which only the rows
    that the crop keeps are made: every operation is one of ONNX, whatever its version of Resize.

    Args:
        img_size: side of the square that the network sees.
        mean: of the pixels per channel, on a scale from 0 to 1.
        std: of the pixels per channel, on the same scale.
        interpolation: bicubic or bilinear.
        crop_pct: share of the shorter side that the crop keeps.

    """

    scale: Tensor
    shift: Tensor

    def __init__(self, *, img_size: int, mean: tuple[float, ...], std: tuple[float, ...], interpolation: str, crop_pct: float):
        super().__init__()
        self.size, self.shorter = img_size, int(img_size / crop_pct)
        self.bicubic = interpolation == "bicubic"
        # As Normalisation computes it, to the last bit.
        self.register_buffer("scale", torch.tensor([1 / (255 * s) for s in std]).view(1, -1, 1, 1))
        self.register_buffer("shift", torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).view(1, -1, 1, 1))

    @classmethod
    def of(cls, how: Mapping[str, Any]) -> Preparation:
        """From what a model card says of the preprocessing."""
        sizes = {name: how[name] for name in ("img_size", "interpolation", "crop_pct")}
        return cls(**sizes, mean=tuple(how["mean"]), std=tuple(how["std"]))

    def forward(self, images: UInt8[Tensor, "batch height width chans"]) -> Float32[Tensor, "batch chans size size"]:
        """Pictures of one size, any size, to the network's input."""
        height, width = (torch.scalar_tensor(length, dtype=torch.float64, device=images.device) for length in images.shape[1:3])
        shorter = torch.minimum(height, width)
        across = self._weights(images.shape[2], width, shorter)
        down = self._weights(images.shape[1], height, shorter)
        pixels = _rounded(images.permute(0, 3, 1, 2).double() @ across.T)
        pixels = _rounded(down @ pixels)
        return torch.addcmul(self.shift, pixels.float(), self.scale)

    def _weights(
        self, count: int | torch.SymInt, length: Float64[Tensor, ""], shorter: Float64[Tensor, ""]
    ) -> Float64[Tensor, "size length"]:
        """What each pixel of one side of the picture adds to each pixel of the crop, in units of the fixed point.

        ``count`` and ``length`` are the same number, as a dimension and as a tensor.
        """
        resized = torch.floor(self.shorter * length / shorter)
        spare = resized - self.size
        # torchvision rounds half of the spare pixels to even.
        first = torch.floor(spare / 2) + (torch.remainder(spare, 4) == 3)
        scale = length / resized
        stretch = torch.clamp(scale, min=1.0)  # antialiasing: the filter is as wide as the pixels that become one
        reach = (2.0 if self.bicubic else 1.0) * stretch
        centre = ((torch.arange(self.size, dtype=torch.float64, device=length.device) + first + 0.5) * scale)[:, None]
        pixel = torch.arange(count, dtype=torch.float64, device=length.device)[None]
        distance = ((pixel - centre + 0.5) / stretch).abs()
        if self.bicubic:  # Keys' kernel with a = -0.5
            near = (1.5 * distance - 2.5) * distance * distance + 1
            far = (((distance - 5) * distance + 8) * distance - 4) * -0.5
            weight = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
        else:
            weight = torch.clamp(1 - distance, min=0.0)
        inside = (pixel >= torch.floor(centre - reach + 0.5)) & (pixel < torch.floor(centre + reach + 0.5))
        weight = torch.where(inside, weight, 0.0)
        weight = weight / weight.sum(dim=1, keepdim=True) * _FIXED_POINT
        return torch.where(weight < 0, torch.ceil(weight - 0.5), torch.floor(weight + 0.5))


def _rounded(sums: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    """Sums in fixed point as pixels; they are whole numbers below 2^53, so that nothing was rounded before."""
    return torch.clamp(torch.floor(sums / _FIXED_POINT + 0.5), 0.0, 255.0)


class PixelClassifier(nn.Module):
    """A network with all that stands around it: pixels in, probabilities of the classes out."""

    def __init__(self, preparation: Preparation, network: nn.Module) -> None:
        super().__init__()
        self.preparation, self.network = preparation, network

    def forward(self, images: UInt8[Tensor, "batch height width chans"]) -> Float[Tensor, "batch classes"]:
        """Pictures of one size; each row of the answer sums to 1."""
        return self.network(self.preparation(images)).float().softmax(dim=1)
