"""The settings that a resumed search may change are settings that there are."""

from __future__ import annotations

from raysearch.recipes import flat_settings
from raysearch.recipes.autoformer import DIGITS_RECIPE
from raysearch.recipes.resuming import may_change


def test_what_may_change_is_how_the_work_is_done_and_before_the_end_of_training_what_helps_one_that_diverged() -> None:
    settings = flat_settings(DIGITS_RECIPE.to_dict())
    while_training, after = may_change(trained=False), may_change(trained=True)
    assert while_training <= settings.keys()
    assert {"train.lr", "train.clip_grad", "train.min_lr"} <= while_training - after
    assert {"evaluators.cpus", "train.workers"} <= after
    for decides_a_score in ("train.epochs", "train.batch_size", "evaluators.precision", "seed", "dataset.img_size"):
        assert decides_a_score in settings
        assert decides_a_score not in while_training
