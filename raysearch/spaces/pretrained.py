"""How a family's supernet begins as a network that timm has pretrained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
"""Outputs and targets of a batch to their mean loss."""


@dataclass(frozen=True, eq=False, slots=True)
class PretrainedNetwork:
    """A network of timm's as a supernet."""

    settings: Mapping[str, Any]
    """Constructor arguments of the supernet, for the images and classes that the network was made for."""
    weights: Mapping[str, Tensor]
    """The supernet's state dict."""
    config: Mapping[str, Any]
    """What the network says of the family's configuration, as JSON values."""
    preprocessing: Mapping[str, Any]
    """How it was trained to see images, by the names of :meth:`~raysearch.tasks.task.Task.preprocessing`."""
    origin: Mapping[str, str] = field(default_factory=dict[str, str])
    """Where its weights are from and on which terms, by what model cards call it, as ``license``: as far as it says."""


@dataclass(frozen=True, eq=False, slots=True)
class Prepared:
    """A pretrained supernet that knows the classes, its parts in the order of what they are worth."""

    weights: Mapping[str, Tensor]
    """The supernet's state dict: the same function for the largest subnet."""
    settings: Mapping[str, Any]
    """Settings of the family's configuration that follow from the order, by names as ``net.order``."""
    importance: Mapping[str, Tensor]
    """What each part is worth, as files keep it."""
    words: str
    """What was done, in a sentence."""


@dataclass(frozen=True, eq=False, slots=True)
class Pretraining:
    """What a family offers that makes pretrained networks elastic."""

    read: Callable[[str, Path | None], PretrainedNetwork]
    """From a name in timm, and a file of weights or None for timm's own. Executes nothing of the file. Raises UserError for
    what is not known, not there, or has a feature that the family lacks, which is named."""
    prepare: Callable[[Mapping[str, Any], Mapping[str, Tensor], Sequence[tuple[Tensor, Tensor]], Loss], Prepared]
    """From the supernet's arguments and weights, batches of training images on the device where to compute, and the loss."""
    decides: tuple[str, ...]
    """Names of the supernet's arguments that preparation decides."""
