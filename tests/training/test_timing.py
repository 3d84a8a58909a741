"""A timed step: what it needs grows with the batch, and it leaves nothing behind."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import torch

from raysearch.distributed import timing
from raysearch.recipes.autoformer import DIGITS_RECIPE
from raysearch.spaces.autoformer import FAMILY, AutoFormerArchitecture, AutoFormerSpace
from raysearch.training.timing import Timing, items_at_once, time_steps


def timed(batch: int, **settings: Any) -> Timing:
    task = DIGITS_RECIPE.task
    splits = task.splits()
    geometry = FAMILY.build(DIGITS_RECIPE.config, task.ends(splits))
    sample = next(iter(task.batches(splits.train, batch_size=4, seed=0).epoch(0)))
    return time_steps(
        FAMILY,
        {**geometry.settings, "drop_path_rate": 0.0},
        geometry.space,
        sample,
        task=task,
        train=replace(DIGITS_RECIPE.train, **settings),
        batch=batch,
        device=torch.device("cpu"),
    )


def test_memory_grows_with_the_batch_and_chance_is_left_alone() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one, two, three = timed(100), timed(200), timed(300)
    assert torch.equal(torch.get_rng_state(), state)
    for each in (one, two, three):
        assert each.step_s > 0
        assert each.score_s > 0
        assert each.device == "cpu"
    assert three.memory_bytes - two.memory_bytes == two.memory_bytes - one.memory_bytes > 0


def test_memory_is_that_of_what_one_forward_pass_sees_and_of_every_copy_of_the_weights() -> None:
    whole = timed(100)
    growing = whole.memory_bytes - whole.fixed_bytes
    assert timed(100, micro_batch=25).memory_bytes - whole.fixed_bytes == growing // 4
    parts = timed(100, strategy="multi", archs_per_step=2, ema=0.9)
    assert parts.memory_bytes - parts.fixed_bytes == growing // 2
    assert parts.fixed_bytes == whole.fixed_bytes * 5 // 4
    assert items_at_once(replace(DIGITS_RECIPE.train, strategy="multi", archs_per_step=3, largest_first=0.1), 100) == 100


class Counting(AutoFormerSpace):
    """A space that counts how often it is drawn from, and how often it gives its ends."""

    asked: Counter[str]

    def sample(self, rng: Random) -> AutoFormerArchitecture:
        self.asked["random"] += 1
        return super().sample(rng)

    def smallest(self) -> AutoFormerArchitecture:
        self.asked["smallest"] += 1
        return super().smallest()


def test_a_timed_step_is_one_of_the_training() -> None:
    """All passes of a sandwich are in it, and each part of the schedule counts for its share."""
    space = Counting(embed_dim=(32, 96), num_heads=(1, 4), mlp_ratio=(1.0, 3.0), depth=(2, 5))
    space.asked = Counter()
    task = DIGITS_RECIPE.task
    splits = task.splits()
    geometry = FAMILY.build(DIGITS_RECIPE.config, task.ends(splits))
    sample = next(iter(task.batches(splits.train, batch_size=4, seed=0).epoch(0)))
    time_steps(
        FAMILY,
        {**geometry.settings, "drop_path_rate": 0.0},
        space,
        sample,
        task=task,
        train=replace(DIGITS_RECIPE.train, strategy="sandwich", archs_per_step=2, mixup=0.8),
        batch=4,
        device=torch.device("cpu"),
    )
    assert space.asked == {"random": 3 * 2 + 1, "smallest": 3}  # three steps are timed, and one network's scoring


def test_a_gpu_without_room_for_a_step_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*arguments: object, **more: object) -> Timing:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(timing, "time_steps", no_room)
    train = DIGITS_RECIPE.train
    sample = torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64)
    assert timing.on_gpu(FAMILY, {}, None, sample, DIGITS_RECIPE.task, train, 8, None) is None
