"""What a step trains: the published draws, sandwiches, strata of MACs, and schedules that begin at the largest."""

from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from raysearch.errors import SettingError
from raysearch.space import Constraint, Cost, SearchProblem
from raysearch.spaces.autoformer import AutoFormerArchitecture, AutoFormerSpace
from raysearch.spaces.autoformer.geometry import AutoFormerGeometry
from raysearch.training.config import TrainingConfig
from raysearch.training.draws import Band, Draws, Only, Strata
from raysearch.training.strategy import Strategy

SPACE = AutoFormerSpace(embed_dim=(16, 24, 32), num_heads=(1, 2), mlp_ratio=(1.0, 2.0), depth=(1, 2, 3))
GEOMETRY = AutoFormerGeometry(
    **{"img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 3, "embed_dim": 32, "depth": 3},
    **{"num_heads": 2, "mlp_ratio": 2.0, "head_dim": 8, "max_relative_position": 1},
)
CONFIG = TrainingConfig(epochs=10, warmup_epochs=1)
STEPS = 100


def cost(arch: AutoFormerArchitecture) -> Cost:
    return GEOMETRY.cost(arch)


def strategy(draws: Draws[Any] = SPACE, *, rank: int = 0, **settings: Any) -> Strategy[Any]:
    return Strategy(draws, replace(CONFIG, **settings), seed=5, rank=rank, cost=cost)


def archs(chosen: Strategy[Any], step: int) -> list[AutoFormerArchitecture]:
    return [one.arch for one in chosen.passes(step, of=STEPS, images=12)]


def test_single_paths_are_the_published_draws() -> None:
    """The stream of every search that was begun before there was anything else."""
    chosen = strategy(archs_per_step=2)
    for step in (0, 7):
        assert archs(chosen, step) == [SPACE.sample(Random(f"5/train/{step}/{k}")) for k in range(2)]
        assert [one.rows for one in chosen.passes(step, of=STEPS, images=12)] == [range(12)] * 2


def test_a_sandwich_is_the_largest_random_ones_and_the_smallest() -> None:
    chosen = archs(strategy(strategy="sandwich", archs_per_step=2), 3)
    assert chosen[0] == SPACE.largest()
    assert chosen[-1] == SPACE.smallest()
    assert chosen[1:-1] == archs(strategy(archs_per_step=2), 3)


def test_several_architectures_divide_the_images_and_rise_in_macs() -> None:
    chosen = strategy(strategy="multi", archs_per_step=5)
    thirds: dict[int, set[int]] = {}
    for step in range(40):
        passes = chosen.passes(step, of=STEPS, images=12)
        assert [row for one in passes for row in one.rows] == list(range(12))
        assert {len(one.rows) for one in passes} == {2, 3}
        for stratum, one in enumerate(passes):
            thirds.setdefault(stratum, set()).add(cost(one.arch).macs)
    assert all(max(below) <= min(above) for below, above in pairwise(thirds.values()))
    assert all(len(macs) > 3 for macs in thirds.values())  # they are drawn, not fixed
    assert len(strategy(strategy="multi", archs_per_step=5).passes(0, of=STEPS, images=3)) == 3  # no pass without an image


def test_a_stratum_that_draws_seldom_hit_gets_the_nearest() -> None:
    two = AutoFormerSpace(embed_dim=(16, 32), num_heads=(1,), mlp_ratio=(1.0,), depth=(1,))
    drawn = Strata(two, 4, cost=cost, seed=0).sample(Random(0))
    assert [arch.embed_dim for arch in drawn] == sorted(arch.embed_dim for arch in drawn)
    assert {arch.embed_dim for arch in drawn} == {16, 32}
    assert Strata(Only(two.largest()), 3, cost=cost, seed=0).sample(Random(0)) == [two.largest()] * 3


def test_processes_draw_alike_unless_they_shall_not() -> None:
    assert archs(strategy(rank=1), 2) == archs(strategy(), 2)
    one, two = (archs(strategy(rank=rank, arch_per_rank=True, archs_per_step=4), 2) for rank in (0, 1))
    assert one != two
    assert archs(strategy(rank=1, arch_per_rank=True, archs_per_step=4), 2) == two


def test_the_largest_comes_first_and_then_choices_widen() -> None:
    chosen = strategy(largest_first=0.2, widen=0.3, archs_per_step=4)
    assert all(archs(chosen, step) == [SPACE.largest()] for step in range(20))
    seen = {
        begin: {arch.embed_dim for step in range(begin, begin + 10) for arch in archs(chosen, step)} for begin in (20, 30, 40)
    }
    assert seen == {20: {32}, 30: {24, 32}, 40: {16, 24, 32}}
    assert {arch.depth for step in range(30, 40) for arch in archs(chosen, step)} == {2, 3}
    plain = strategy(archs_per_step=4)
    assert all(archs(chosen, step) == archs(plain, step) for step in range(50, STEPS))
    narrow = strategy(widen=0.9, strategy="sandwich")
    assert archs(narrow, 0) == [SPACE.largest()] * 3
    assert archs(narrow, 50)[-1].embed_dim == 24  # the smallest of what is open
    assert len({cost(arch).macs for arch in archs(strategy(widen=0.9, strategy="multi", archs_per_step=3), 45)}) == 3


def test_draws_from_the_band_keep_the_budget_and_the_sandwich_keeps_its_ends() -> None:
    problem = SearchProblem(SPACE, cost, Constraint(min_params=4_000, max_params=6_000))
    band = Band(problem)
    for step in range(20):
        inside = archs(strategy(band, archs_per_step=2, widen=0.05), 10 + step)
        assert all(problem.in_band(arch) for arch in inside)
    assert not all(problem.in_band(SPACE.sample(Random(i))) for i in range(20))
    chosen = archs(strategy(band, strategy="sandwich"), 0)
    assert (chosen[0], chosen[-1]) == (SPACE.largest(), SPACE.smallest())
    parts = archs(strategy(band, strategy="multi", archs_per_step=3), 0)
    assert all(problem.in_band(arch) for arch in parts)
    assert archs(strategy(band, widen=0.5), 0) == [SPACE.largest()]  # which is dearer than the band
    travelled = pickle.loads(pickle.dumps(band))
    assert travelled.sample(Random(1)) == band.sample(Random(1))
    unlimited = Band(SearchProblem(SPACE, cost, Constraint()))
    assert archs(strategy(unlimited), 4) == archs(strategy(), 4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"strategy": "multi"}, r"^archs-per-step is 1, must be at least 2 with strategy multi"),
        ({"largest_first": 0.5, "widen": 0.6}, r"^widen is 0\.6, must be at most 0\.5 beside largest-first"),
        ({"ema": 1.0}, r"^ema is 1, must be"),
    ],
)
def test_settings_that_contradict_each_other_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        replace(CONFIG, **settings)
