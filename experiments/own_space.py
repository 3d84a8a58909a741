"""A family of your own in one file: ``python experiments/search.py digits --family experiments/own_space.py``.

An MLP-Mixer (Tolstikhin et al., NeurIPS 2021) for small pictures: each block mixes the patches of every feature, then the
features of every patch. What is searched: the width, the number of blocks, and the hidden features and the activation of each.
Copy this file and replace the network. docs/families.md says what each part is for and how to check yours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raysearch.bounds import Count
from raysearch.errors import UserError
from raysearch.nn.drop_path import drop_path
from raysearch.nn.entangled import EntangledLayerNorm, EntangledLinear, EntangledPatchEmbed
from raysearch.space import Architecture, Choice, Cost, SearchSpace
from raysearch.spaces import Family, Geometry, LeadingSupernet, Subnet
from raysearch.tasks import Ends


@dataclass(frozen=True)
class MixerArchitecture(Architecture):
    """One candidate: a field per choice, with a tuple of one value per block where blocks choose for themselves."""

    width: int
    hidden: tuple[int, ...]
    activation: tuple[str, ...]

    @property
    def depth(self) -> int:
        """Number of blocks: what MLflow plots."""
        return len(self.hidden)


@dataclass(frozen=True)
class MixerConfig:
    """Flags of the command line, as ``--width 16 32 --blocks 2 3``; each has a default, and its docstring is its help.

    ``Count`` is a whole number from 1 on: another is refused, by the name of its flag, before anything starts.
    """

    width: tuple[Count, ...] = (16, 24, 32, 48)
    """Features of a patch, one choice for the whole net."""
    hidden: tuple[Count, ...] = (16, 32, 64, 96)
    """Hidden features, chosen for each block."""
    activation: tuple[Literal["relu", "gelu", "silu"], ...] = ("relu", "gelu", "silu")
    """Activations, chosen for each block."""
    blocks: tuple[Count, ...] = (2, 3, 4)
    """Numbers of blocks."""
    patch: Count = 2
    """Side of a square patch, in pixels."""


class Mixer(Subnet):
    """The network of one architecture, which can also compute what a smaller one would, with leading parts of its weights."""

    def __init__(self, sizes: dict[str, Any], arch: MixerArchitecture) -> None:
        super().__init__()
        self.arch, self.outputs, self.rate = arch, sizes["outputs"], sizes.get("drop_path_rate", 0.0)
        patches = sizes["patches"]
        self.embed = EntangledPatchEmbed(sizes["in_chans"], arch.width, sizes["patch"])
        self.norms = nn.ModuleList(EntangledLayerNorm(arch.width) for _ in range(1 + 2 * arch.depth))
        self.mix = nn.ModuleList(EntangledLinear(patches, patches) for _ in arch.hidden)
        self.wide = nn.ModuleList(EntangledLinear(arch.width, hidden) for hidden in arch.hidden)
        self.narrow = nn.ModuleList(EntangledLinear(hidden, arch.width) for hidden in arch.hidden)
        self.head = EntangledLinear(arch.width, self.outputs)

    def forward(self, images: Tensor, arch: MixerArchitecture | None = None) -> Tensor:
        """Outputs (batch, outputs) of ``arch``, its own where none is given."""
        arch = arch or self.arch
        x = self.embed(images, arch.width)
        for i, (hidden, activation) in enumerate(zip(arch.hidden, arch.activation, strict=True)):
            act = getattr(F, activation)
            mixed = act(self.mix[i](self.norms[1 + 2 * i](x).mT, x.shape[1])).mT
            x = x + drop_path(mixed, self.rate, self.training)
            features = self.narrow[i](act(self.wide[i](self.norms[2 + 2 * i](x), hidden)), arch.width)
            x = x + drop_path(features, self.rate, self.training)
        return self.head(self.norms[0](x).mean(dim=1), self.outputs)

    def reset_parameters(self, *, weight_init: str, pos_embed_std: float, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew: matrices by Xavier's rule, biases 0, scales 1, whatever the recipe says."""
        for name, weight in self.named_parameters():
            if weight.ndim == 1:
                nn.init.constant_(weight, float("norms" in name and name.endswith("weight")))
            else:
                nn.init.xavier_uniform_(weight.flatten(1), generator=generator)


def supernet(*, drop_path_rate: float = 0.0, **sizes: Any) -> LeadingSupernet[MixerArchitecture]:
    """The network of the largest architecture, whose weights serve all others; built from what ``build`` calls sizes."""
    largest, settings = MixerArchitecture.from_dict(sizes["largest"]), {**sizes, "drop_path_rate": drop_path_rate}
    return LeadingSupernet(partial(Mixer, settings), largest, cost=partial(cost, sizes), settings=settings)


def cost(sizes: dict[str, Any], arch: MixerArchitecture) -> Cost:
    """Exactly what a subnet holds and multiplies, before it is made."""
    n, w, pixels = sizes["patches"], arch.width, sizes["in_chans"] * sizes["patch"] ** 2
    params = (pixels + 1) * w + 2 * w + (w + 1) * sizes["outputs"]
    params += sum(4 * w + n * n + n + 2 * w * hidden + hidden + w for hidden in arch.hidden)
    return Cost(params, n * w * pixels + w * sizes["outputs"] + sum(w * n * n + 2 * n * w * h for h in arch.hidden))


def build(config: MixerConfig, ends: Ends) -> Geometry[MixerArchitecture]:
    """From flags and data to the space and the supernet's arguments."""
    chans, height, width = ends.input_shape
    grid, rest = divmod(height, config.patch)
    if height != width or rest or grid > 32:
        raise UserError(f"--patch {config.patch} makes no grid of at most 32 x 32 patches of {height} x {width} pixels")
    kinds = Choice("activation", config.activation, per="block")
    choices = [Choice("width", config.width), Choice("hidden", config.hidden, per="block"), kinds]
    space = SearchSpace(MixerArchitecture, choices, depth=config.blocks)
    sizes = {"in_chans": chans, "patch": config.patch, "patches": grid**2, "outputs": ends.outputs}
    sizes["largest"] = space.largest().to_dict()
    return Geometry(space, sizes, cost=partial(cost, sizes))


def for_ends(sizes: Mapping[str, Any], ends: Ends) -> dict[str, Any]:
    """The same networks for other classes; the number of patches, which their weights mix, must stay."""
    chans, height, _ = ends.input_shape
    if (height // sizes["patch"]) ** 2 != sizes["patches"]:
        raise UserError(f"a Mixer of {sizes['patches']} patches takes no images of {height} pixels")
    return {**sizes, "in_chans": chans, "outputs": ends.outputs}


FAMILY = Family(
    name="mixer",
    config=MixerConfig,
    architecture=MixerArchitecture,
    build=build,
    supernet=supernet,
    subnet=Mixer,
    description="An MLP-Mixer (NeurIPS 2021), weights shared",
    for_ends=for_ends,  # needed for other classes alone: raysearch transfer
)
"""What ``--family`` looks for."""
