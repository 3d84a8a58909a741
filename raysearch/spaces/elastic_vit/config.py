"""The command line's settings of an elastic vision transformer: the network, and what may be chosen of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from raysearch.bounds import Count
from raysearch.errors import UserError
from raysearch.space import Choice, SearchSpace
from raysearch.spaces.elastic_vit.sizes import ElasticSizes, NetConfig
from raysearch.spaces.elastic_vit.space import ElasticArchitecture
from raysearch.tasks.task import Ends


@dataclass(frozen=True, slots=True)
class SpaceConfig:
    """What may be chosen. Few options on purpose: 25 widths instead of 4 cost Scala (2024) 4 points at half width."""

    embed_dim: tuple[Count, ...] = ()
    """Channels of the residual stream, one choice for the whole net. Default: all, 5/6 and 2/3 of them, in multiples of 64 (of
    8 in networks of less than 192)."""
    num_heads: tuple[Count, ...] = ()
    """Attention heads of a block. Default: all, 5/6, 2/3 and a half of them."""
    hidden_features: tuple[Count, ...] = ()
    """Hidden neurons of a block's feed-forward part. Default: all, 3/4, a half and a quarter of them."""
    depth: tuple[Count, ...] = ()
    """Numbers of blocks. Default: all, and up to four less, at least a half."""
    uniform: bool = False
    """All blocks have equally many heads and neurons: such networks are plain ones of timm's."""

    def build(self, net: NetConfig) -> SearchSpace[ElasticArchitecture]:
        """The space of a network. Raises UserError for an option that it does not hold."""
        heads, embed, hidden, depth = net.num_heads, net.embed_dim, net.hidden_features, net.depth
        step = 64 if embed >= 192 and embed % 64 == 0 else 8 if embed % 8 == 0 else 1
        widths = (embed, *(round(embed * share / step) * step for share in (5 / 6, 2 / 3)))
        found = {
            "embed_dim": self.embed_dim or _rising(widths),
            "num_heads": self.num_heads or _rising((heads, round(heads * 5 / 6), round(heads * 2 / 3), heads // 2)),
            "hidden_features": self.hidden_features or _rising(hidden * quarters // 4 for quarters in (1, 2, 3, 4)),
            "depth": self.depth or tuple(range(max(1, depth - 4, (depth + 1) // 2), depth + 1)),
        }
        for name, options in found.items():
            if max(options) > getattr(net, name):
                raise UserError(
                    f"--space.{name.replace('_', '-')} {max(options)} is more than the network's {getattr(net, name)}"
                )
        return SearchSpace(
            ElasticArchitecture,
            [
                Choice("hidden_features", found["hidden_features"], per="block", tied=self.uniform),
                Choice("num_heads", found["num_heads"], per="block", tied=self.uniform),
                Choice("embed_dim", found["embed_dim"]),
            ],
            depth=found["depth"],
        )


@dataclass(frozen=True, slots=True)
class ElasticConfig:
    """A network and the space of its subnets."""

    space: SpaceConfig = field(default_factory=SpaceConfig)
    """What may be chosen."""
    net: NetConfig = field(default_factory=NetConfig)
    """The whole network."""

    def sizes(self, ends: Ends) -> ElasticSizes:
        """The network's sizes for images (chans, height, width). Raises UserError when they do not fit together."""
        if len(ends.input_shape) != 3:
            raise UserError(f"a vision transformer takes images (chans, height, width), not {ends.input_shape}")
        chans, height, width = ends.input_shape
        return ElasticSizes(**asdict(self.net), img_size=(height, width), in_chans=chans, num_classes=ends.outputs)


def _rising(options: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted({max(1, option) for option in options}))
