"""Sizes of an elastic vision transformer and the cost of its subnets in closed form. No tensor is made here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Literal

from torch import Tensor

from raysearch.bounds import Count, CountOrNone, Positive
from raysearch.errors import UserError
from raysearch.space import Cost, SearchSpace
from raysearch.spaces import latency
from raysearch.spaces.elastic_vit.space import ElasticArchitecture

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
"""GELU by the error function, by tanh, or as ``x sigmoid(1.702 x)``."""
Pool = Literal["token", "avg", "max", "avgmax"]
"""What the head sees: the class token, or the mean, the greatest or the mean of both of the patch tokens."""
FinalNorm = Literal["before-pool", "after-pool", "none"]
"""Where the last norm stands."""


@dataclass(frozen=True, slots=True)
class NetConfig:
    """The whole network, as timm's ``VisionTransformer`` has it. With --from-timm all of this is read from it."""

    patch_size: tuple[Count, Count] = (16, 16)
    """Height and width of a patch, in pixels."""
    embed_dim: Count = 192
    """Channels of the residual stream."""
    depth: Count = 12
    """Blocks."""
    num_heads: Count = 3
    """Attention heads of a block."""
    head_dim: Count = 64
    """Width of a head."""
    hidden_features: Count = 768
    """Hidden neurons of a feed-forward part."""
    class_token: bool = True
    """A class token before all others."""
    registers: CountOrNone = 0
    """Register tokens, between class token and patches."""
    positions: Literal["all", "patches", "none"] = "all"
    """Which tokens the learned position embedding covers."""
    patch_bias: bool = True
    """Bias of the patch projection."""
    query_bias: bool = True
    """Bias of queries. That of keys changes nothing, and that of values is a part of the projection's bias."""
    layer_scale: bool = False
    """A learned scale on each branch of a block."""
    first_norm: bool = False
    """A norm before the first block."""
    final_norm: FinalNorm = "before-pool"
    """A norm before or after tokens are pooled for the head, or none."""
    pool: Pool = "token"
    """What the head sees of the tokens."""
    pool_prefix: bool = False
    """Pool class token and registers with the patches."""
    activation: Activation = "gelu"
    """Of the feed-forward parts."""
    eps: Positive = 1e-6
    """Added to the variance in each norm."""
    order: tuple[CountOrNone, ...] = ()
    """Blocks, counted from 0, in the order in which depth takes them. Default: as they stand."""


@dataclass(frozen=True, slots=True)
class ElasticSizes(NetConfig):
    """Everything that fixes the shape of the supernet, and with an architecture that of a subnet."""

    img_size: tuple[int, int] = (224, 224)
    """Height and width of images, in pixels."""
    in_chans: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        """Raises UserError for sizes that do not fit together. Lists, as JSON has them, become tuples."""
        for name in ("patch_size", "img_size", "order"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if min(self.img_size) < 1 or any(side < patch for side, patch in zip(self.img_size, self.patch_size, strict=True)):
            raise UserError(f"images of {_by(self.img_size)} pixels are smaller than a patch of {_by(self.patch_size)}")
        if any(side % patch for side, patch in zip(self.img_size, self.patch_size, strict=True)):
            near = _by(max(1, round(side / patch)) * patch for side, patch in zip(self.img_size, self.patch_size, strict=True))
            raise UserError(
                f"images of {_by(self.img_size)} pixels are no whole number of patches of {_by(self.patch_size)}; take {near}"
            )
        if self.in_chans < 1 or self.num_classes < 1:
            raise UserError(f"{self.in_chans} channels and {self.num_classes} classes: both must be at least 1")
        if self.pool == "token" and not self.class_token:
            raise UserError("pool token needs a class token; take avg")
        if not self.order:
            object.__setattr__(self, "order", tuple(range(self.depth)))
        elif sorted(self.order) != list(range(self.depth)):
            raise UserError(f"order {self.order} does not name each of the {self.depth} blocks, counted from 0, once")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.img_size[0] // self.patch_size[0], self.img_size[1] // self.patch_size[1]

    @property
    def prefix(self) -> int:
        """Tokens before those of the patches."""
        return int(self.class_token) + self.registers

    @property
    def patches(self) -> int:
        """Tokens of patches."""
        return self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.prefix + self.patches

    @property
    def positioned(self) -> int:
        """Tokens that the position embedding covers."""
        return {"all": self.tokens, "patches": self.patches, "none": 0}[self.positions]

    @property
    def largest(self) -> ElasticArchitecture:
        """The whole network."""
        return ElasticArchitecture(self.embed_dim, (self.num_heads,) * self.depth, (self.hidden_features,) * self.depth)

    def settings(self) -> dict[str, Any]:
        """All sizes as JSON values: ``ElasticSizes(**settings)`` are equal sizes."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def blocks(self, arch: ElasticArchitecture) -> Iterator[tuple[int, int, int]]:
        """Place in the network, heads and neurons of each block of ``arch``, in the order in which they compute."""
        kept = {block: i for i, block in enumerate(self.order[: arch.depth])}
        return ((block, arch.num_heads[kept[block]], arch.hidden_features[kept[block]]) for block in sorted(kept))

    def drop_path_rates(self, rate: float) -> tuple[float, ...]:
        """Stochastic depth by block: linear from 0 to ``rate`` over the whole network, whatever the subnet's blocks."""
        return tuple(rate * block / max(self.depth - 1, 1) for block in range(self.depth))

    def check(self, arch: ElasticArchitecture) -> None:
        """Raises UserError that names what of ``arch`` is larger than the network."""
        for name, value in (
            ("embed_dim", arch.embed_dim),
            ("depth", arch.depth),
            ("num_heads", max(arch.num_heads)),
            ("hidden_features", max(arch.hidden_features)),
        ):
            if value > getattr(self, name):
                raise UserError(f"{name} {value} does not fit into the network's {getattr(self, name)}")

    def check_images(self, images: Tensor) -> None:
        """Raises UserError when ``images`` (batch, chans, height, width) are of another size or channel count."""
        if images.shape[1:] != (self.in_chans, *self.img_size):
            wanted = ", ".join(map(str, (self.in_chans, *self.img_size)))
            raise UserError(f"images of shape {tuple(images.shape)}, this network takes (batch, {wanted})")

    def cost(self, arch: ElasticArchitecture) -> Cost:
        """Exact size of the extracted subnet, and its multiply-accumulates for one image.

        Counted are the products of the patch projection, linear layers and attention, over all tokens, and of the head once:
        half of what ``torch.utils.flop_counter.FlopCounterMode`` counts. Raises UserError when ``arch`` does not fit.
        """
        self.check(arch)
        e, n = arch.embed_dim, self.tokens
        projection = e * self.in_chans * self.patch_size[0] * self.patch_size[1]
        norms = int(self.first_norm) + int(self.final_norm != "none")
        params = projection + e * (int(self.patch_bias) + self.prefix + self.positioned + 2 * norms)
        params += (e + 1) * self.num_classes
        macs = self.patches * projection + e * self.num_classes
        for _, heads, hidden in self.blocks(arch):
            width = heads * self.head_dim
            weights = 4 * width * e + 2 * e * hidden
            params += weights + hidden + e * (6 + 2 * int(self.layer_scale)) + (width if self.query_bias else 0)
            macs += n * weights + 2 * n * n * width
        return Cost(params=params, macs=macs)

    def latency_features(self, arch: ElasticArchitecture) -> dict[str, float]:
        """What the latency of the extracted subnet is made of: its ends, which depend on the channels, and its blocks."""
        blocks = ((heads * self.head_dim, hidden) for _, heads, hidden in self.blocks(arch))
        return latency.of_network(arch.embed_dim, blocks)

    def latency_parts(self, space: SearchSpace[ElasticArchitecture]) -> list[tuple[dict[str, Any], dict[str, float]]]:
        """Every part that subnets of ``space`` are made of: its choices, and its share of :meth:`latency_features`."""
        options: dict[str, Any] = {choice.name: choice.options for choice in space.choices}
        parts: list[tuple[dict[str, Any], dict[str, float]]] = []
        for e in options["embed_dim"]:
            parts.append(({"part": "ends", "embed_dim": e}, latency.of_ends(e)))
            for heads, hidden in product(options["num_heads"], options["hidden_features"]):
                choices = {"part": "block", "embed_dim": e, "num_heads": heads, "hidden_features": hidden}
                parts.append((choices, latency.of_block(e, heads * self.head_dim, hidden)))
        return parts


def _by(sides: Any) -> str:
    return " x ".join(map(str, sides))
