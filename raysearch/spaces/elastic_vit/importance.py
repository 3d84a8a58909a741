"""What each head, neuron, channel and block of a trained network is worth, and the network in the order of that.

One pass over training images with gradients, and one without for each block left out. Heads, neurons and channels are compared
among themselves only, never with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raysearch.nn.entangled import EntangledLayerNorm
from raysearch.spaces.elastic_vit.network import ElasticNet
from raysearch.spaces.elastic_vit.sizes import ElasticSizes

Loss = Callable[[Tensor, Tensor], Tensor]
"""Outputs and targets to the mean loss of a batch."""


@dataclass(frozen=True, eq=False, slots=True)
class Importance:
    """Higher is worth more. On the CPU, in float32."""

    heads: Float[Tensor, "blocks heads"]
    """By block: change of an image's loss, to first order, if the head gave nothing; the mean of its size over images."""
    neurons: Float[Tensor, "blocks hidden"]
    """By block: the same of a hidden neuron for one token; the mean of its size over images and tokens."""
    channels: Float[Tensor, " embed"]
    """Of the residual stream: mean size of what comes out of the norms, over all of them."""
    blocks: Float[Tensor, " blocks"]
    """By how much the mean loss rises without the block."""

    @property
    def order(self) -> tuple[int, ...]:
        """Blocks, counted from 0, the most important first: those of a subnet of k blocks are the first k."""
        return tuple(self.blocks.argsort(descending=True, stable=True).tolist())

    def tensors(self) -> dict[str, Tensor]:
        """By name, as files hold them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Inverse of :meth:`tensors`."""
        return cls(**{f.name: tensors[f.name] for f in fields(cls)})


def measure(net: ElasticNet, batches: Sequence[tuple[Tensor, Tensor]], loss: Loss) -> Importance:
    """The importance of all parts of a whole network, in evaluation mode, on its device and in float32.

    Args:
        net: with a head that was trained on these classes; its weights stay as they are.
        batches: inputs and targets on the network's device, a thousand images or two; they must be training images.
        loss: of the task.

    """
    sizes, device = net.sizes, next(net.parameters()).device
    found = Importance(
        heads=torch.zeros(sizes.depth, sizes.num_heads, device=device),
        neurons=torch.zeros(sizes.depth, sizes.hidden_features, device=device),
        channels=torch.zeros(sizes.embed_dim, device=device),
        blocks=torch.zeros(sizes.depth, device=device),
    )
    images, was_training = sum(len(inputs) for inputs, _ in batches), net.training
    net.eval()
    given: list[tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]] = []
    """What went into the layers that are watched, where its importance is summed up, and how."""
    with ExitStack() as hooks, torch.enable_grad():
        for i, block in _blocks(net):
            hooks.enter_context(_watched(block.attn.proj, given, found.heads[i], _of_heads))
            hooks.enter_context(_watched(block.mlp.fc2, given, found.neurons[i], _of_neurons))
        for module in net.modules():
            if isinstance(module, EntangledLayerNorm):
                hooks.enter_context(_seen(module, found.channels))
        for inputs, targets in batches:
            # Of the sum over images: what one image contributes then does not depend on the others of its batch.
            total = loss(net(inputs), targets) * len(inputs)
            gradients = torch.autograd.grad(total, [x for x, _, _ in given])
            for (x, values, part), gradient in zip(given, gradients, strict=True):
                values += part(x.detach() * gradient)
            given.clear()
    for values in (found.heads, found.neurons, found.channels):
        values /= images
    with torch.no_grad():
        whole = _mean_loss(net, batches, loss)
        for i, block in _blocks(net):
            handle = block.register_forward_hook(lambda _block, given, _out: given[0])
            try:
                found.blocks[i] = _mean_loss(net, batches, loss) - whole
            finally:
                handle.remove()
    net.train(was_training)
    return Importance(**{name: values.cpu() for name, values in found.tensors().items()})


def _blocks(net: ElasticNet) -> Iterator[tuple[int, Any]]:
    return ((int(place), block) for place, block in net.blocks.items())


@contextmanager
def _watched(
    layer: Any,
    given: list[tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]],
    values: Tensor,
    part: Callable[[Tensor], Tensor],
) -> Generator[None]:
    """Keep what goes into ``layer`` in each forward pass."""
    handle = layer.register_forward_pre_hook(lambda _layer, inputs: given.append((inputs[0], values, part)))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _seen(norm: nn.Module, values: Tensor) -> Generator[None]:
    """Add the size of what comes out of ``norm`` in each forward pass to ``values``."""

    def after(_norm: nn.Module, _inputs: object, outputs: Tensor) -> None:
        values.add_(outputs.detach().abs().flatten(1, -2).mean(dim=1).sum(dim=0) if outputs.ndim > 2 else outputs.abs().sum(0))

    handle = norm.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def _of_heads(products: Float[Tensor, "batch tokens heads dim"]) -> Float[Tensor, " heads"]:
    return products.sum(dim=(1, 3)).abs().sum(dim=0)


def _of_neurons(products: Float[Tensor, "batch tokens hidden"]) -> Float[Tensor, " hidden"]:
    return products.abs().mean(dim=1).sum(dim=0)


def _mean_loss(net: ElasticNet, batches: Iterable[tuple[Tensor, Tensor]], loss: Loss) -> Tensor:
    losses = [(loss(net(inputs), targets), len(inputs)) for inputs, targets in batches]
    return torch.stack([value * count for value, count in losses]).sum() / sum(count for _, count in losses)


# --- the network in that order ----------------------------------------------------------------------------------------

_AXES: Mapping[str, tuple[str | None, ...]] = {
    "patch_embed.proj.weight": ("embed", None, None, None),
    "cls_token": (None, None, "embed"),
    "reg_token": (None, None, "embed"),
    "pos_embed": (None, None, "embed"),
    "attn.qkv": (None, "heads", None, "embed"),
    "attn.q_bias": ("heads", None),
    "attn.proj.weight": ("embed", "heads", None),
    "mlp.fc1.weight": ("hidden", "embed"),
    "mlp.fc1.bias": ("hidden",),
    "mlp.fc2.weight": ("embed", "hidden"),
    "head.weight": (None, "embed"),
    "head.bias": (None,),
}
"""What each axis of a weight is made of, by the end of its name; all others have one axis, of channels."""


def permuted(weights: Mapping[str, Tensor], importance: Importance) -> dict[str, Tensor]:
    """Weights of an :class:`ElasticNet` with the most important heads, neurons and channels first: the same function.

    Never inside a head. Blocks stay where they are; their order is a setting.
    """
    made: dict[str, Tensor] = {}
    channels = importance.channels.argsort(descending=True, stable=True)
    for name, weight in weights.items():
        place, _, rest = name.removeprefix("blocks.").partition(".") if name.startswith("blocks.") else ("", "", name)
        for axis, kind in enumerate(_AXES.get(rest, ("embed",))):
            if kind is None:
                continue
            order = channels
            if kind != "embed":
                values = importance.heads if kind == "heads" else importance.neurons
                order = values[int(place)].argsort(descending=True, stable=True)
            weight = weight.index_select(axis, order.to(weight.device))
        made[name] = weight.clone(memory_format=torch.contiguous_format)
    return made


def with_order(sizes: ElasticSizes, importance: Importance) -> ElasticSizes:
    """The sizes of a network whose depth takes the most important blocks first."""
    return replace(sizes, order=importance.order)
