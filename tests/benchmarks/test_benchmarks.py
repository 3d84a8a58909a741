"""Benchmarks that need no cluster; what they count must be right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from benchmark_tables import benchmark, number, numbers, tables
from search_script import write_idx


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
