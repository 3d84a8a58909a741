"""The experiment on how supernets are trained: what its table says of its results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.validation_table import Results, lines


def results(path: Path, subnets: int) -> Path:
    """Made-up lines: a supernet that knows the truth, one that knows the reverse; the last subnet is not trained yet."""
    rng = np.random.default_rng(0)
    true = np.sort(rng.uniform(0.8, 0.85, subnets))
    drawn = [{"id": f"s{i}", "params": int(rng.integers(10_000, 20_000)), "macs": int(1000 - i)} for i in range(subnets)]
    rows = [{"work": "draw", "drawn": drawn}, {"work": "proxies", "values": {"snip": {f"s{i}": i for i in range(subnets)}}}]
    for i in range(subnets - 1):
        seeds = 2 if i % 3 == 0 else 1
        rows += [{"work": f"retrained/s{i}/{seed}", "score": true[i] + 1e-4 * seed} for seed in range(seeds)]
        rows += [{"work": f"finetuned/single-path/s{i}", "score": true[i]}]
    for name, sign in (("single-path", 1), ("reverse", -1)):
        scores = {f"s{i}": 0.7 + sign * 0.01 * i for i in range(subnets)}
        rows.append({"work": f"inherited/{name}", "scores": scores, "largest": 0.9})
        rows.append({"work": f"supernet/{name}", "macs": 2e12, "steps": 1234, "training_cpu_seconds": 56.0})
    header = {"machine": "a machine", "versions": "versions"}
    path.write_text("\n".join(json.dumps({"cpu_seconds": 1.0, **row}) for row in [header, *rows]) + "\n")
    return path


def test_the_table_is_that_of_the_subnets_that_are_done(tmp_path: Path) -> None:
    printed = lines(Results(results(tmp_path / "results.jsonl", 13)))
    assert printed[0].startswith("12 subnets from scratch, 4 of them with two seeds: 80.")
    assert printed[1].startswith("standard deviation of one training 0.01 points, of the subnets 1.")
    cells = {row[0]: row[1:] for row in ([c.strip() for c in line.strip("|").split("|")] for line in printed if "|" in line)}
    assert cells["single-path"][1:2] == ["1.00 (1.00 to 1.00)"]  # after fine-tuning, the last table with this name
    single, reverse = (
        next(line for line in printed if line.startswith(f"| {name} | 2.00")) for name in ("single-path", "reverse")
    )
    assert "| 1,234 | 56 | 90.0 | 75.5 | 1.00 (1.00 to 1.00)" in single
    assert single.endswith("| 0.00 (0.00 to 0.00) |")  # its best is the best
    assert "-1.00 (-1.00 to -1.00)" in reverse
    assert "-2.00 (-2.00 to -2.00)" in reverse  # behind single-path
    assert cells["MACs"][0] == "-1.00 (-1.00 to -1.00)"
    assert cells["proxy snip"][0] == "1.00 (1.00 to 1.00)"
    assert cells["parameters"][1] == ""
