"""Zero-cost proxies: what one batch, or none, says about a subnet before it is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raysearch.errors import UserError
from raysearch.space import Architecture
from raysearch.space.problem import SearchProblem
from raysearch.spaces import Supernet

A = TypeVar("A", bound=Architecture)

Loss = Callable[[Tensor, Tensor], Tensor]
"""Outputs and targets to a scalar."""


class Proxy(Protocol):
    """A number for a subnet from one batch; higher is meant to be better."""

    def __call__(self, subnet: nn.Module, images: Tensor, labels: Tensor, loss: Loss = F.cross_entropy, /) -> float:
        """Of a subnet, images (batch, chans, height, width) as it sees them, and labels (batch,)."""
        ...


def grad_norm(subnet: nn.Module, images: Tensor, labels: Tensor, loss: Loss = F.cross_entropy, /) -> float:
    """Euclidean norm of the loss's gradient, all parameters together (Abdelfattah et al. 2021)."""
    gradients = _gradients(subnet, loss(subnet(images), labels))
    return float(torch.stack([g.square().sum() for g in gradients.values()]).sum().sqrt())


def snip(subnet: nn.Module, images: Tensor, labels: Tensor, loss: Loss = F.cross_entropy, /) -> float:
    """Sum of what each weight means to the loss, ``|weight * gradient|`` (Lee et al. 2019, as a score of networks)."""
    gradients = _gradients(subnet, loss(subnet(images), labels))
    return float(torch.stack([(p.detach() * gradients[n]).abs().sum() for n, p in subnet.named_parameters()]).sum())


def dss(subnet: nn.Module, images: Tensor, labels: Tensor, loss: Loss = F.cross_entropy, /) -> float:
    """Synaptic diversity of attention plus saliency of all other matrices (Zhou et al. 2022, TF-TAS).

    Weights are replaced by their magnitudes for one pass of an image of ones; of images and labels only the shape is read.
    Attention counts with nuclear norms of weight and gradient, the rest with ``|weight * gradient|``; the sums are added as
    they are. The subnet's weights are as before afterwards.
    """
    signs = {name: p.detach().sign() for name, p in subnet.named_parameters()}
    with torch.no_grad():
        for p in subnet.parameters():
            p.abs_()
    gradients = _gradients(subnet, subnet(torch.ones_like(images[:1])).sum())
    total = 0.0
    for name, p in subnet.named_parameters():
        if p.ndim == 2 and ".attn." in name:
            norms = [torch.linalg.matrix_norm(matrix, ord="nuc") for matrix in (p.detach(), gradients[name])]
            total += float(norms[0] * norms[1])
        elif p.ndim == 2:
            total += float((p.detach() * gradients[name]).abs().sum())
    with torch.no_grad():
        for name, p in subnet.named_parameters():
            p.mul_(signs[name])
    return total


PROXIES: Mapping[str, Proxy] = {"grad_norm": grad_norm, "snip": snip, "dss": dss}
"""Proxies by name."""


def _gradients(subnet: nn.Module, value: Tensor) -> dict[str, Tensor]:
    """Of each parameter; zeros where ``value`` does not depend on it."""
    names, parameters = zip(*subnet.named_parameters(), strict=True)
    found = cast("tuple[Tensor | None, ...]", torch.autograd.grad(value, parameters, allow_unused=True))
    return {n: torch.zeros_like(p) if g is None else g for n, p, g in zip(names, parameters, found, strict=True)}


def proxy_best(
    problem: SearchProblem[A],
    supernet: Supernet[Any],
    images: Tensor,
    labels: Tensor,
    *,
    proxy: Proxy = snip,
    loss: Loss = F.cross_entropy,
    count: int,
    draws: int,
    seed: int,
) -> tuple[A, ...]:
    """Of ``draws`` random architectures the ``count`` that a proxy likes best, best first: a start for a search.

    Args:
        problem: the space and its budget.
        supernet: whose weights the subnets inherit. Fresh ones serve better than trained ones (docs/algorithms.md).
        images: one batch as the network sees it, on the supernet's device: (batch, chans, height, width).
        labels: (batch,).
        proxy: one of :data:`PROXIES`, or your own.
        loss: of outputs and targets.
        count: how many are wanted at most.
        draws: how many are looked at; fewer where the band holds fewer.
        seed: of the draws.

    Raises:
        UserError: ``count`` is above ``draws``.

    """
    if count > draws:
        raise UserError(f"count is {count}, but only {draws} architectures are drawn; raise draws")
    values: dict[A, float] = {}
    for i in range(draws):
        arch = problem.sample(Random(f"{seed}/proxy/{i}"), values)
        if arch is None:
            break
        values[arch] = proxy(supernet.extract(arch).eval(), images, labels, loss)
    return tuple(sorted(values, key=lambda arch: (-values[arch], arch.id))[:count])
