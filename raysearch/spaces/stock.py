"""Networks of timm's as they are, to be trained and judged beside those of a search: a family of single networks."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from raysearch.errors import UserError
from raysearch.space import Architecture, Cost
from raysearch.spaces.family import Family, Geometry
from raysearch.spaces.supernet import Subnet, WeightInit, layers_below
from raysearch.tasks.task import Ends


@dataclass(frozen=True)
class StockNetwork(Architecture):
    """One network of timm's, with how it sees inputs that were prepared as those of a search."""

    name: str
    """Of the architecture in timm."""
    arguments: str
    """Its constructor arguments, as JSON."""
    scale: tuple[float, ...] = ()
    shift: tuple[float, ...] = ()
    """Per channel, what makes of our normalised inputs those of its own normalisation; nothing where they are alike."""


class Stock(Subnet):
    """A network of timm's.

    Args:
        arch: which one.

    """

    scale: Tensor
    shift: Tensor

    def __init__(self, arch: StockNetwork) -> None:
        super().__init__()
        self._arch = arch
        self.network: Any = _network(arch)
        for name in ("scale", "shift"):
            self.register_buffer(name, torch.tensor(getattr(arch, name)).view(-1, 1, 1), persistent=False)
        matcher: Any = getattr(self.network, "group_matcher", None)
        if matcher is not None:
            self.group_matcher = partial(layers_below, "network", matcher)

    def forward(self, images: Float[Tensor, "batch chans height width"]) -> Tensor:
        """Its output."""
        if self._arch.scale:
            images = torch.addcmul(self.shift, images, self.scale)
        return self.network(images)

    def reset_parameters(
        self, *, weight_init: WeightInit, pos_embed_std: float, generator: torch.Generator | None = None
    ) -> None:
        """Draw all weights anew, by timm's own rules for the network."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch.initial_seed() if generator is None else generator.initial_seed())
            self.network.load_state_dict(_network(self._arch).state_dict())


def _network(arch: StockNetwork) -> nn.Module:
    import timm  # seconds, for the searches that have such networks beside them

    return timm.create_model(arch.name, pretrained=False, **json.loads(arch.arguments))


def _subnet(settings: Mapping[str, Any], arch: StockNetwork) -> Stock:
    return Stock(arch)


def _not_searched(*_: Any, **__: Any) -> Any:
    raise UserError("networks of timm's as they are hold no subnets: there is nothing to search")


@dataclass(frozen=True, slots=True)
class StockConfig:
    """Nothing can be set."""


STOCK: Family[StockConfig, StockNetwork] = Family(
    name="timm",
    config=StockConfig,
    architecture=StockNetwork,
    build=cast(Callable[[StockConfig, Ends], Geometry[StockNetwork]], _not_searched),
    supernet=_not_searched,
    subnet=_subnet,
    description="A network of timm's as it is",
    undecayed=("cls_token", "reg_token", "pos_embed", "dist_token", "relative_position_bias_table"),
)
"""What trains and judges single networks of timm's by the same code as subnets. No search offers it."""


@dataclass(frozen=True, eq=False, slots=True)
class FoundStock:
    """A network of timm's, fit for the images, with the weights that its training begins with."""

    arch: StockNetwork
    weights: Mapping[str, Tensor]
    """Of :class:`Stock`."""
    cost: Cost
    fresh: str | None
    """Why they are drawn anew; None: they were trained before, but for the head."""


def check_timm_name(name: str, flag: str) -> None:
    """Raises UserError, with near names, for one that timm has not; with a source, as ``local-dir:FOLDER`` is any."""
    import timm

    if ":" not in name and not timm.is_model(name.partition(".")[0]):
        near = get_close_matches(name, timm.list_models(), n=3)
        words = f"; near it are {', '.join(near)}" if near else ""
        raise UserError(f"{flag} {name}: timm has no network of that name{words}")


def find_stock(
    name: str, ends: Ends, preprocessing: Mapping[str, Any], *, drop_path: float, seed: int, flag: str = "--baselines"
) -> FoundStock:
    """A network of timm's for images of a task, with a new head; pretrained where its weights are in timm's hub or its cache.

    Args:
        name: in timm, as ``vit_tiny_patch16_224`` or ``local-dir:FOLDER``.
        ends: images (chans, height, width) in, classes out.
        preprocessing: of the task, by :meth:`~raysearch.tasks.task.Task.preprocessing`.
        drop_path: stochastic depth, where the network has it.
        seed: of what is drawn anew.
        flag: that named it, for messages.

    Raises:
        UserError: timm has no such network, or it cannot see such images.

    """
    check_timm_name(name, flag)
    if len(ends.input_shape) != 3:
        raise UserError(f"{flag} {name}: networks of timm's take images (chans, height, width), not {ends.input_shape}")
    arguments = {"num_classes": ends.outputs, "in_chans": ends.input_shape[0], "drop_path_rate": drop_path}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, fresh = _with_weights(name, arguments, ends.input_shape[1:], flag=flag)
    scale, shift = ((), ()) if fresh is not None else _seen_as(model, preprocessing)
    # Those of a folder's config.json too.
    made = {**getattr(model, "_model_args", arguments), "num_classes": ends.outputs}
    known: dict[str, Any] = model.pretrained_cfg
    arch = StockNetwork(str(known.get("architecture") or name.partition(".")[0]), json.dumps(made), scale, shift)
    network = Stock(arch)
    network.network.load_state_dict(model.state_dict())
    return FoundStock(arch, network.state_dict(), _cost(network, ends, name=name, flag=flag), fresh)


def _with_weights(name: str, arguments: Mapping[str, Any], size: tuple[int, ...], *, flag: str) -> tuple[Any, str | None]:
    """The network, and why its weights are fresh where they are."""
    import timm

    fresh: str | None = None
    for pretrained in (True, False):
        # Not every network asks for the size of its images, or has stochastic depth: timm tells by refusing the name.
        for left_out in ((), ("img_size",), ("drop_path_rate",), ("img_size", "drop_path_rate")):
            given: Any = {part: value for part, value in {**arguments, "img_size": size}.items() if part not in left_out}
            if pretrained:  # with the classes that it knows, whatever its file says of them
                del given["num_classes"]
            try:
                model: Any = timm.create_model(name, pretrained=pretrained, **given)
            except TypeError as error:
                if "unexpected keyword" not in str(error):
                    raise
            except (OSError, RuntimeError, ValueError, AssertionError) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                if not pretrained:
                    raise UserError(f"{flag} {name} cannot be made for images of {size}: {reason:.160}") from None
                fresh = f"its weights cannot be had from the hub or its cache ({reason:.120})"
                break
            else:
                if pretrained:
                    model.reset_classifier(arguments["num_classes"])
                return model, fresh
    raise UserError(f"{flag} {name}: timm makes no such network for {arguments['num_classes']} classes")


def _seen_as(model: Any, preprocessing: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scale and shift from our normalised inputs, ``x``, to the network's own: ``x * scale + shift``."""
    from timm.data.config import resolve_data_config

    ours, own = preprocessing, resolve_data_config({}, pretrained_cfg=model.pretrained_cfg)
    if "mean" not in ours or "std" not in ours:
        return (), ()
    mean, std = (tuple(map(float, own[part])) for part in ("mean", "std"))
    if len(ours["mean"]) == 1 and len(mean) > 1:
        mean, std = ((sum(values) / len(values),) for values in (mean, std))
    if len(mean) != len(ours["mean"]) or (mean, std) == (tuple(ours["mean"]), tuple(ours["std"])):
        return (), ()
    scale = tuple(s / t for s, t in zip(ours["std"], std, strict=True))
    return scale, tuple((m - n) / t for m, n, t in zip(ours["mean"], mean, std, strict=True))


def _cost(network: Stock, ends: Ends, *, name: str, flag: str) -> Cost:
    """Parameters that it holds, multiply-accumulates that PyTorch counts. Raises UserError where such images do not fit."""
    described = copy.deepcopy(network).to("meta").eval()  # where all operations are counted: a CPU's fused attention is not
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            described(torch.zeros(1, *ends.input_shape, device="meta"))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{flag} {name} cannot see images of {ends.input_shape}: {reason:.160}") from None
    return Cost(params=sum(p.numel() for p in network.parameters()), macs=counter.get_total_flops() // 2)
