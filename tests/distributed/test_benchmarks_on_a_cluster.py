"""Benchmarks on the test run's cluster; what they count must be right."""

from __future__ import annotations

import pytest
from benchmark_tables import benchmark, number, numbers, tables
from forked_workers import plain_workers
from ray.cluster_utils import Cluster


def test_orchestration(cluster: object) -> None:
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


def test_utilisation(cluster: object) -> None:
    (table,) = tables(benchmark("utilisation"))
    del table["goal"]
    assert table.keys() == {"evolution, 50 per generation (published)", "ageing, look-ahead 4"}
    for cells in table.values():
        evaluators, busy, waiting = numbers(cells)
        assert evaluators == 4
        assert min(busy, waiting) >= 0
        assert busy + waiting <= 1.001


def test_memory(cluster: Cluster) -> None:
    with plain_workers(cluster.head_node.all_processes["raylet"][0].process.pid):
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
