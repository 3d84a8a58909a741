"""A timed step: what it needs grows with the batch, and it leaves nothing behind."""

from __future__ import annotations

import pytest
import torch

from raysearch.distributed import timing
from raysearch.recipes.autoformer import DIGITS_RECIPE
from raysearch.spaces.autoformer import FAMILY
from raysearch.training.timing import Timing, time_steps


def timed(batch: int) -> Timing:
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
        train=DIGITS_RECIPE.train,
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


def test_a_gpu_without_room_for_a_step_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*arguments: object, **more: object) -> Timing:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(timing, "time_steps", no_room)
    train = DIGITS_RECIPE.train
    sample = torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64)
    assert timing.on_gpu(FAMILY, {}, None, sample, DIGITS_RECIPE.task, train, 8) is None
