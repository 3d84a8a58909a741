"""A family of two stages with blocks that may be left out and choices that are words, as a user's own file."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raysearch.nn.drop_path import drop_path
from raysearch.space import Architecture, Choice, Cost, SearchSpace
from raysearch.spaces import Family, Geometry, LeadingSupernet, Subnet
from raysearch.tasks import Ends


@dataclass(frozen=True)
class StagedArchitecture(Architecture):
    pool: str
    chans: tuple[int, ...]
    hidden: tuple[tuple[int | None, ...], ...]
    activation: tuple[tuple[str | None, ...], ...]

    @property
    def depth(self) -> int:
        return sum(width is not None for blocks in self.hidden for width in blocks)


@dataclass(frozen=True)
class StagedConfig:
    chans: tuple[int, ...] = (4, 8)
    """Channels of a stage."""
    hidden: tuple[int, ...] = (4, 8)
    """Channels inside a block."""
    blocks: tuple[tuple[int, ...], ...] = ((1, 2), (2, 3))
    """Numbers of blocks of each stage; the second block of a stage may be left out."""


class StagedNet(Subnet):
    def __init__(self, sizes: dict[str, Any], arch: StagedArchitecture) -> None:
        super().__init__()
        self.arch, self.rate = arch, sizes.get("drop_path_rate", 0.0)
        ends = [sizes["in_chans"], *arch.chans]
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in zip(ends, arch.chans, strict=False))
        self.wide, self.narrow = nn.ModuleDict(), nn.ModuleDict()
        for stage, (chans, blocks) in enumerate(zip(arch.chans, arch.hidden, strict=True)):
            for block, hidden in enumerate(blocks):
                if hidden is not None:
                    self.wide[f"{stage}-{block}"] = nn.Conv2d(chans, hidden, 1)
                    self.narrow[f"{stage}-{block}"] = nn.Conv2d(hidden, chans, 1)
        self.head = nn.Linear(arch.chans[-1], sizes["outputs"])

    def forward(self, images: Tensor, arch: StagedArchitecture | None = None) -> Tensor:
        arch, x = arch or self.arch, images
        for stage, chans in enumerate(arch.chans):
            x = leading(self.down[stage], x, chans)
            for block, (hidden, activation) in enumerate(zip(arch.hidden[stage], arch.activation[stage], strict=True)):
                if hidden is not None and activation is not None:
                    inside = getattr(F, activation)(leading(self.wide[f"{stage}-{block}"], x, hidden))
                    inside = leading(self.narrow[f"{stage}-{block}"], inside, chans)
                    x = x + drop_path(inside, self.rate, self.training)
        x = x.mean(dim=(2, 3)) if arch.pool == "mean" else x.amax(dim=(2, 3))
        return F.linear(x, self.head.weight[:, : x.shape[1]], self.head.bias)

    def reset_parameters(self, *, weight_init: str, pos_embed_std: float, generator: torch.Generator | None = None) -> None:
        for weight in self.parameters():
            if weight.ndim == 1:
                nn.init.zeros_(weight)
            else:
                nn.init.xavier_uniform_(weight.flatten(1), generator=generator)


def leading(layer: Any, x: Tensor, out_chans: int) -> Tensor:
    return F.conv2d(x, layer.weight[:out_chans, : x.shape[1]], layer.bias[:out_chans], stride=layer.stride)


def supernet(*, drop_path_rate: float = 0.0, **sizes: Any) -> LeadingSupernet[StagedArchitecture]:
    largest, settings = StagedArchitecture.from_dict(sizes["largest"]), {**sizes, "drop_path_rate": drop_path_rate}
    return LeadingSupernet(partial(StagedNet, settings), largest, cost=partial(cost, sizes), settings=settings)


def cost(sizes: dict[str, Any], arch: StagedArchitecture) -> Cost:
    params = macs = (arch.chans[-1] + 1) * sizes["outputs"]
    macs -= sizes["outputs"]
    side, before = sizes["img_size"], sizes["in_chans"]
    for chans, blocks in zip(arch.chans, arch.hidden, strict=True):
        side //= 2
        weights = 4 * before * chans + sum(2 * chans * hidden for hidden in blocks if hidden is not None)
        params += weights + chans + sum(hidden + chans for hidden in blocks if hidden is not None)
        macs += side * side * weights
        before = chans
    return Cost(params, macs)


def build(config: StagedConfig, ends: Ends) -> Geometry[StagedArchitecture]:
    chans, height, _ = ends.input_shape
    choices = [
        Choice("pool", ("mean", "max")),
        Choice("chans", config.chans, per="stage"),
        Choice("hidden", config.hidden, per="block"),
        Choice("activation", ("relu", "gelu"), per="block"),
    ]
    space = SearchSpace(StagedArchitecture, choices, depth=config.blocks, skippable=(1,))
    sizes = {"in_chans": chans, "img_size": height, "outputs": ends.outputs, "largest": space.largest().to_dict()}
    return Geometry(space, sizes, partial(cost, sizes), axes=("depth", "chans_mean", "hidden_mean"))


FAMILY = Family(
    name="staged",
    config=StagedConfig,
    architecture=StagedArchitecture,
    build=build,
    supernet=supernet,
    subnet=StagedNet,
    description="Convolutions in two stages",
)
