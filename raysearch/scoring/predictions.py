"""What a subnet says of each item, beyond right and wrong: for the report on a finished search."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from raysearch.nn.precision import Precision, autocast
from raysearch.store.predictions import Predictions
from raysearch.tasks.images.device import DeviceImages, image_format
from raysearch.tasks.task import Task

PICTURES = 12
"""How many of the most confident mistakes are kept as pictures."""


@torch.inference_mode()
def predict(
    subnet: nn.Module, images: DeviceImages, *, task: Task, batch_size: int, precision: Precision
) -> Predictions | None:
    """The most likely class of each item and its probability, in one pass; None for a task that is no classification.

    Batches and precision are those of scoring, so that as many are right here as there.
    """
    subnet = subnet.to(images.device).to(memory_format=image_format(images.device)).eval()
    classes: list[Tensor] = []
    confidences: list[Tensor] = []
    with autocast(images.device, precision):
        for start in range(0, len(images), batch_size):
            pixels, _ = images.batch(slice(start, start + batch_size))
            said = task.classify(subnet(task.normalise(pixels)))
            if said is None:
                return None
            classes.append(said[0])
            confidences.append(said[1])
    found = Predictions(
        labels=images.cached.labels.astype("int64"),
        predicted=torch.cat(classes).cpu().numpy(),
        confidence=torch.cat(confidences).cpu().numpy(),
    )
    shown = {item: task.picture(images.cached.images[item]) for item in found.confident_mistakes(PICTURES)}
    return replace(found, pictures={item: picture for item, picture in shown.items() if picture is not None})
