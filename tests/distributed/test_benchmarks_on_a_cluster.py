"""Benchmarks on the test run's cluster; what they count must be right."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from benchmark_tables import benchmark, number, numbers, tables
from forked_workers import plain_workers
from ray.cluster_utils import Cluster
from search_script import write_idx


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


def test_data(cluster: object) -> None:
    (table,) = tables(benchmark("data"))
    assert list(table) == [f"{way}, {kept}" for kept in ("decoded anew", "decoded once") for way in ("loader", "streamed")]
    for way, (speed, ratio, waits) in table.items():
        assert number(speed) > 0
        assert (ratio == "") == way.startswith("loader")
        assert 0 <= number(waits.replace(" ", "")) <= 1


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


@pytest.mark.usefixtures("cluster")
def test_fashion(tmp_path: Path) -> None:
    """From pictures to the table; one that was interrupted does what is left, and no more."""
    data, run = write_idx(tmp_path / "data", train=240, test=40), tmp_path / "run"
    arguments = ("fashion", "--data", str(data), "--output", str(run), "--search=--train.batch-size 40")
    printed = benchmark(*arguments)
    summary = json.loads((run / "summary.json").read_text())
    tuning, networks = summary["tuning"], summary["networks"]
    assert json.loads((run / "config.json").read_text())["recipe"]["train"]["batch_size"] == 40
    table, lines = (run / "fashion.md").read_text(), run / "fashion.jsonl"
    assert table in printed
    found = {
        name: cells for name, *cells in (line.strip("|").split("|") for line in table.splitlines() if line.startswith("|"))
    }
    cells = {name.strip(): [cell.strip() for cell in values] for name, values in found.items()}
    for name, network in (("champion", tuning["champion"]), ("random of equal cost", tuning["random"])):
        params, macs, inherited, tuned, scratch = cells[name]
        assert (number(params), macs) == (network["params"], f"{network['macs'] / 1e6:.2f} M")
        assert float(inherited) == pytest.approx(100 * network["inherited_test"])
        assert float(tuned) == pytest.approx(100 * network["test"])
        assert 0 <= float(scratch) <= 100
    assert float(cells["largest"][2]) == pytest.approx(100 * networks["largest"]["test_score"])
    macs, uniform = (float(cells[name][1].rstrip(" M")) for name in ("champion", "uniform of equal cost"))
    assert uniform == pytest.approx(macs, rel=0.06)
    for i in (2, 3, 4):  # champion minus others: of the same images
        gaps = [float(cells[name][i]) for name in ("champion", "largest")]
        (stated,) = re.findall(r"^[+-][\d.]+", cells["champion minus largest"][i])
        assert float(stated) == pytest.approx(gaps[0] - gaps[1], abs=0.02)
    assert f"({tuning['deployed']} weights, subnet {tuning['champion']['id']})" in table

    whole = lines.read_text().splitlines()
    lines.write_text("\n".join(whole[:-1]) + "\n")
    again = benchmark(*arguments)
    assert "generation" not in again  # nothing of the search
    resumed = lines.read_text().splitlines()
    assert resumed[:-1] == whole[:-1]
    assert [json.loads(rows[-1])["training"] for rows in (whole, resumed)] == [json.loads(whole[-1])["training"]] * 2
