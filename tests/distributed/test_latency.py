"""Latency in a cluster: one at a time on a device, before the search and during it."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.cluster_utils import Cluster

from raysearch.data import ArrayImages, Normalisation, write_cache
from raysearch.data.config import DIGITS
from raysearch.distributed.evaluators import EvaluatorConfig, SupernetScorer
from raysearch.distributed.files import NodeFile, serve, share
from raysearch.evaluation import Classification
from raysearch.latency import LatencyConfig, LatencyRule, device_name
from raysearch.search import Failure, Result
from raysearch.spaces.autoformer import AutoFormerArchitecture, AutoFormerSupernet
from raysearch.training.supernets import SupernetFile

# --- the lock ---

HOLDER = """
import sys
from pathlib import Path
from raysearch.distributed.device_lock import DeviceLock
folder, way, name = sys.argv[1:]
with getattr(DeviceLock(Path(folder), "gpu-0"), way)():
    with open(folder + "/record", "a") as record:
        print(name, "in", file=record, flush=True)
        print("in", flush=True)
        sys.stdin.readline()
        print(name, "out", file=record, flush=True)
"""


def hold(folder: Path, way: str, name: str) -> subprocess.Popen[str]:
    """A process that takes the lock, says so, and keeps it until it is told to go on."""
    command = [sys.executable, "-c", HOLDER, str(folder), way, name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_until_in(holder: subprocess.Popen[str]) -> None:
    assert holder.stdout is not None
    assert holder.stdout.readline() == "in\n"


def let_go(holder: subprocess.Popen[str]) -> None:
    holder.communicate("\n")
    assert holder.returncode == 0


def taken(path: Path) -> bool:
    """Whether some process holds this lock."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_scores_share_the_device_and_a_measurement_has_it_alone(tmp_path: Path) -> None:
    """Two score at once; who measures waits for both, and who comes later to score waits for the measurement."""
    scorers = [hold(tmp_path, "shared", name) for name in ("one", "two")]
    for scorer in scorers:
        wait_until_in(scorer)  # both are in: they share it
    measuring = hold(tmp_path, "alone", "measuring")
    while not taken(tmp_path / "gpu-0.turnstile.lock"):
        assert measuring.poll() is None
    late = hold(tmp_path, "shared", "late")
    let_go(scorers[0])
    assert taken(tmp_path / "gpu-0.lock")
    let_go(scorers[1])
    wait_until_in(measuring)
    let_go(measuring)
    wait_until_in(late)
    let_go(late)
    record = (tmp_path / "record").read_text().splitlines()
    assert record[2:] == ["one out", "two out", "measuring in", "measuring out", "late in", "late out"]


def test_a_process_that_is_killed_holds_nothing(tmp_path: Path) -> None:
    killed = hold(tmp_path, "alone", "killed")
    wait_until_in(killed)
    assert taken(tmp_path / "gpu-0.lock")
    killed.kill()
    killed.communicate()
    after = hold(tmp_path, "alone", "after")
    wait_until_in(after)
    let_go(after)


# --- the scorer ---

ARCH = AutoFormerArchitecture(embed_dim=32, num_heads=(2,), mlp_ratio=(2.0,))
QUICK = LatencyConfig(warmup=1, repetitions=3, fitted=4, held_out=2)


@pytest.fixture
def threads() -> Iterator[None]:
    """A scorer sets the threads of its process, which is the tests' own here."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def supernet_and_images(cluster: Cluster, tmp_path: Path) -> tuple[NodeFile, NodeFile]:
    sizes: dict[str, Any] = {"img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 10, "embed_dim": 32, "depth": 1}
    supernet = AutoFormerSupernet(**sizes, num_heads=2, head_dim=16)
    SupernetFile("autoformer", supernet.settings(), supernet.state_dict()).write(tmp_path / "supernet.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
    write_cache(ArrayImages(pixels, np.arange(20, dtype=np.int64) % 10), tmp_path / "images.arrow", DIGITS)
    server = serve()
    return share(tmp_path / "supernet.safetensors", server=server), share(tmp_path / "images.arrow", server=server)


def scored(files: tuple[NodeFile, NodeFile], rule: LatencyRule | None) -> Result | Failure:
    normalise = Normalisation(DIGITS.mean, DIGITS.std)
    scorer = SupernetScorer(files[0], task=Classification(), normalise=normalise, config=EvaluatorConfig(cpus=1), latency=rule)
    return scorer.score(ARCH, files[1])


@pytest.mark.usefixtures("threads")
def test_a_candidate_is_measured_and_one_above_the_limit_is_excluded(supernet_and_images: tuple[NodeFile, NodeFile]) -> None:
    torch.set_num_threads(1)
    here = device_name(torch.device("cpu"))
    plain = scored(supernet_and_images, None)
    assert isinstance(plain, Result)
    assert (plain.latency_ms, plain.excluded) == (None, None)
    for limit, excluded in ((None, None), (1e6, None), (1e-6, "slow")):
        result = scored(supernet_and_images, LatencyRule(QUICK, device=here, max_ms=limit))
        assert isinstance(result, Result)
        assert result.latency_ms is not None
        assert result.latency_ms > 0
        assert result.excluded == excluded
        assert replace(result, latency_ms=None, excluded=None, seconds=0.0) == replace(plain, seconds=0.0)


@pytest.mark.usefixtures("threads")
def test_times_of_another_device_are_not_compared(supernet_and_images: tuple[NodeFile, NodeFile]) -> None:
    with pytest.raises(ValueError, match="predicts the latency of NVIDIA H100: keep evaluators on one kind of device"):
        scored(supernet_and_images, LatencyRule(QUICK, device="NVIDIA H100", max_ms=None))
