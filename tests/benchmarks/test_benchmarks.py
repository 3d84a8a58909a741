"""Every benchmark script runs, with settings so small that its numbers mean nothing. Nothing here judges a number."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from search_script import ROOT

TABLES = {
    "algorithms": ("The table: 300 subnets", "Zero-cost proxies", "Searches of the surrogate"),
    "orchestration": ("Start-up to the first score", "Free scores", "Growth with history", "Scores of"),
    "racing": ("The search, error 0.02", "Races replayed", "Simulated pairs"),
    "utilisation": ("Share of time",),
    "memory": ("Building the image cache", "Evaluators on a node", "A further evaluator"),
}
"""Scripts, and the tables that they must print."""


@pytest.mark.parametrize("script", TABLES)
def test_benchmark_runs(script: str) -> None:
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("RAY_ADDRESS", None)
    process = subprocess.run(
        [sys.executable, f"benchmarks/{script}.py", "--quick"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "cores" in process.stdout.splitlines()[1]
    assert [table for table in TABLES[script] if table not in process.stdout] == []
