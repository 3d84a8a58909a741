"""A pretrained supernet prepared where training will run: its head trained, its parts put in the order of their worth."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import ray
import torch

from raysearch.distributed.files import NodeFile, local_path
from raysearch.distributed.growth import instead, share_of
from raysearch.distributed.room import NoNodeError, awaited, check_room
from raysearch.nodes import NodesConfig
from raysearch.spaces import Family
from raysearch.spaces.pretrained import Prepared
from raysearch.tasks.images.cache import open_cache
from raysearch.tasks.images.device import DeviceImages
from raysearch.tasks.task import Task
from raysearch.training import checkpoint

log = logging.getLogger(__name__)

BATCH = 64
"""Images of a pass with gradients."""


def prepared(
    family: Family[Any, Any],
    settings: Mapping[str, Any],
    weights: NodeFile,
    images: NodeFile,
    *,
    task: Task,
    nodes: NodesConfig | None = None,
    say: Callable[[str], None] = log.warning,
) -> Prepared:
    """What the family's preparation gives for these weights and cached training images.

    On a GPU of those kept for training, else in this process; ``nodes``: what a cluster may start for it. ``say`` gets a
    line a minute while no GPU is free.
    """
    share = share_of("training", nodes)
    if not share.accelerated:
        return _prepare(family, settings, weights, images, task)
    need = share.need("preparation of the supernet", share.asks())
    check_room(need)
    made = ray.remote(**need.options)(_prepare).remote(family, settings, weights, images, task)
    try:
        return awaited(made, need, say)
    except NoNodeError as error:
        return prepared(family, settings, weights, images, task=task, nodes=instead(share.config, error, say), say=say)


def _prepare(
    family: Family[Any, Any], settings: Mapping[str, Any], weights: NodeFile, images: NodeFile, task: Task
) -> Prepared:
    assert family.pretrained is not None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    held = DeviceImages(open_cache(local_path(images)), device, room_bytes=0)
    batches = [held.batch(slice(start, start + BATCH)) for start in range(0, len(held), BATCH)]
    tensors, _ = checkpoint.read(local_path(weights))
    return family.pretrained.prepare(
        settings, tensors, [(task.normalise(inputs), targets) for inputs, targets in batches], task.loss
    )
