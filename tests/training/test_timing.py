"""A timed step: what it needs grows with the batch, and it leaves nothing behind."""

from __future__ import annotations

import torch

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
    for timing in (one, two, three):
        assert timing.step_s > 0
        assert timing.score_s > 0
        assert timing.device == "cpu"
    assert three.memory_bytes - two.memory_bytes == two.memory_bytes - one.memory_bytes > 0
