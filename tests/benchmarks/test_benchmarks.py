"""Benchmarks that need no cluster; what they count must be right."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from benchmark_tables import benchmark, number, numbers, tables
from search_script import ROOT, program, write_idx

from raysearch.recipes.autoformer import FASHION_RECIPE
from raysearch.search import Result
from raysearch.search.protocol import outcome_to_dict, pack
from raysearch.space import SearchProblem
from raysearch.spaces.autoformer import FAMILY
from raysearch.tasks import Ends


def test_algorithms() -> None:
    table, proxies, searches = tables(benchmark("algorithms"))
    assert sum(number(cells[0]) for cells in table.values()) == 150
    for cells in table.values():
        worst, median, most, best = numbers(cells[1:5])
        assert 0 < worst <= median <= most <= best < 1
    assert {"snip, trained", "snip, fresh", "parameters", "MACs"} < proxies.keys()
    for tau, interval in proxies.values():
        low, high = map(float, interval.split(" to "))
        assert -1 <= low <= float(tau) <= high <= 1
    assert searches.keys() == {"random", "ageing", "evolution, code's rates"}
    for cells in searches.values():
        at_250, at_500, at_1000 = (float(cell.split()[0]) for cell in cells[3:6])
        assert 0 < at_250 <= at_500 <= at_1000 <= 100
    needed, _, reach, *_ = searches["evolution, code's rates"]
    assert reach == "100%"  # the target is its own
    assert 1 <= number(needed.split()[0]) <= 1000


def test_racing(tmp_path: Path) -> None:
    data = write_idx(tmp_path / "data", train=700, test=20)
    printed = benchmark("racing", "--data", str(data), "--output", str(tmp_path / "out"))
    assert "24 candidates on 100 images" in printed
    search, replays, simulated = tables(printed)
    full, share = numbers(search["full scoring"][:2])
    assert (full, share) == (2400, 1)
    raced, share = numbers(search["racing"][:2])
    assert 1200 <= raced <= 2400  # the first of two generations is scored in full
    assert share == pytest.approx(raced / full, abs=5e-4)
    _, used, kept, worst, dropped, per_parent = replays["0"]
    assert numbers([used, kept, worst, per_parent]) == [1, 1, 1, 0]  # without error nobody is stopped early
    assert dropped.startswith("0 of ")
    assert 0.5 <= number(replays["0.05"][1]) <= 1
    shares = numbers(simulated["500"])
    assert 0 < shares[-1] < shares[0] <= 1  # who is far behind is found out earlier


def test_champions(tmp_path: Path) -> None:
    printed = benchmark("champions", "--output", str(tmp_path))
    assert "2 supernets, 3 divisions each" in printed
    lines = [[cell.strip() for cell in line.strip("│").split("│")] for line in printed.splitlines() if line.startswith("│")]
    assert {(int(search), int(fresh)) for _, search, fresh, *_ in lines} >= {(397, 200), (297, 200), (397, 100)}
    for *_, over_equal, over_largest, fewer in lines:
        for cell in (over_equal, over_largest):
            value, *interval = (float(found) for found in re.findall(r"[+-][\d.]+", cell))  # none of one supernet
            assert not interval or interval[0] <= value <= interval[1]
        assert float(fewer) > 1  # a budget below the largest network


def test_imagenet_is_estimated_from_what_the_recipes_ask_for() -> None:
    (hours,) = tables(benchmark("imagenet"))
    trained = [number(hours[f"imagenet-{size}"][0]) for size in ("tiny", "small", "base")]
    assert trained == sorted(trained)
    for train, search, closing, tuning, whole, days, money in (numbers(cells) for cells in hours.values()):
        assert whole == pytest.approx(train + search + closing + tuning, abs=1)
        assert days == pytest.approx(whole / 8 / 24, abs=0.06)
        assert money == pytest.approx(2 * whole, abs=2)
    for size in ("tiny", "small", "base"):
        assert number(hours[f"imagenet-{size}"][3]) == 0
        train, *_, tuning, _, _, _ = numbers(hours[f"imagenet-{size}-plus"])
        assert tuning == pytest.approx(
            train * 2 * 30 / 500, abs=0.1
        )  # two networks of the band that the supernet is trained on


def test_own_images_pairs_networks_by_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    own_images = importlib.import_module("own_images")
    right = np.arange(400) % 4 > 0
    worse = right & (np.arange(400) % 10 > 0)
    entries = [own_images.Entry(own_images.CHAMPION, 900_000, right), own_images.Entry("loop", 2_000_000, worse)]
    champion, loop = own_images.rows(own_images.Settings(max_params=1e6), [entries, entries])
    assert champion[1:4] == ("900,000", "yes", "75.0 75.0")
    assert loop[1:4] == ("2,000,000", "no", "70.0 70.0")
    lead, low, high = (float(found) for found in re.findall(r"[+-][\d.]+", loop[-1]))
    assert lead == 5
    assert 0 < low < lead < high  # the same images are lost in both seeds: paired, the difference is plain


def test_what_fashion_calls_uniform_is_what_one_would_write_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    uniform = importlib.import_module("fashion").uniform
    geometry = FAMILY.build(FASHION_RECIPE.config, Ends((1, 28, 28), 10))
    problem = SearchProblem(geometry.space, geometry.cost, FASHION_RECIPE.constraint)
    for macs in (5.2e6, 6.5e6, 7.9e6):
        arch = uniform(problem, macs)
        assert problem.space.contains(arch)
        assert len(set(arch.num_heads)) == len(set(arch.mlp_ratio)) == 1
        assert problem.cost(arch).macs == pytest.approx(macs, rel=0.05)
    assert uniform(problem, 16.7e6) == problem.space.largest()  # 64 wide, 4 heads of 16, four times as wide within


def test_elastic(tmp_path: Path) -> None:
    """Every step leaves a file, and a second start does what is left alone."""
    with patch.object(sys, "path", [str(ROOT / "benchmarks"), *sys.path]):
        elastic: Any = importlib.import_module("elastic")
    data, output = write_idx(tmp_path / "data", train=11_000, test=200), tmp_path / "out"
    output.mkdir()
    settings = elastic.Settings(output=output, data=data, seeds=1, **elastic.QUICK)
    names = [step.name for step in elastic.steps(settings)]
    threads = torch.get_num_threads()
    try:
        for name in names[:-1]:  # what others need is first
            elastic.do(settings, name)
    finally:
        torch.set_num_threads(threads)
    written = {name: (output / f"{name}.safetensors").stat().st_mtime_ns for name in names[:-1]}
    printed = benchmark("elastic", "--output", str(output), "--data", str(data), "--seeds", "1", "--processes", "1")
    assert "11 of 12 steps are done already" in printed
    assert f"12 of 12: {names[-1]} in " in printed
    assert {name: (output / f"{name}.safetensors").stat().st_mtime_ns for name in names[:-1]} == written
    lines = (output / "elastic.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]
    rows = {row[0]: row[1:] for row in cells}
    full = float(rows["full network, fine-tuned"][0].split()[0])
    for share in (50, 25):
        for way in ("champion", "importance cut", "timm from scratch", "AutoFormer"):
            macs, _, _, epochs, lead = rows[f"{way}, {share} %"]
            assert 0.8 * share / 100 * full < float(macs.split()[0]) < 1.1 * share / 100 * full
            assert int(epochs) >= 1
            if way != "champion":
                accuracy, of = (float(rows[f"{name}, {share} %"][2].split()[0]) for name in (way, "champion"))
                assert float(lead.split()[0]) == pytest.approx(of - accuracy, abs=0.02)
    # Other settings are other trainings: they are not mixed with these.
    ended = program("elastic", "--output", str(output), "--seeds", "1", "--images", "512", folder=ROOT / "benchmarks")
    assert "tells of other settings than these" in ended.complaints


def test_informative(tmp_path: Path) -> None:
    """Of a journal whose candidates differ on a fifth of the images, these rank them better than as many others."""
    rng = np.random.default_rng(0)
    hard = np.where(np.arange(1_000) < 200, rng.normal(size=1_000), -8.0)
    rows: list[dict[str, Any]] = [{"weights": "0"}]
    for i in range(80):
        answers = rng.random(1_000) < 1 / (1 + np.exp(hard - 1.5 * rng.random()))
        result = Result(float(answers.mean()), 1_000, 1, 1, outcomes=pack(answers))
        rows.append({"split": "search", "id": f"{i}", "outcome": outcome_to_dict(result)})
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (table,) = tables(benchmark("informative", str(tmp_path)))
    assert list(table) == ["125", "250", "500"]
    for tau, *_ in table.values():
        even, informative = map(float, tau.split(" / "))
        assert even < informative
