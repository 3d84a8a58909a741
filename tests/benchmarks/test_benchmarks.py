"""Benchmarks on the test run's cluster, with settings so small that times mean nothing; what they count must be right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from search_script import ROOT, succeed, write_idx

Table = dict[str, list[str]]
"""Cells of each row, by its first."""


def tables(printed: str) -> list[Table]:
    """All tables of a benchmark, in their order."""
    found: list[Table] = []
    for line in printed.splitlines():
        if line.startswith("┡"):
            found.append({})
        elif line.startswith("│"):
            name, *cells = (cell.strip() for cell in line.strip("│").split("│"))
            assert name not in found[-1], name
            found[-1][name] = cells
    return found


def number(cell: str) -> float:
    """A cell as a number; percent as shares."""
    return float(cell.replace(",", "").rstrip("%")) / (100 if cell.endswith("%") else 1)


def numbers(cells: list[str]) -> list[float]:
    return [number(cell) for cell in cells]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Run a benchmark in this process; returns what it printed."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")  # as Python does for a script

    def run(name: str, *flags: str) -> str:
        printed = succeed(name, "--quick", *flags, folder=ROOT / "benchmarks")
        assert " cores, " in printed.splitlines()[1]
        return printed

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)


def test_algorithms(benchmark: Callable[..., str]) -> None:
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


def test_orchestration(cluster: object, benchmark: Callable[..., str]) -> None:
    start, free, growth, sleeping = tables(benchmark("orchestration"))
    (total,) = numbers(start.pop("sum"))
    parts = [number(seconds) for (seconds,) in start.values()]
    assert min(parts) >= 0
    assert parts[-1] > 0  # the first score
    assert sum(parts) == pytest.approx(total, abs=0.01 * len(parts))

    candidates, cpu, wall = numbers(free["whole"])
    assert candidates == 16
    assert min(cpu, wall) > 0
    *quarters, ratio = growth.values()
    assert list(growth) == ["1 to 4", "5 to 8", "9 to 12", "13 to 16", "last / first"]
    first, last = numbers(quarters[0]), numbers(quarters[-1])
    assert numbers(ratio) == pytest.approx([b / a for a, b in zip(first, last, strict=True)], rel=0.05, abs=0.02)

    scored, took, ideal, share, _ = numbers(sleeping["8"])
    assert (scored, ideal) == (8, 0.02)  # 8 naps of 0.01 s on 4 evaluators
    assert 0 < share <= 1
    assert share == pytest.approx(ideal / took, rel=0.1, abs=0.002)


def test_racing(benchmark: Callable[..., str], tmp_path: Path) -> None:
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


def test_utilisation(cluster: object, benchmark: Callable[..., str]) -> None:
    (table,) = tables(benchmark("utilisation"))
    del table["goal"]
    assert table.keys() == {"evolution, 50 per generation (published)", "ageing, look-ahead 4"}
    for cells in table.values():
        evaluators, busy, waiting = numbers(cells)
        assert evaluators == 4
        assert min(busy, waiting) >= 0
        assert busy + waiting <= 1.001


def test_memory(cluster: object, benchmark: Callable[..., str]) -> None:
    printed = benchmark("memory")
    cache, evaluators, further = tables(printed)
    decoded, before, peak = numbers(cache["64"])
    assert decoded == round(64 * 3 * 224 * 224 / 2**20)
    assert 0 < before <= peak
    assert list(evaluators) == ["bare, 1", "bare, 2", "at work, 1", "at work, 2"]
    for name, cells in evaluators.items():
        whole, own, supernet, images, libraries = numbers(cells)
        assert whole > own > 0
        assert whole > libraries > 0
        if name.startswith("bare"):
            assert (supernet, images) == (0, 0)
        else:  # AutoFormer-T's 45 MiB and 64 pictures, held once on a node by however many evaluators
            assert 40 < supernet <= 46
            assert 8 < images <= 10
    values = [number(mebibytes) for (mebibytes,) in further.values()]
    base, subnet, goal, measured, ratio = values
    assert goal == pytest.approx(base + subnet, abs=1.5)
    assert ratio == pytest.approx(measured / goal, abs=0.02)
