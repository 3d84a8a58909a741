"""A family with running statistics, as a user's own file: a few convolutions, each followed by batch normalisation."""

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
class ConvArchitecture(Architecture):
    chans: int
    hidden: tuple[int, ...]

    @property
    def depth(self) -> int:
        return len(self.hidden)


@dataclass(frozen=True)
class ConvConfig:
    chans: tuple[int, ...] = (6, 8, 12)
    """Channels between the blocks."""
    hidden: tuple[int, ...] = (4, 8, 12)
    """Channels inside a block."""
    blocks: tuple[int, ...] = (1, 2)
    """Numbers of blocks."""


class ConvNorm(nn.Module):
    def __init__(self, in_chans: int, out_chans: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, out_chans, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_chans)

    def forward(self, x: Tensor, out_chans: int) -> Tensor:
        norm, leading = self.norm, slice(out_chans)
        x = F.conv2d(x, self.conv.weight[leading, : x.shape[1]], padding=self.conv.padding)
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        if out_chans == norm.num_features:
            return norm(x)
        return F.batch_norm(x, mean[leading], variance[leading], norm.weight[leading], norm.bias[leading], self.training)


class ConvNet(Subnet):
    def __init__(self, sizes: dict[str, Any], arch: ConvArchitecture) -> None:
        super().__init__()
        self.arch, self.rate = arch, sizes.get("drop_path_rate", 0.0)
        self.stem = ConvNorm(sizes["in_chans"], arch.chans, 3)
        self.wide = nn.ModuleList(ConvNorm(arch.chans, hidden, 3) for hidden in arch.hidden)
        self.narrow = nn.ModuleList(ConvNorm(hidden, arch.chans, 1) for hidden in arch.hidden)
        self.head = nn.Linear(arch.chans, sizes["outputs"])

    def forward(self, images: Tensor, arch: ConvArchitecture | None = None) -> Tensor:
        arch = arch or self.arch
        x = self.stem(images, arch.chans).relu()
        for i, hidden in enumerate(arch.hidden):
            x = x + drop_path(self.narrow[i](self.wide[i](x, hidden).relu(), arch.chans), self.rate, self.training)
        return F.linear(x.mean(dim=(2, 3)), self.head.weight[:, : arch.chans], self.head.bias)

    def reset_parameters(self, *, weight_init: str, pos_embed_std: float, generator: torch.Generator | None = None) -> None:
        for name, weight in self.named_parameters():
            if weight.ndim == 1:
                nn.init.constant_(weight, float("norm" in name and name.endswith("weight")))
            else:
                nn.init.kaiming_normal_(weight.flatten(1), generator=generator)


def supernet(*, drop_path_rate: float = 0.0, **sizes: Any) -> LeadingSupernet[ConvArchitecture]:
    largest, settings = ConvArchitecture.from_dict(sizes["largest"]), {**sizes, "drop_path_rate": drop_path_rate}
    return LeadingSupernet(partial(ConvNet, settings), largest, cost=partial(cost, sizes), settings=settings)


def cost(sizes: dict[str, Any], arch: ConvArchitecture) -> Cost:
    c, stem, pixels = arch.chans, 9 * sizes["in_chans"] * arch.chans, sizes["pixels"]
    weights = stem + sum(10 * c * hidden for hidden in arch.hidden)
    norms = 2 * c + sum(2 * hidden + 2 * c for hidden in arch.hidden)
    return Cost(weights + norms + (c + 1) * sizes["outputs"], pixels * weights + c * sizes["outputs"])


def build(config: ConvConfig, ends: Ends) -> Geometry[ConvArchitecture]:
    chans, height, width = ends.input_shape
    choices = [Choice("chans", config.chans), Choice("hidden", config.hidden, per="block")]
    space = SearchSpace(ConvArchitecture, choices, depth=config.blocks)
    sizes = {"in_chans": chans, "pixels": height * width, "outputs": ends.outputs, "largest": space.largest().to_dict()}
    return Geometry(space, sizes, partial(cost, sizes))


FAMILY = Family(
    name="batchnorm",
    config=ConvConfig,
    architecture=ConvArchitecture,
    build=build,
    supernet=supernet,
    subnet=ConvNet,
    description="Convolutions with batch normalisation",
    calibrates=True,
)
