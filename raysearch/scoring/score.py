"""Scoring a subnet: what a task calls good, and one pass over cached images."""

from __future__ import annotations

import math
import time
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from raysearch.errors import UserError
from raysearch.nn.precision import Precision, autocast
from raysearch.search.protocol import ByItem, Failure, Result, pack
from raysearch.search.racing import Part, Race
from raysearch.space.cost import Cost
from raysearch.tasks.images.device import DeviceImages, image_format
from raysearch.tasks.task import Normalise, Task


@torch.inference_mode()
def score(
    subnet: nn.Module,
    images: DeviceImages,
    *,
    task: Task,
    cost: Cost,
    normalise: Normalise,
    batch_size: int,
    precision: Precision,
    part: Part | None = None,
) -> Result | Failure:
    """One pass of ``subnet`` over all ``images``, on their device; the score is the mean of the task's outcomes.

    With a sample (``part``), the pass is over its images, and the score estimates that on all; the loss is their weighted mean.

    With a race, the images come in its order and the pass ends at the first look that shows the candidate to be out of it.
    The result then is excluded as ``"raced"``: score and loss are means over the images seen, and ``outcomes`` holds False or
    NaN for those not seen. A candidate that stays in the race to the end has the result of a pass without one, but for the
    rounding of other batches (the loss to about 1e-6 of itself in float32).

    Returns a Failure when losses or outcomes are not finite: such a candidate is recorded as failed, it does not end a search.
    Raises UserError for a task that does not judge item by item.
    """
    started = time.perf_counter()
    device = images.device
    subnet = subnet.to(device).to(memory_format=image_format(device)).eval()
    judged: list[Tensor] = []
    losses: list[Tensor] = []
    order = incumbent = weights = None
    race = part if isinstance(part, Race) else None
    sample = part.sample if isinstance(part, Race) else part
    if sample is not None:
        order = sample.index
    if race is not None:
        order = race.order(len(images))
        incumbent, weights = race.by_item(len(images))[order], race.weights(order)
        batch_size = math.ceil(race.block / math.ceil(race.block / batch_size))  # a look after whole batches
    looked, raced = 0, False
    # One context for all batches: within it, weights are converted once.
    with autocast(device, precision):
        count = len(images) if order is None else len(order)
        for start in range(0, count, batch_size):
            chosen = slice(start, start + batch_size)
            pixels, labels = images.batch(chosen if order is None else order[chosen])
            outcomes, loss = task.judge(subnet(normalise(pixels)), labels)
            _require_by_item(outcomes, loss, task=task, items=len(labels))
            judged.append(outcomes)
            losses.append(loss)
            seen = start + len(outcomes)
            if race is not None and incumbent is not None and looked + race.block <= seen < count:
                looked, so_far = seen, torch.cat(judged).cpu().numpy()
                if raced := bool(np.isfinite(so_far).all()) and race.settled(incumbent, so_far, weights=weights):
                    break
    found: ByItem = torch.cat(judged).cpu().numpy()
    by_loss = torch.cat(losses).cpu().numpy()
    if not np.isfinite(by_loss).all():
        return Failure("outputs are not finite")
    if not np.isfinite(found).all():
        return Failure("outcomes are not finite")
    by_item = found
    if order is not None:
        by_item = np.full(len(images), False if found.dtype == bool else np.nan, found.dtype)
        by_item[order[: len(found)]] = found
    # Summed in float64, so that means do not depend on how the images were cut into batches.
    score, loss = float(found.mean(dtype=np.float64)), float(by_loss.mean(dtype=np.float64))
    if sample is not None and order is not None:
        of_part = partial(sample.mean_of_part, index=order[: len(found)])
        score, loss = of_part(found) if raced else sample.score(by_item[sample.index]), of_part(by_loss)
    return Result(
        score=score,
        loss=loss,
        items_seen=len(found),
        outcomes=pack(by_item),
        kind="bits" if found.dtype == bool else "float32",
        sample=None if sample is None else sample.id,
        excluded="raced" if raced else None,
        params=cost.params,
        macs=cost.macs,
        seconds=time.perf_counter() - started,
    )


def _require_by_item(outcomes: Tensor, loss: Tensor, *, task: Task, items: int) -> None:
    """Raises UserError unless both hold one value per item, of the kinds that a task may give."""
    for name, values, kinds in (("outcomes", outcomes, (torch.bool, torch.float32)), ("losses", loss, (torch.float32,))):
        if values.shape != (items,) or values.dtype not in kinds:
            wanted = " or ".join(str(kind).removeprefix("torch.") for kind in kinds)
            raise UserError(
                f"{type(task).__name__}.judge returned {name} of shape {tuple(values.shape)} and {values.dtype} for {items} "
                f"items; return shape ({items},), {wanted}"
            )
