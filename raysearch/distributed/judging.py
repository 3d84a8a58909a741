"""Networks with weights of their own, scored once each by a process of the cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from raysearch.distributed.cluster import answer, brief
from raysearch.distributed.device_lock import DeviceLock
from raysearch.distributed.evaluators import ATTEMPTS, EvaluatorConfig, plan_evaluators
from raysearch.distributed.files import NodeFile, local_path
from raysearch.distributed.growth import instead
from raysearch.distributed.network_file import NetworkFile
from raysearch.distributed.room import NoNodeError, Waiting, check_room, pending
from raysearch.distributed.supernet_scorer import evaluator_device
from raysearch.errors import UserError
from raysearch.nn.compiled import compile_blocks
from raysearch.scoring.latency import LatencyRule, device_name, measure
from raysearch.scoring.predictions import predict
from raysearch.scoring.score import score
from raysearch.search.protocol import Failure, Result, outcome_from_dict, outcome_to_dict
from raysearch.space import Cost
from raysearch.store.predictions import Predictions
from raysearch.tasks.images.cache import open_cache
from raysearch.tasks.images.device import DeviceImages, room_on
from raysearch.tasks.task import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a network does on the items of several splits."""

    outcomes: dict[str, Result | Failure]
    """By split."""
    predictions: Predictions | None = None
    """For the split that was asked for; None for a task that is no classification."""
    latency_ms: float | None = None
    """Measured, where that was asked for and the network computes on the device that is meant."""


@dataclass(frozen=True, slots=True)
class JudgingJob:
    """All that a process needs to score one network."""

    network: NetworkFile
    cost: Cost
    task: Task
    config: EvaluatorConfig
    """Batch size and precision."""
    images: Mapping[str, NodeFile]
    """Caches by split."""
    predicted: str | None = None
    """The split of which the network's predictions are wanted."""
    latency: LatencyRule | None = None
    """How its latency is measured; None: it is not."""


def _judge(job: JudgingJob) -> dict[str, Any]:
    """What a process of the cluster runs; outcomes as JSON values."""
    device, lock = evaluator_device(job.config)
    network = job.network.open()
    outcomes: dict[str, Any] = {}
    predictions: Predictions | None = None
    with lock.shared():
        for split, file in job.images.items():
            images = DeviceImages(open_cache(local_path(file)), device, room_bytes=room_on(device))
            outcome = score(
                network,
                images,
                task=job.task,
                cost=job.cost,
                normalise=job.task.normalise,
                batch_size=job.config.batch_size,
                precision=job.config.precision,
            )
            outcomes[split] = outcome_to_dict(outcome)
            if split == job.predicted:
                predictions = predict(
                    network, images, task=job.task, batch_size=job.config.batch_size, precision=job.config.precision
                )
    return {"outcomes": outcomes, "predictions": predictions, "latency_ms": _latency(job, network, device, lock)}


def _latency(job: JudgingJob, network: torch.nn.Module, device: torch.device, lock: DeviceLock) -> float | None:
    """As a search measures that of its candidates."""
    if job.latency is None or device_name(device) != job.latency.device:
        return None
    shape = open_cache(local_path(next(iter(job.images.values())))).info.shape[1:]
    if job.config.compile:
        compile_blocks(network)
    with lock.alone():
        return measure(network, shape, device=device, precision=job.config.precision, config=job.latency.config)


def judge(jobs: Mapping[str, JudgingJob], *, say: Callable[[str], None] = log.warning) -> dict[str, Judgement]:
    """Score each network on all of its splits, as many at once as the cluster holds; by the names of the jobs.

    A process that is lost is started again. ``say`` gets a line for one, and where there is no room.

    Raises UserError when no node can hold such a process, or one was lost too often.
    """
    found: dict[str, Judgement] = {}
    if not jobs:
        return found
    config = next(iter(jobs.values())).config
    _, need = plan_evaluators(config)
    check_room(need)
    task = ray.remote(max_retries=0, **need.options)(_judge)
    waiting = Waiting(need, say)
    running = {task.remote(job): name for name, job in jobs.items()}
    lost = dict.fromkeys(jobs, 0)
    try:
        while running:
            done, _ = ray.wait([*running], num_returns=1, timeout=1)
            try:
                waiting.look(0 if done else min(len(running), pending(need)), of=len(running))
            except NoNodeError as error:
                nodes = instead(config.nodes, error, say)
                present = {name: replace(jobs[name], config=replace(config, nodes=nodes)) for name in running.values()}
                return found | judge(present, say=say)
            for reference in done:
                name = running.pop(reference)
                try:
                    values: dict[str, Any] = answer(reference)
                except RayTaskError:  # a bug
                    raise
                except RayError as error:
                    lost[name] += 1
                    if lost[name] >= ATTEMPTS:
                        raise UserError(
                            f"{ATTEMPTS} processes in turn were lost while they scored {name}, now: {brief(error)}; give "
                            "their node more memory, then the same command continues"
                        ) from error
                    say(f"a process that scored {name} was lost; it is scored again: {brief(error)}")
                    running[task.remote(jobs[name])] = name
                    continue
                outcomes = {split: outcome_from_dict(outcome) for split, outcome in values["outcomes"].items()}
                found[name] = Judgement(outcomes, values["predictions"], values["latency_ms"])
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
    return found
