"""What a search is expected to take, and what it is cut down to: arithmetic on a timed step."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raysearch.errors import UserError
from raysearch.jobs.expected import (
    START_S,
    Load,
    Measured,
    check_days,
    check_memory,
    expected,
    parse_duration,
    smaller_passes,
    within,
)
from raysearch.recipes.autoformer import DIGITS_RECIPE
from raysearch.recipes.fitted import Machine
from raysearch.training.timing import Timing

LOAD = Load(
    train_images=1000,
    search_images=400,
    judged_images=600,
    compared=40,
    candidates=500,
    processes=2,
    evaluators=2,
    loaders=0,
)
LAPTOP = Machine(cores=2, gpus=0, memory_bytes=8 << 30)


def measured(*, step_s: float = 0.1, memory: int = 100 << 20, machine: Machine = LAPTOP) -> Measured:
    return Measured(Timing(step_s, score_s=1e-4, memory_bytes=memory, device="cpu"), prepare_s=1e-4, machine=machine)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("4h", 14_400), ("1h30m", 5400), ("1.5 h", 5400), ("2d", 172_800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "4", "h", "4 hours", "-1h", "0m", "1h-2m", "nan", "1e3s"])
def test_what_is_no_duration_is_named(text: str) -> None:
    with pytest.raises(UserError, match=r"--time is .*30m, 4h"):
        parse_duration(text)


def test_twice_the_epochs_take_twice_the_training() -> None:
    short = replace(DIGITS_RECIPE, train=replace(DIGITS_RECIPE.train, epochs=100))
    long = replace(DIGITS_RECIPE, train=replace(DIGITS_RECIPE.train, epochs=200))
    once, twice = (expected(recipe, LOAD, measured(), trains=True) for recipe in (short, long))
    assert twice.train - once.train == pytest.approx(100 * (5 * 0.1 + 0.05 + 0.1))
    assert (twice.search, twice.report) == (once.search, once.report)
    assert expected(short, LOAD, measured(), trains=False).train == 0


def test_the_champions_further_training_counts_and_is_cut_with_the_rest() -> None:
    recipe = replace(DIGITS_RECIPE, champion=replace(DIGITS_RECIPE.champion, epochs=100, distill=0.0))
    without = replace(DIGITS_RECIPE, champion=replace(DIGITS_RECIPE.champion, epochs=0))
    slow = measured(step_s=1.0)
    known, none = (expected(each, LOAD, slow, trains=True) for each in (recipe, without))
    assert none.champion == 0
    assert known.total - none.total == pytest.approx(START_S + 2 * 100 * (5 * 1.0 + 0.05 + 0.1))
    assert "fine-tune" in str(known)
    cut, load = within(recipe, LOAD, slow, seconds=known.total / 2, given=(), trains=True)
    assert cut.champion.epochs == pytest.approx(100 * cut.train.epochs / 300, abs=1)
    assert known.total / 3 < expected(cut, load, slow, trains=True).total <= known.total / 2
    kept, _ = within(recipe, LOAD, slow, seconds=known.total / 2, given=("champion.epochs",), trains=True)
    assert kept.champion.epochs == 100
    assert kept.train.epochs < cut.train.epochs


def test_baselines_count_at_most_as_from_scratch_and_are_cut_with_the_rest() -> None:
    plain = replace(DIGITS_RECIPE, champion=replace(DIGITS_RECIPE.champion, epochs=0, distill=0.0))
    recipe = replace(plain, baselines=("resnet18", "vit_tiny_patch16_224", "resnet18"))
    slow = measured(step_s=1.0)
    known, none = (expected(each, LOAD, slow, trains=True) for each in (recipe, plain))
    assert known.total - none.total == pytest.approx(START_S + 2 * 300 * (5 * 1.0 + 0.05 + 0.1))
    assert "baselines at most" in str(known)
    cut, load = within(recipe, LOAD, slow, seconds=known.total / 2, given=(), trains=True)
    assert known.total / 3 < expected(cut, load, slow, trains=True).total <= known.total / 2
    fixed = replace(recipe, report=replace(recipe.report, baseline_epochs=10))
    assert expected(fixed, LOAD, slow, trains=True).baselines == pytest.approx(START_S + 2 * 10 * (5 * 1.0 + 0.05 + 0.1))
    cut, load = within(fixed, LOAD, slow, seconds=none.total / 2, given=(), trains=True)
    assert expected(cut, load, slow, trains=True).total <= none.total / 2


def test_time_decides_epochs_and_candidates_that_are_not_given() -> None:
    slow = measured(step_s=1.0)
    whole = expected(DIGITS_RECIPE, LOAD, slow, trains=True)
    recipe, load = within(DIGITS_RECIPE, LOAD, slow, seconds=whole.total / 2, given=(), trains=True)
    assert 0 < recipe.train.epochs < DIGITS_RECIPE.train.epochs
    share = DIGITS_RECIPE.train.warmup_epochs / DIGITS_RECIPE.train.epochs
    assert recipe.train.warmup_epochs == pytest.approx(recipe.train.epochs * share, abs=0.1)
    assert expected(recipe, load, slow, trains=True).total <= whole.total / 2

    same, _ = within(DIGITS_RECIPE, LOAD, slow, seconds=10 * whole.total, given=(), trains=True)
    assert same == DIGITS_RECIPE

    kept, _ = within(DIGITS_RECIPE, LOAD, slow, seconds=whole.total / 2, given=("train.epochs",), trains=True)
    assert kept.train == DIGITS_RECIPE.train


@pytest.mark.parametrize("algorithm", ["evolution", "ageing", "nsga2", "predictor", "random"])
def test_a_search_too_long_for_its_time_has_fewer_candidates(algorithm: str) -> None:
    recipe = replace(DIGITS_RECIPE, algorithm=algorithm)
    config = recipe.algorithm_config
    slow = replace(measured(), timing=Timing(0.01, score_s=0.05, memory_bytes=0, device="cpu"))
    cut, load = within(recipe, LOAD, slow, seconds=2000, given=(), trains=False)
    total = getattr(cut.algorithm_config, "candidates", None) or cut.algorithm_config.generation_size * getattr(
        cut.algorithm_config, "generations", 1
    )
    assert total < LOAD.candidates
    assert load.candidates < LOAD.candidates
    assert cut.algorithm_config.generation_size == config.generation_size


def test_a_time_too_short_for_one_epoch_says_what_one_takes() -> None:
    with pytest.raises(UserError, match=r"30.0 s is too short: one epoch of training takes 5.1 s"):
        within(DIGITS_RECIPE, LOAD, measured(step_s=1.0), seconds=30, given=(), trains=True)


def test_memory_that_would_not_do_makes_forward_passes_smaller_or_is_refused() -> None:
    hungry = measured(memory=8 << 30)
    smaller = check_memory(DIGITS_RECIPE, LOAD, hungry, ())
    assert smaller == replace(DIGITS_RECIPE, train=replace(DIGITS_RECIPE.train, micro_batch=25))  # of 100 for each process
    assert check_memory(DIGITS_RECIPE, LOAD, measured(), ()) == DIGITS_RECIPE
    halves = replace(DIGITS_RECIPE, train=replace(DIGITS_RECIPE.train, strategy="multi", archs_per_step=2))
    assert check_memory(halves, LOAD, hungry, ()).train.micro_batch == 12  # of the 50 that each architecture sees
    with pytest.raises(UserError, match=r"needs about 18.\d GB .*, 8.6 GB are free: --train.micro-batch 25 would fit"):
        check_memory(DIGITS_RECIPE, LOAD, hungry, ("train.micro_batch",))
    weights = replace(hungry, timing=replace(hungry.timing, fixed_bytes=7 << 30))  # which no smaller pass makes less
    with pytest.raises(UserError, match="a machine with more memory"):
        check_memory(DIGITS_RECIPE, LOAD, weights, ())


def test_a_gpu_that_is_too_small_gets_half_the_images_in_a_pass_until_one_is_left() -> None:
    recipe = replace(DIGITS_RECIPE, train=replace(DIGITS_RECIPE.train, batch_size=12))
    for fits in (3, 1):
        recipe = smaller_passes(recipe, LOAD, ())
        assert (recipe.train.micro_batch, recipe.train.batch_size) == (fits, 12)
    with pytest.raises(UserError, match=r"does not hold a step of training on 1 images; give a smaller --dataset\.img-size"):
        smaller_passes(recipe, LOAD, ())
    given = replace(recipe, train=replace(recipe.train, micro_batch=4))
    with pytest.raises(UserError, match=r"on 4 images: give a smaller --train\.micro-batch than 4"):
        smaller_passes(given, LOAD, ("train.micro_batch",))


def test_days_are_refused_unless_they_are_asked_for() -> None:
    told = expected(DIGITS_RECIPE, LOAD, measured(step_s=1000.0), trains=True)
    with pytest.raises(UserError, match=r"about 17 days on 2 cores: give --time \(as 8h\).*--time \d+d insists") as refused:
        check_days(told, LAPTOP, limited=False)
    insisting = parse_duration(str(refused.value).split("--time ")[-1].split()[0])
    kept, _ = within(DIGITS_RECIPE, LOAD, measured(step_s=1000.0), seconds=insisting, given=(), trains=True)
    assert kept.train == DIGITS_RECIPE.train
    check_days(told, LAPTOP, limited=True)
