"""Parts of a step: the same images and the same chance, whoever trains on them."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raysearch.tasks.images.classification import ImageClassification
from raysearch.training.shards import Chance, Shards

TASK = ImageClassification()
CPU = torch.device("cpu")


class OneStep:
    """Of a shard whose number is its images."""

    steps_per_epoch = 1

    def __init__(self, shard: int) -> None:
        self.shard = shard

    def epoch(self, epoch: int, start: int = 0):
        yield torch.tensor([self.shard]), torch.tensor([epoch])


@given(of=st.integers(1, 9), processes=st.integers(1, 9))
def test_every_shard_is_trained_once_and_counts_alike(of: int, processes: int) -> None:
    processes = min(of, processes)
    seen: list[int] = []
    share = 0.0
    for rank in range(processes):
        shards = Shards.dealt(OneStep, of=of, rank=rank, world_size=processes)
        assert shards.steps_per_epoch == 1
        (step,) = shards.epoch(4)
        assert all(int(images) == shard and int(labels) == 4 for shard, (images, labels) in step.items())
        seen += step
        share += len(step) * shards.weight / processes  # processes average their gradients
    assert sorted(seen) == list(range(of))
    assert share == pytest.approx(1)


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_chance_of_a_shard_does_not_depend_on_who_trains_it() -> None:
    alone: dict[int, list[tuple[float, float, float]]] = {}
    for shard in range(3):
        chance = Chance(7, {shard: None}, CPU)
        chance.begin(2)
        with chance.of(shard):
            alone[shard] = [drawn() for _ in range(4)]
    together = Chance(7, dict.fromkeys(range(3)), CPU)
    together.begin(1)
    assert drawn() not in [values[0] for values in alone.values()]  # another step
    together.begin(2)
    for turn in range(4):
        for shard in range(3):
            with together.of(shard):
                assert drawn() == alone[shard][turn]
    assert len({value for values in alone.values() for value in values}) == 12
