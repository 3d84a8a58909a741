"""A teacher's logits of all training images, computed once where training will run."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import ray
import torch
from torch import Tensor

from raysearch.distributed.files import NodeFile, local_path
from raysearch.distributed.growth import instead, share_of
from raysearch.distributed.room import NoNodeError, awaited, check_room
from raysearch.nodes import NodesConfig
from raysearch.tasks.task import Task
from raysearch.training.teacher import TeacherFile, logits_of

log = logging.getLogger(__name__)


def teacher_logits(
    teacher: NodeFile, task: Task, *, images: str, nodes: NodesConfig | None = None, say: Callable[[str], None] = log.warning
) -> Tensor:
    """Logits of every training image without augmentation, (items, classes) in float16.

    Computed on a GPU of those kept for training, else in this process. ``images`` is the digest of the splits that must be
    found there, ``nodes`` what a cluster may start for training. ``say`` gets a line a minute while no GPU is free.
    """
    share = share_of("training", nodes)
    if not share.accelerated:
        return torch.from_numpy(_logits(teacher, task, images))
    need = share.need("teacher", share.asks())
    check_room(need)
    computed = ray.remote(**need.options)(_logits).remote(teacher, task, images)
    try:
        return torch.from_numpy(np.array(awaited(computed, need, say)))
    except NoNodeError as error:
        return teacher_logits(teacher, task, images=images, nodes=instead(share.config, error, say), say=say)


def _logits(teacher: NodeFile, task: Task, images: str) -> np.ndarray:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = TeacherFile.read(local_path(teacher)).build(task.preprocessing(), device)
    splits = task.splits(expected_digest=images)
    return logits_of(network, task.evaluation_inputs(splits.train), device).numpy()
