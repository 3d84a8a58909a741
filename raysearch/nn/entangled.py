"""Layers that own the widest weight and use its leading rows and columns: the width in use is an argument of the call.

Weight entanglement (AutoFormer section 3.2): a narrower choice is a prefix of a wider one, so all subnets train the same
tensor. Nothing is remembered between calls. A ``prefix`` is a view of the weight, gradients reach exactly the part that was
used.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

LAYER_NORM_EPS = 1e-5


class EntangledLinear(nn.Module):
    """A linear map from the width of its input to any number of leading output features."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features))

    def prefix(self, *, in_features: int, out_features: int) -> tuple[Float[Tensor, "out in"], Float[Tensor, " out"]]:
        """Weight and bias of the leading ``out_features`` rows and ``in_features`` columns, as views."""
        return self.weight[:out_features, :in_features], self.bias[:out_features]

    def forward(self, x: Float[Tensor, "*batch in"], out_features: int) -> Float[Tensor, "*batch out"]:
        """Map ``x`` to its first ``out_features`` outputs."""
        return F.linear(x, *self.prefix(in_features=x.shape[-1], out_features=out_features))


class EntangledQKV(nn.Module):
    """Weights of query, key and value in the layout of the published checkpoints (REFERENCE rule 2).

    Row ``3 j`` of the weight belongs to feature ``j`` of Q, ``3 j + 1`` to K and ``3 j + 2`` to V, so that one prefix serves
    any number of heads. The bias is not interleaved: its prefix holds Q, then K, then V of the heads in use.
    """

    def __init__(self, embed_dim: int, width: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3 * width, embed_dim))
        self.bias = nn.Parameter(torch.empty(3 * width)) if bias else None

    def prefix(self, *, embed_dim: int, width: int) -> tuple[Float[Tensor, "out in"], Float[Tensor, " out"] | None]:
        """Weight ordered Q, K, V (a copy of the rows in use) and bias, for ``width`` features each."""
        rows = self.weight[: 3 * width, :embed_dim].unflatten(0, (width, 3))
        return rows.transpose(0, 1).flatten(0, 1), None if self.bias is None else self.bias[: 3 * width]


class EntangledLayerNorm(nn.Module):
    """Layer normalisation over the leading features that its input has."""

    def __init__(self, features: int, eps: float = LAYER_NORM_EPS) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(features))
        self.bias = nn.Parameter(torch.empty(features))

    def prefix(self, features: int) -> tuple[Float[Tensor, " features"], Float[Tensor, " features"]]:
        """Scale and shift of the leading ``features``, as views."""
        return self.weight[:features], self.bias[:features]

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        """Normalise the last axis of ``x``."""
        return F.layer_norm(x, x.shape[-1:], *self.prefix(x.shape[-1]), self.eps)


class EntangledConv2d(nn.Module):
    """A convolution of square, non-overlapping patches to any number of leading output channels."""

    def __init__(self, in_chans: int, out_chans: int, kernel_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_chans, in_chans, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(out_chans))

    def prefix(self, out_chans: int) -> tuple[Float[Tensor, "out chans kernel kernel"], Float[Tensor, " out"]]:
        """Weight and bias of the leading ``out_chans`` channels, as views."""
        return self.weight[:out_chans], self.bias[:out_chans]

    def forward(
        self, images: Float[Tensor, "batch chans height width"], out_chans: int
    ) -> Float[Tensor, "batch out rows columns"]:
        """Project each patch of ``images``."""
        return F.conv2d(images, *self.prefix(out_chans), stride=self.weight.shape[-1])


class EntangledPatchEmbed(nn.Module):
    """Images to patch tokens of any leading width, in row-major order."""

    def __init__(self, in_chans: int, embed_dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = EntangledConv2d(in_chans, embed_dim, patch_size)

    def forward(
        self, images: Float[Tensor, "batch chans height width"], embed_dim: int
    ) -> Float[Tensor, "batch patches embed"]:
        """One token per patch."""
        return self.proj(images, embed_dim).flatten(2).transpose(1, 2)
