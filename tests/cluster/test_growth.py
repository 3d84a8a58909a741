"""A search on a cluster that has a head alone: nodes come for training, then for evaluation, and go when nobody needs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from growing_cluster import ROOT, growing_cluster

TYPES = {
    "gpu_train": {"resources": {"CPU": 1, "GPU": 1, "training": 1}, "max_workers": 1},
    "gpu_eval": {"resources": {"CPU": 1, "GPU": 1, "evaluation": 1}, "max_workers": 2},
}


VERSIONS = {"v1": False, "v2": True}
"""Of Ray's autoscaler."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What a driver saw on a cluster of each version; both wait most of the time, so they run at once."""

    def one(name: str) -> dict[str, Any]:
        with growing_cluster(TYPES, v2=VERSIONS[name], head={"CPU": 1}) as address:
            program = [sys.executable, Path(__file__).with_name("search_that_grows.py"), address, tmp_path_factory.mktemp(name)]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    with ThreadPoolExecutor() as at_once:
        return dict(zip(VERSIONS, at_once.map(one, VERSIONS), strict=True))


@pytest.mark.parametrize("version", VERSIONS)
def test_nodes_come_for_each_kind_of_work_and_go_when_it_ends(version: str, seen: dict[str, dict[str, Any]]) -> None:
    of = seen[version]
    # A search of minutes takes what is there, and says that there could be GPUs.
    assert of["small"] == [1, {"CPU": 1.0}]
    assert "digits asks for no GPU nodes, though this cluster can start some (gpu_train, gpu_eval)" in of["remarks"][1]
    assert of["at first"] == {"training": 0, "evaluation": 0}
    # Training has its node before evaluation asks for any.
    assert (of["training"], of["for training"]) == (1, {"training": 1, "evaluation": 0})
    assert len(of["scored"]) == 24
    assert of["places"] == [True, True]
    # A node that comes within seconds needs no line.
    waited = r"[01] of (1 training processes|2 evaluators): waiting for GPU nodes \(asked \d+ s ago\)"
    assert all(re.match(waited, line) for line in of["said"] if "nodes (asked" in line), of["said"]
    assert of["at last"] == {"training": 0, "evaluation": 0}
