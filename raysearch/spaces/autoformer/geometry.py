"""Sizes of an AutoFormer supernet and the cost of its subnets in closed form. No tensor is made here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any, Literal

from torch import Tensor

from raysearch.bounds import Count, CountOrNone, Positive
from raysearch.errors import UserError
from raysearch.space import SearchSpace
from raysearch.space.cost import Cost
from raysearch.spaces import latency
from raysearch.spaces.autoformer.space import AutoFormerArchitecture


@dataclass(frozen=True, slots=True)
class SupernetSizes:
    """The tensors that all subnets share; each at least as large as the largest choice."""

    patch_size: Count = 16
    """Side of a square patch, in pixels."""
    embed_dim: Count = 256
    """Widest tokens."""
    depth: Count = 14
    """Most blocks."""
    num_heads: Count = 4
    """Most heads of a block."""
    mlp_ratio: Positive = 4.0
    """Widest feed-forward part, relative to the widest tokens."""
    head_dim: Count = 64
    """Width of a head, the same in every subnet."""
    global_pool: Literal["avg", "token"] = "avg"
    """What the head sees after the final norm: the mean of the patch tokens, or the class token."""
    relative_position: bool = True
    """2-D relative position on keys and values."""
    abs_pos: bool = True
    """Learned absolute position embedding."""
    max_relative_position: CountOrNone = 14
    """Distance in patches beyond which relative positions are the same."""


@dataclass(frozen=True, slots=True)
class AutoFormerGeometry(SupernetSizes):
    """Everything that fixes the shape of a supernet, and with an architecture that of a subnet."""

    img_size: int = 224
    """Side of the square images, in pixels."""
    in_chans: int = 3
    num_classes: int = 1000
    qkv_bias: bool = True

    def __post_init__(self) -> None:
        """Raises UserError that names the size which is not possible."""
        for name in ("img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "num_heads", "head_dim"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, not a positive number")
        if self.img_size % self.patch_size:
            raise UserError(f"img_size {self.img_size} is not a multiple of patch_size {self.patch_size}")
        if int(self.embed_dim * self.mlp_ratio) < 1:
            raise UserError(f"mlp_ratio is {self.mlp_ratio}: no hidden feature at embed_dim {self.embed_dim}")
        if self.max_relative_position < 0:
            raise UserError(f"max_relative_position is {self.max_relative_position}, a distance is not negative")
        if self.global_pool not in ("avg", "token"):
            raise UserError(f"global_pool is {self.global_pool!r}, not 'avg' or 'token'")

    @classmethod
    def tiny(cls, **sizes: Any) -> AutoFormerGeometry:
        """The published AutoFormer-T supernet; keywords replace single sizes."""
        return replace(cls(embed_dim=256, num_heads=4, depth=14), **sizes)

    @classmethod
    def small(cls, **sizes: Any) -> AutoFormerGeometry:
        """The published AutoFormer-S supernet; keywords replace single sizes."""
        return replace(cls(embed_dim=448, num_heads=7, depth=14), **sizes)

    @classmethod
    def base(cls, **sizes: Any) -> AutoFormerGeometry:
        """The published AutoFormer-B supernet; keywords replace single sizes."""
        return replace(cls(embed_dim=640, num_heads=10, depth=16), **sizes)

    @property
    def grid_size(self) -> int:
        """Patches along a side."""
        return self.img_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Patches and the class token."""
        return self.grid_size**2 + 1

    @property
    def hidden_features(self) -> int:
        """Widest feed-forward part."""
        return int(self.embed_dim * self.mlp_ratio)

    def remarks(self) -> Iterator[str]:
        """What is possible and seldom meant: a patch made for large images, on small ones."""
        if self.patch_size >= 8 and self.grid_size < 6:  # the fitted recipes take 6 x 6
            yield (
                f"images of {self.img_size} pixels in patches of {self.patch_size} are {self.grid_size} x {self.grid_size} "
                "tokens, few to tell pictures by: a smaller --net.patch-size gives more"
            )

    def settings(self) -> dict[str, Any]:
        """All sizes as JSON values: ``AutoFormerGeometry(**settings)`` is an equal geometry."""
        return asdict(self)

    def drop_path_rates(self, rate: float) -> tuple[float, ...]:
        """Stochastic depth of each block: linear from 0 to ``rate`` over the supernet's depth, whatever the subnet's.

        A subnet of fewer blocks therefore never reaches ``rate`` (REFERENCE rule 6).
        """
        return tuple(rate * block / max(self.depth - 1, 1) for block in range(self.depth))

    def check(self, arch: AutoFormerArchitecture) -> None:
        """Raises UserError that names the field of ``arch`` which is larger than this supernet."""
        if arch.embed_dim > self.embed_dim:
            raise UserError(f"embed_dim {arch.embed_dim} does not fit into the supernet's {self.embed_dim}")
        if arch.depth > self.depth:
            raise UserError(f"depth {arch.depth} does not fit into the supernet's {self.depth}")
        if max(arch.num_heads) > self.num_heads:
            block = arch.num_heads.index(max(arch.num_heads))
            raise UserError(f"num_heads[{block}]={arch.num_heads[block]} does not fit into the supernet's {self.num_heads}")
        block = arch.mlp_ratio.index(max(arch.mlp_ratio))
        if arch.hidden_features(block) > self.hidden_features:
            raise UserError(
                f"mlp_ratio[{block}]={arch.mlp_ratio[block]:g} asks for {arch.hidden_features(block)} hidden features "
                f"at embed_dim {arch.embed_dim}, the supernet has {self.hidden_features}"
            )

    def check_images(self, images: Tensor) -> None:
        """Raises UserError when ``images`` (batch, chans, height, width) are of another size or channel count."""
        expected = (self.in_chans, self.img_size, self.img_size)
        if images.shape[1:] != expected:
            raise UserError(
                f"images of shape {tuple(images.shape)}, this network takes (batch, {', '.join(map(str, expected))})"
            )

    def cost(self, arch: AutoFormerArchitecture) -> Cost:
        """Exact size of the extracted subnet, and its multiply-accumulates for one image.

        Parameters: all that the extracted subnet holds, class token, position embedding and relative-position tables included
        (REFERENCE rule 7).

        Multiply-accumulates: every product of convolution, linear layers and attention, over all tokens, class token
        included, and the head once per image. Each of the two relative-position products (queries with the K vectors,
        attention with the V vectors) counts tokens x tokens x head_dim per head, once, as the published formula ``q_i .
        vector(i, j)`` reads, although it is computed with fewer here. Biases, norms, activations, softmax and additions count
        nothing. Without relative position this is half of what ``torch.utils.flop_counter.FlopCounterMode`` counts on the
        extracted subnet. The published T, S and B subnets have 1.482, 5.161 and 11.691 G (1.283, 4.774 and 11.045 G without
        relative position).

        Raises UserError when ``arch`` does not fit.
        """
        self.check(arch)
        e, n, patches = arch.embed_dim, self.tokens, self.tokens - 1
        patch_weights = e * self.in_chans * self.patch_size**2
        params = patch_weights + e  # patch projection
        params += e + (n * e if self.abs_pos else 0)  # class token, position embedding
        params += 2 * e + e * self.num_classes + self.num_classes  # final norm, head
        macs = patches * patch_weights + e * self.num_classes
        tables = 4 * (2 * self.max_relative_position + 2) * self.head_dim if self.relative_position else 0
        attention_products = 4 if self.relative_position else 2
        for block, heads in enumerate(arch.num_heads):
            width, hidden = heads * self.head_dim, arch.hidden_features(block)
            weights = 4 * width * e + 2 * e * hidden  # qkv and projection, feed-forward
            biases = (3 * width if self.qkv_bias else 0) + e + hidden + e
            params += weights + biases + 4 * e + tables  # two norms
            macs += n * weights + attention_products * n * n * width
        return Cost(params=params, macs=macs)

    def latency_features(self, arch: AutoFormerArchitecture) -> dict[str, float]:
        """What the latency of the extracted subnet is made of: its ends, which depend on embed_dim, and its blocks."""
        blocks = ((heads * self.head_dim, arch.hidden_features(block)) for block, heads in enumerate(arch.num_heads))
        return latency.of_network(arch.embed_dim, blocks)

    def latency_parts(self, space: SearchSpace[AutoFormerArchitecture]) -> list[tuple[dict[str, Any], dict[str, float]]]:
        """Every part that subnets of ``space`` are made of: its choices, and its share of :meth:`latency_features`."""
        options: dict[str, Any] = {choice.name: choice.options for choice in space.choices}
        parts: list[tuple[dict[str, Any], dict[str, float]]] = []
        for width in options["embed_dim"]:
            parts.append(({"part": "ends", "embed_dim": width}, latency.of_ends(width)))
            for heads, ratio in product(options["num_heads"], options["mlp_ratio"]):
                choices = {"part": "block", "embed_dim": width, "num_heads": heads, "mlp_ratio": ratio}
                parts.append((choices, latency.of_block(width, heads * self.head_dim, int(width * ratio))))
        return parts
