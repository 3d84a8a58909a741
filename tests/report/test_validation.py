"""Which subnets a validation draws, and what it says of them: without a cluster."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from finished_search import finish
from hypothesis import given
from hypothesis import strategies as st
from page_reader import figures
from toy_space import Toy, large_problem

from raysearch.jobs.validate import agreements, fine_tuning, in_strata, regret_of
from raysearch.report import validation_lines, write_report
from raysearch.statistics import Interval, measured_noise
from raysearch.store.folder import read_record, write_json
from raysearch.store.validation import RetrainedSubnet, Validation, ValidationSettings
from raysearch.training.config import TrainingConfig


def drawn(count: int) -> list[Toy]:
    """Different subnets of a toy space."""
    problem, archs = large_problem(), dict[Toy, None]()
    while len(archs) < count:
        arch = problem.sample(Random(len(archs)), archs)
        assert arch is not None
        archs[arch] = None
    return list(archs)


POOL = drawn(40)


@given(st.lists(st.integers(0, 10), min_size=1, max_size=len(POOL)), st.integers(1, 20))
def test_a_draw_has_one_subnet_of_each_part_of_the_ranking(values: list[int], count: int) -> None:
    scores = dict(zip(POOL, map(float, values), strict=False))
    found = in_strata(scores, count=count, seed=0)
    assert len(set(found)) == len(found) == min(count, len(scores))
    assert [scores[arch] for arch in found] == sorted(scores[arch] for arch in found)
    ranked = sorted(scores, key=lambda arch: (scores[arch], arch.id))
    places = [ranked.index(arch) for arch in found]
    assert [place * len(found) // len(scores) for place in places] == pytest.approx([*range(len(found))], abs=1)
    assert in_strata(dict(reversed(scores.items())), count=count, seed=0) == found  # whatever the order of scoring


def test_fine_tuning_is_one_epoch_from_a_tenth_of_the_rate() -> None:
    tuned = fine_tuning(TrainingConfig(epochs=30, lr=1e-3, warmup_epochs=5, warmup_lr=1e-5))
    rates = [tuned.learning_rate(step, steps_per_epoch=10) for step in range(10)]
    assert tuned.epochs == 1
    assert rates[0] == max(rates) == pytest.approx(1e-4)
    assert rates[-1] == tuned.min_lr == pytest.approx(1e-5)


def validation() -> Validation:
    """Eleven subnets whose retrained scores follow the inherited ones; size knows nothing; a champion who is third."""
    subnets = [
        RetrainedSubnet(
            id=arch.id,
            arch=arch.to_dict(),
            role="drawn" if i else "champion",
            params=50_000 + 7 * i % 5,
            macs=1_000_000 + i * 17 % 11,
            inherited=0.8 + 0.002 * i,
            retrained=0.85 + 0.003 * i - 0.0005 * (i % 3 == 0),
            retrainings=(0.85 + 0.003 * i, 0.849 + 0.003 * i) if i % 3 == 0 else (0.85 + 0.003 * i,),
            finetuned=0.83 + 0.002 * i,
            proxies={"snip": float(-i)},
            loss=0.5,
            seconds=1.0,
        )
        for i, arch in enumerate(POOL[:11])
    ]
    subnets[0] = replace(subnets[0], retrained=0.8735, retrainings=(0.874, 0.873), inherited=0.83)
    others = subnets[1:]
    return Validation(
        settings=ValidationSettings(11, 4, 0, "ab", within=0.1),
        recipe_epochs=4,
        search_images=1000,
        failed={},
        subnets=subnets,
        band="900 <= macs <= 1,100",
        rankings=agreements(others),
        noise=measured_noise([subnet.scores for subnet in others]),
        regret=regret_of(subnets[0], others),
        over_drawn=Interval(0.01, 0.005, 0.015),
    )


def test_rankings_noise_and_regret_are_told() -> None:
    known = validation()
    assert known.noise is not None
    assert known.regret is not None
    lines = "\n".join(validation_lines(known))
    assert "over 10 random subnets with 900 <= macs <= 1,100" in lines
    assert "inherited accuracy: 1.00 (95 %: 1.00 to 1.00)" in lines
    assert "accuracy after one epoch from inherited weights: 1.00" in lines
    assert "proxy snip: -1.00" in lines
    assert "parameters: " in lines
    assert f"(3 were trained twice) have a standard deviation of {100 * known.noise.noise:.2f} points" in lines
    best = max(known.subnets, key=lambda subnet: subnet.retrained)
    assert f"the best subnet ({best.id}) is 0.65 points above the champion" in lines
    assert "1.00 ± 0.50 points (95 % over 1,000 images" in lines
    first = replace(known.subnets[0], retrained=0.9, retrainings=(0.9, 0.9))
    ahead = replace(known, regret=regret_of(first, known.subnets[1:]))
    assert ahead.regret is not None
    assert (ahead.regret.measured, ahead.regret.best) == (0.0, first.id)
    assert "the champion has the highest score of all" in "\n".join(validation_lines(ahead))


def test_a_ranking_that_lacks_a_subnet_is_left_out() -> None:
    subnets = validation().subnets[1:]
    assert set(agreements(subnets)) == {"inherited", "fine-tuned", "params", "macs", "snip"}
    subnets[0] = replace(subnets[0], finetuned=None, proxies={})
    assert set(agreements(subnets)) == {"inherited", "params", "macs"}
    assert agreements(subnets[:2]) == {}


def test_the_file_and_the_page_hold_it(tmp_path: Path) -> None:
    known = validation()
    finish(tmp_path, generations=2, population=6)
    write_json(tmp_path / "validation.json", known.to_dict())
    assert read_record(tmp_path / "validation.json", Validation) == known
    assert json.loads((tmp_path / "validation.json").read_text())["rankings"]["inherited"]["tau"]["value"] == pytest.approx(1)
    page = write_report(tmp_path).read_text()
    traces = figures(page)["validation"]
    assert set(traces) == {"drawn", "champion"}
    assert traces["drawn"]["y"] == pytest.approx([s.retrained for s in known.subnets[1:]])
    bars = traces["drawn"]["error_y"]  # both trainings of one that was trained twice
    assert bars["array"] == pytest.approx([max(s.scores) - s.retrained for s in known.subnets[1:]])
    assert "retrained 85.90 % and 85.80 %" in traces["drawn"]["text"][2]
    assert "partial tau given parameters" in page
