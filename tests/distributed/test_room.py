"""What is said while there is no room in the cluster, and where a cluster is looked for."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import ray
from idle_cluster import wait_until_idle
from ray.cluster_utils import Cluster

from raysearch.distributed.cluster import connected, resolve
from raysearch.distributed.evaluators import Evaluator
from raysearch.distributed.room import FIRST, Need, NoNodeError, Waiting, awaited, check_room, waits
from raysearch.errors import UserError


def test_what_finds_no_room_is_said_within_seconds_and_once_a_minute(cluster: Cluster) -> None:
    wait_until_idle()
    times, said = [0.0], list[str]()
    need = Need("evaluator", {"CPU": 1.0}, "")
    waiting = Waiting(need, said.append, clock=lambda: times[-1])
    others = ray.remote(num_cpus=2)(Evaluator).remote()
    ray.get(others.ping.remote())
    ours = ray.remote(**need.options)(Evaluator).remote()
    while not waits(need):  # the head is told four times a second
        pass
    for seconds in (0, FIRST - 1, FIRST, FIRST + 1, FIRST + 59, FIRST + 60, FIRST + 61):
        times.append(seconds)
        waiting.look(2, of=2)
    room = "each asks for 1 CPU, the largest node has 2 CPUs, and 0 CPUs are free on one node"
    line = f"2 of 2 evaluators find no room yet: {room}"
    assert said == [f"{line}; waiting for 5 s", f"{line}; waiting for 65 s"]
    ray.kill(others)
    ray.get(ours.ping.remote())
    while waits(need):
        pass
    times.append(1000)
    waiting.look(1, of=2)  # one that starts, and has its room
    assert len(said) == 2
    ray.kill(ours)


def test_one_call_is_waited_for_and_cancelled_when_no_node_comes(cluster: Cluster) -> None:
    def answer_of_all() -> int:
        return 42

    there = Need("timed step", {"CPU": 1.0}, "")
    assert awaited(ray.remote(**there.options)(answer_of_all).remote(), there, print) == 42
    nowhere = Need("timed step", {"GPU": 1.0}, "", comes=True, wait=0.5)
    asked = ray.remote(**nowhere.options)(answer_of_all).remote()
    with pytest.raises(NoNodeError, match="no GPU node came within"):
        awaited(asked, nowhere, print)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(asked, timeout=60)


def test_what_no_node_could_ever_hold_is_refused(cluster: Cluster) -> None:
    check_room(Need("evaluator", {"CPU": 2.0}, ""))
    with pytest.raises(UserError, match=r"asks for 1 GPU and 1 evaluation, .* has 0 GPUs and .*; start a node that has GPUs"):
        check_room(Need("evaluator", {"GPU": 1.0, "evaluation": 1.0}, ""))


def test_a_cluster_that_grows_is_waited_for(cluster: Cluster) -> None:
    """Autoscalers and operators mark the nodes that they start with the group that these belong to."""
    node = cluster.add_node(num_cpus=1, labels={"ray.io/node-group": "cpu-workers"})
    check_room(Need("evaluator", {"CPU": 64.0}, ""))
    cluster.remove_node(node)


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which Ray notes the address of the node's cluster."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


def test_the_address_of_a_cluster_that_was_killed_is_passed_over(noted: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    noted.write_text(address)
    said: list[str] = []
    assert resolve(None, say=said.append) == "local"
    assert said == [f"the Ray cluster noted on this node, at {address}, does not answer: starting one on this machine"]
    for asked in ("auto", address):
        with pytest.raises(UserError, match=f"{address}.*; start one"):
            resolve(asked, say=said.append)
    assert resolve("local", say=said.append) == "local"
    assert len(said) == 1


def test_a_cluster_that_answers_is_ray_s_own_business(noted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(None) is None
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        noted.write_text(address)
        assert resolve(None) is None
        assert resolve("auto") == "auto"
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert resolve(None) == address


@pytest.mark.parametrize("asked", [None, "local"])
def test_a_ray_that_cannot_be_started_is_no_cluster_that_does_not_answer(
    asked: str | None, noted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**settings: object) -> None:
        raise RuntimeError("no room for the GCS\nlog of the GCS")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with (
        pytest.raises(UserError, match=r"^Ray could not be started on this machine: no room for the GCS$"),
        connected(asked),
    ):
        pass
    with socket.create_server(("127.0.0.1", 0)) as listening:
        noted.write_text(address := f"127.0.0.1:{listening.getsockname()[1]}")
        for cluster in (None, address):
            with pytest.raises(UserError, match=f"^no Ray cluster at {address}: no room for"), connected(cluster):
                pass
