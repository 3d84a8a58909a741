"""The main job killed in every phase, as users' machines do it, and continued by the same command."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from search_script import NO_MODELS, kill_when, start

from raysearch.training import checkpoint

EPOCHS = 12
TUNED = 6
"""Epochs of the champion."""
SETTINGS = [
    "digits",
    *("--train.epochs", str(EPOCHS), "--train.warmup-epochs", "2", "--train.workers", "2"),
    *("--search.population", "16", "--search.generations", "4", "--search.mutations", "8", "--search.crossovers", "4"),
    *("--report.random-subnets", "8", "--champion.epochs", str(TUNED), *NO_MODELS),
]
CANDIDATES = 64


def begin(output: Path, *flags: str) -> subprocess.Popen[str]:
    """The script, as a user starts it."""
    return start(output.parents[1], *SETTINGS, "--output", str(output), *flags, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen[str]) -> str:
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    return printed


def journal(output: Path) -> list[dict[str, Any]]:
    """Whole lines of the journal but the first, which names the weights."""
    path = output / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)[1:] if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def table(output: Path) -> list[dict[str, Any]]:
    """candidates.parquet without the time that each took."""
    return pq.read_table(output / "candidates.parquet").drop_columns(["seconds"]).to_pylist()


def without_seconds(value: Any) -> Any:
    """JSON values without the time that epochs took."""
    if isinstance(value, dict):
        return {name: without_seconds(part) for name, part in value.items() if name != "seconds"}
    return [without_seconds(part) for part in value] if isinstance(value, list) else value


@pytest.mark.timeout(1200)
def test_a_search_killed_in_every_phase_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    whole.parent.mkdir()
    killed.parent.mkdir()
    finish(begin(whole))

    def epochs(file: str) -> list[dict[str, Any]]:
        path = killed / file
        return checkpoint.read(path)[1]["history"] if path.exists() else []

    kill_when(begin(killed), lambda: len(epochs("training.safetensors")) >= 3)
    trained = epochs("training.safetensors")
    assert len(trained) < EPOCHS

    kill_when(begin(killed, "--resume"), lambda: len(journal(killed)) >= 24)
    scored = journal(killed)
    assert len(scored) < CANDIDATES
    history = json.loads((killed / "training.json").read_text())["history"]
    assert history[: len(trained)] == trained  # each epoch's seconds too: none was trained again

    begun = "fine-tuned/champion-training.safetensors"
    kill_when(begin(killed, "--resume"), lambda: len(epochs(begun)) >= 2)
    reported, tuned = journal(killed), epochs(begun)
    assert reported[: len(scored)] == scored
    assert any(entry["split"] == "test" for entry in reported)
    assert 2 <= len(tuned) < TUNED
    assert not (killed / ".finished").exists()

    finish(begin(killed, "--resume"))
    assert journal(killed)[: len(reported)] == reported
    keys = [(entry["split"], entry["id"]) for entry in journal(killed)]
    assert len(set(keys)) == len(keys)  # nothing was scored twice
    assert json.loads((killed / "training.json").read_text())["history"] == history

    assert table(killed) == table(whole)
    assert len(table(killed)) == CANDIDATES
    summary = json.loads((killed / "summary.json").read_text())
    undisturbed = json.loads((whole / "summary.json").read_text())
    assert summary["networks"] == undisturbed["networks"]
    assert summary["tuning"]["champion"]["history"][: len(tuned)] == tuned
    assert without_seconds(summary["tuning"]) == without_seconds(undisturbed["tuning"])
    assert {path.name for path in (killed / "fine-tuned").iterdir()} == {"champion.safetensors", "random.safetensors"}

    client = MlflowClient(f"sqlite:///{killed.parent / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'digits'")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert {run.info.status for run in runs} == {"FINISHED"}
    logged = [run.data.tags["raysearch.key"] for run in runs if run.data.tags["raysearch.role"] == "candidate"]
    assert sorted(logged) == sorted(row["id"] for row in table(killed))
    for role, count in (("supernet", EPOCHS), ("champion", TUNED), ("random", TUNED)):
        (training,) = [run for run in runs if run.data.tags["raysearch.role"] == role]
        curve = client.get_metric_history(training.info.run_id, "train/loss")
        assert sorted(point.step for point in curve) == list(range(count))

    assert "finished already" in finish(begin(killed, "--resume"))
    assert json.loads((killed / "summary.json").read_text()) == summary
