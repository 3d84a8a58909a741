"""What every entangled supernet offers, whatever its search space."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Generic, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raysearch.errors import UserError
from raysearch.nn.calibration import estimate_statistics
from raysearch.space import Architecture
from raysearch.space.cost import Cost

WeightInit = Literal["trunc_normal", "xavier"]
"""Published initial weights of vision transformers, or Xavier's, which start small networks much faster."""

A = TypeVar("A", bound=Architecture)

Calibration = Iterable[Tensor]
"""Batches of training inputs as the network sees them, (batch, ...) each, from which running statistics are estimated; read
anew for every subnet."""


class Supernet(nn.Module, Generic[A]):
    """A network whose weights serve every architecture of a space. Abstract: a space implements all of it.

    The architecture is an argument, never a mode: nothing is set before a call and nothing can go stale. Built on the meta
    device it draws no weights, but holds all that a state dict does not: loading one makes it whole.
    """

    def forward(self, images: Float[Tensor, "batch chans height width"], arch: A) -> Tensor:
        """Output of the subnet ``arch`` for ``images``."""
        raise NotImplementedError

    def extract(self, arch: A, calibration: Calibration | None = None) -> nn.Module:
        """The subnet as a plain module with contiguous weights of its own: ``subnet(images)`` equals ``self(images, arch)``.

        A family with running statistics re-estimates them from ``calibration`` where it is given (with
        :func:`~raysearch.nn.calibration.estimate_statistics`), always on the copy: processes share a supernet's memory.
        """
        raise NotImplementedError

    def cost(self, arch: A) -> Cost:
        """Closed-form cost; ``cost(arch).params`` is exactly what ``extract(arch)`` holds."""
        raise NotImplementedError

    def reset_parameters(
        self, *, weight_init: WeightInit, pos_embed_std: float, generator: torch.Generator | None = None
    ) -> None:
        """Draw all weights anew, the same for generators of the same state. ``generator`` None: torch's global one."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Constructor arguments as JSON values, enough to build an equal supernet."""
        raise NotImplementedError


class Subnet(nn.Module):
    """One architecture as a network of its own, with fresh weights until some are loaded. Abstract: a space implements it."""

    def forward(self, images: Float[Tensor, "batch chans height width"]) -> Tensor:
        """Output for ``images``."""
        raise NotImplementedError

    def reset_parameters(
        self, *, weight_init: WeightInit, pos_embed_std: float, generator: torch.Generator | None = None
    ) -> None:
        """Draw all weights anew by the supernet's rules, each tensor from the subnet's own sizes."""
        raise NotImplementedError


class LeadingSupernet(Supernet[A]):
    """A supernet that is its largest subnet: smaller ones use the leading part of each of its tensors, along every axis.

    For families whose networks can do that themselves: called as ``network(images, arch)``, the network of a larger
    architecture computes what that of ``arch`` would, with leading parts of its weights (:mod:`raysearch.nn.entangled`).

    Args:
        make: from an architecture to its network (a :class:`Subnet`), whose tensors have the same names in all networks.
        largest: the architecture that holds all others.
        cost: closed-form cost of an architecture.
        settings: constructor arguments of the supernet, as :meth:`settings` gives them back.

    """

    def __init__(
        self, make: Callable[[A], nn.Module], largest: A, *, cost: Callable[[A], Cost], settings: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self._make, self._cost, self._settings = make, cost, dict(settings)
        self.net: Any = make(largest)
        matcher: Any = getattr(self.net, "group_matcher", None)
        if matcher is not None:
            self.group_matcher = partial(layers_below, "net", matcher)

    def forward(self, images: Float[Tensor, "batch chans height width"], arch: A) -> Tensor:
        """Output of the subnet ``arch`` for ``images``."""
        return self.net(images, arch)

    def extract(self, arch: A, calibration: Calibration | None = None) -> nn.Module:
        """The subnet with weights of its own, in the mode, on the device and of the type of this supernet.

        Its running statistics, if it has some, are estimated from ``calibration`` where that is given.
        """
        weights: dict[str, Tensor] = self.net.state_dict()
        subnet = self._make(arch)
        leading = {
            name: weights[name][tuple(slice(size) for size in own.shape)].clone(memory_format=torch.contiguous_format)
            for name, own in subnet.state_dict().items()
        }
        subnet.load_state_dict(leading, assign=True)
        subnet.to(next(iter(leading.values())).device).train(self.training)
        return subnet if calibration is None else estimate_statistics(subnet, calibration)

    def cost(self, arch: A) -> Cost:
        """Closed-form cost."""
        return self._cost(arch)

    def reset_parameters(
        self, *, weight_init: WeightInit, pos_embed_std: float, generator: torch.Generator | None = None
    ) -> None:
        """Draw all weights anew by the largest subnet's rules."""
        self.net.reset_parameters(weight_init=weight_init, pos_embed_std=pos_embed_std, generator=generator)

    def settings(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return dict(self._settings)


def layers_below(place: str, group_matcher: Callable[..., Mapping[str, Any]], coarse: bool = False) -> dict[str, Any]:
    """Timm's patterns of layers for a network whose parameters' names begin with ``place``."""

    def longer(pattern: Any) -> Any:
        if not isinstance(pattern, str):
            return [longer(part) for part in pattern]
        return rf"^{place}\.(?:{_ANCHOR.sub('', pattern)})"

    def ordered(pattern: Any) -> Any:
        return longer(pattern) if isinstance(pattern, str) else [(longer(p), *rest) for p, *rest in pattern]

    return {
        name: ordered(pattern) if name == "blocks" else longer(pattern)
        for name, pattern in group_matcher(coarse=coarse).items()
    }


_ANCHOR = re.compile(r"(?<![\[\\])\^")
"""The sign for the beginning of a name, in a pattern; after a bracket it means another thing."""

NAMED = 3
"""How many keys an error lists."""


def check_layout(state_dict: Mapping[str, Tensor], *, expected: Mapping[str, Tensor]) -> None:
    """Raises UserError of one line when ``state_dict`` has not exactly the keys and shapes of ``expected``."""
    missing = [name for name in expected if name not in state_dict]
    unexpected = [name for name in state_dict if name not in expected]
    reshaped = [
        f"{name} {tuple(state_dict[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state_dict and state_dict[name].shape != tensor.shape
    ]
    problems = [
        f"{len(names)} {kind}: {', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if names
    ]
    if problems:
        raise UserError(f"weights do not fit this supernet: {'; '.join(problems)}")
