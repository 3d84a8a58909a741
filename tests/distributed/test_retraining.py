"""Subnets trained from scratch: what ends a validation, in words for its user."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import pytest
import ray
import torch
import toy
from ray.cluster_utils import Cluster

from raysearch.distributed.retraining import Retraining, retrain
from raysearch.errors import UserError
from raysearch.space import Cost
from raysearch.training.config import TrainingConfig


@dataclass(frozen=True)
class Cramped:
    """A job whose images do not fit into the memory of the process that opens them."""

    error: Exception
    train: TrainingConfig

    @property
    def images(self) -> Any:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:125] DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
    ids=["Python", "CPU", "GPU"],
)
def test_lack_of_memory_is_said_with_what_a_validation_can_do(cluster: Cluster, error: Exception) -> None:
    """Its command has neither --resume nor a batch size."""
    for module in (toy, sys.modules[__name__]):
        ray.cloudpickle.register_pickle_by_value(module)  # workers cannot import the tests' modules
    job: Any = Cramped(error, TrainingConfig(epochs=1, batch_size=8, lr=1e-3, warmup_epochs=1))
    with pytest.raises(UserError, match=r"for lack of memory; free some .*--ray-address") as raised:
        list(retrain(job, [Retraining(toy.SPACE.smallest(), Cost(1, 1))]))
    assert "--resume" not in raised.value.args[0]
    assert "batch-size" not in raised.value.args[0]
