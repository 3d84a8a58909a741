"""Latency in a cluster: one at a time on a device, before the search and during it."""

from __future__ import annotations

import fcntl
import io
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ray.cluster_utils import Cluster
from rich.console import Console

from raysearch.distributed.evaluators import EvaluatorConfig
from raysearch.distributed.files import NodeFile, serve, share
from raysearch.distributed.supernet_scorer import SupernetScorer
from raysearch.jobs.plan import SearchCommand
from raysearch.jobs.search import run
from raysearch.recipes.autoformer import DIGITS_RECIPE
from raysearch.recipes.recipe import ReportConfig
from raysearch.scoring.latency import LatencyConfig, LatencyRule, device_name
from raysearch.search import EvolutionConfig, Failure, Result
from raysearch.space.cost import Constraint
from raysearch.spaces.autoformer import FAMILY, AutoFormerArchitecture, AutoFormerConfig, AutoFormerSupernet, SpaceConfig
from raysearch.store.folder import read_json, write_json
from raysearch.tasks.images import ArrayImages, write_cache
from raysearch.tasks.images.classification import ImageClassification
from raysearch.tasks.images.config import DIGITS
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
    SupernetFile(FAMILY, supernet.settings(), supernet.state_dict()).write(tmp_path / "supernet.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
    write_cache(ArrayImages(pixels, np.arange(20, dtype=np.int64) % 10), tmp_path / "images.arrow", DIGITS)
    server = serve()
    return share(tmp_path / "supernet.safetensors", server=server), share(tmp_path / "images.arrow", server=server)


def scored(files: tuple[NodeFile, NodeFile], rule: LatencyRule | None) -> Result | Failure:
    scorer = SupernetScorer(
        files[0], family=FAMILY, task=ImageClassification(DIGITS), config=EvaluatorConfig(cpus=1), latency=rule
    )
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


# --- a search ---


@pytest.mark.usefixtures("cluster")
def test_a_search_within_a_latency_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused at once where nothing is fast enough; else every candidate is predicted and measured, and a table is kept."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 2, "head_dim": 16, "mlp_ratio": 2.0, "max_relative_position": 1}
    net = replace(DIGITS_RECIPE.config.net, **sizes)
    supernet = AutoFormerSupernet(img_size=8, in_chans=1, num_classes=10, **asdict(net))
    SupernetFile(FAMILY, supernet.settings(), supernet.state_dict()).write(tmp_path / "supernet.safetensors")
    recipe = replace(
        DIGITS_RECIPE,
        config=AutoFormerConfig(SpaceConfig(embed_dim=(16, 32), num_heads=(1, 2), mlp_ratio=(1.0, 2.0), depth=(1, 2)), net),
        algorithm="evolution",
        search=EvolutionConfig(population=3, generations=1),
        constraint=Constraint(max_latency_ms=1e-4),
        latency=QUICK,
        evaluators=EvaluatorConfig(max_evaluators=1),
        report=ReportConfig(random_subnets=1),
    )
    console = Console(file=io.StringIO(), width=200)
    command = SearchCommand(recipe, output=tmp_path / "run", supernet=tmp_path / "supernet.safetensors")
    with pytest.raises(ValueError, match=r"has no subnet with latency <= 0.0001 ms: it offers .* ms \(predicted\)") as refused:
        run(command, line="search", console=console)
    assert "\n" not in str(refused.value)
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {".lock"}

    command = replace(command, recipe=replace(recipe, constraint=Constraint(max_latency_ms=1e4)))
    summary = run(command, line="search", console=console).to_dict()
    rows = pq.read_table(tmp_path / "run" / "candidates.parquet").to_pylist()
    assert len(rows) == 3
    assert all(row["latency_ms"] > 0 and row["predicted_latency_ms"] > 0 and row["status"] == "scored" for row in rows)
    latency = summary["latency"]
    (champion,) = [row for row in rows if row["id"] == summary["networks"]["champion"]["id"]]
    assert latency["champion_ms"] == champion["latency_ms"]
    assert latency["champion_predicted_ms"] == champion["predicted_latency_ms"]
    assert (latency["fitted"], latency["held_out"], latency["batch_size"], latency["slow"]) == (4, 2, 1, 0)
    assert "latency of the champion" in console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert "<h2>Latency</h2>" in (tmp_path / "run" / "report.html").read_text()

    table = read_json(tmp_path / "run" / "latency.json")
    assert [part["part"] for part in table["parts"]].count("block") == 8
    assert len(table["measured"]) == 6
    for name in (".finished", "summary.json"):
        (tmp_path / "run" / name).unlink()
    slower = {name: 2 * value for name, value in table["coefficients"].items()}
    write_json(tmp_path / "run" / "latency.json", {**table, "coefficients": slower})
    again = run(replace(command, resume=True), line="search", console=console).to_dict()["latency"]
    assert again["champion_predicted_ms"] == pytest.approx(2 * latency["champion_predicted_ms"])  # the table that was there
    assert again["champion_ms"] == latency["champion_ms"]  # nothing was measured anew

    (tmp_path / "run" / ".finished").unlink()
    write_json(tmp_path / "run" / "latency.json", {"coefficients": {}})
    with pytest.raises(ValueError, match=r"latency.json is damaged \(it lacks 'device'\); remove it to measure anew"):
        run(replace(command, resume=True), line="search", console=console)
