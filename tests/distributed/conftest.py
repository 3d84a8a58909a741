"""One Ray cluster for the whole test run: a head of two CPUs that tests may add nodes to."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# A cluster started by hand and one started by ray.init differ in whether they ask for a token.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import ray
from ray.cluster_utils import Cluster

import raysearch.distributed.cluster  # sets Tune's environment before the cluster's processes inherit it


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    assert raysearch.distributed.cluster.Actor
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    ray.init(address=running.address, log_to_driver=False)
    yield running
    ray.shutdown()
    running.shutdown()
