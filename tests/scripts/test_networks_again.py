"""Networks of a finished search, trained once more: further, from scratch, and on other classes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from mlflow import MlflowClient
from ray.cluster_utils import Cluster
from search_script import ROOT, accuracy, program, succeed, write_tones

from raysearch.store.candidates import best_rows, read_candidates
from raysearch.tasks.images import DIGITS
from raysearch.tasks.images.classification import ImageClassification
from raysearch.training import checkpoint

EPOCHS = 20


def read(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / name).read_text())


def only(base: Path, pattern: str) -> Path:
    (found,) = base.glob(pattern)
    return found


def test_a_fine_tuning_that_was_killed_goes_on_and_leaves_a_better_known_network(
    cluster: Cluster, finished_search: Path
) -> None:
    """Of a candidate that is named by the beginning of its id, with the largest subnet as its teacher."""
    champion = read(finished_search, "champion.json")["id"]
    rows = [row for row in best_rows(read_candidates(finished_search / "candidates.parquet")) if row.id != champion]
    chosen = rows[0].id
    flags = (
        str(finished_search),
        "--subnet",
        chosen[:7],
        "--epochs",
        str(EPOCHS),
        "--train.workers",
        "1",
        "--train.lr",
        "2e-3",
    )
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "experiments" / "finetune.py"), *flags],
        env={**os.environ, "RAY_ADDRESS": cluster.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    pulse = threading.Event()

    def begun() -> list[dict[str, Any]]:
        paths = [*finished_search.glob(f"finetune-{chosen}-*/network-training.safetensors")]
        return checkpoint.read(paths[0])[1]["history"] if paths else []

    while len(begun()) < 2:
        assert process.poll() is None, process.communicate()[0]
        pulse.wait(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    trained = begun()
    assert 2 <= len(trained) < EPOCHS

    printed = succeed("finetune", *flags)
    folder = only(finished_search, f"finetune-{chosen}-*")
    assert f"finetune: subnet {chosen}" in printed
    result = read(folder, "result.json")
    assert result["history"][: len(trained)] == trained  # each epoch's seconds too: none was trained again
    assert [record["epoch"] for record in result["history"]] == list(range(EPOCHS))
    assert result["test"] > result["inherited_test"]  # four epochs of a supernet leave much to learn
    assert result["test_gain"]["value"] == pytest.approx(result["test"] - result["inherited_test"])
    assert accuracy(folder / "champion.json", DIGITS, folder / "cache" / "test.arrow") == pytest.approx(result["test"])
    card = read(folder, "champion.json")
    assert (card["id"], card["test_score"], card["training"]["taught"]) == (
        chosen,
        result["test"],
        "the supernet's largest subnet",
    )
    assert f"was fine-tuned for {EPOCHS} epochs, beginning with the weights" in (folder / "champion.md").read_text()
    assert not [*folder.glob("*-training.safetensors"), *folder.glob("start.safetensors"), *folder.glob("before.safetensors")]

    client = MlflowClient(f"sqlite:///{finished_search.parent / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'digits'")
    (run,) = client.search_runs([experiment.experiment_id], "tags.`raysearch.role` = 'finetune'")
    summary = read(finished_search, "summary.json")
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == summary["mlflow_run_id"]
    assert run.data.tags["raysearch.search_id"] == summary["search_id"]
    curve = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted(point.step for point in curve) == list(range(EPOCHS))
    assert run.data.metrics["test_score"] == pytest.approx(result["test"])
    assert {"champion.json", "champion.safetensors", "result.json"} <= {f.path for f in client.list_artifacts(run.info.run_id)}
    assert "finished already" in succeed("finetune", *flags)


@pytest.mark.usefixtures("cluster")
def test_a_network_is_trained_from_scratch_beside_the_weights_that_it_has(finished_search: Path) -> None:
    succeed("retrain", str(finished_search), "--epochs", "1", "--train.workers", "1", "--train.lr", "1e-3")
    folder = only(finished_search, "retrain-*")
    result, card = read(folder, "result.json"), read(folder, "champion.json")
    assert result["inherited_test"] == read(finished_search, "champion.json")["test_score"]
    assert (card["training"]["how"], card["training"]["began"]) == ("trained from scratch", "fresh weights")
    assert (card["training"]["epochs"], card["training"]["lr"]) == (1, 1e-3)
    first = checkpoint.read(folder / "champion.safetensors")[0]
    known = checkpoint.read(finished_search / "champion.safetensors")[0]
    correlated = (first["head.weight"] * known["head.weight"]).sum() / first["head.weight"].norm() / known["head.weight"].norm()
    assert abs(float(correlated)) < 0.3  # weights that began with others are alike


@pytest.mark.usefixtures("cluster")
def test_a_network_learns_other_classes_on_the_same_body(finished_search: Path, tmp_path: Path) -> None:
    """From its two files alone, in another image size."""
    data = write_tones(tmp_path / "tones", count=60, size=24)
    source = tmp_path / "taken"
    source.mkdir()
    for name in ("champion.json", "champion.safetensors"):
        (source / name).write_bytes((finished_search / name).read_bytes())
    flags = ("--data", str(data), "--dataset.img-size", "12", "--epochs", "4", "--train.workers", "1")
    succeed("transfer", str(source / "champion.json"), *flags, "--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}")
    folder = only(source, "transfer-*")
    card = read(folder, "champion.json")
    assert (card["classes"], card["preprocessing"]["img_size"], card["settings"]["num_classes"]) == (["dark", "light"], 12, 2)
    assert card["training"]["how"] == "transferred"
    assert card["test_score"] > 0.75
    task = ImageClassification(DIGITS.__class__(**{**DIGITS_SIZED, "root": data}))
    (folder / "again.arrow").unlink(missing_ok=True)
    task.write_cache(task.splits().test, folder / "again.arrow")
    assert accuracy(folder / "champion.json", task.dataset, folder / "again.arrow") == pytest.approx(card["test_score"])


DIGITS_SIZED: dict[str, Any] = {
    "dataset": "images",
    "img_size": 12,
    "search_images": 0.1,
    "finalist_images": 0,
    "test_images": 0.15,
    "crop_pct": 1.0,
}
"""As digits are prepared, in another size, of pictures in folders."""


@pytest.mark.parametrize(
    ("job", "arguments", "message"),
    [
        ("finetune", ("nowhere",), "nowhere is no output folder of a search"),
        ("finetune", ("{search}", "--epochs", "1", "--train.epochs", "2"), "--epochs and --train.epochs are the same"),
        ("finetune", ("{search}", "--subnet", ""), "ids begin so"),
        ("finetune", ("{search}", "--img-size", "9"), "img_size 9 is not a multiple of patch_size 4"),
        ("finetune", ("{search}", "--teacher", "resnet1t"), "--teacher resnet1t: timm has no network of that name"),
        ("finetune", ("{search}", "--teacher-weights", "net.pth"), "give its name in timm with --teacher"),
        ("finetune", ("{search}", "--teacher", "resnet10t", "--train.distill.weight", "0"), "lets --teacher teach nobody"),
        ("retrain", ("{search}", "--subnet", "zz"), "--subnet zz: no such candidate"),
        ("transfer", ("{search}", "--data", "{tmp}/nowhere"), "which is not a folder"),
    ],
)
def test_what_cannot_be_is_one_line(
    finished_search: Path, tmp_path: Path, job: str, arguments: tuple[str, ...], message: str
) -> None:
    places = {"search": str(finished_search), "tmp": str(tmp_path)}
    assert message in program(job, *(argument.format(**places) for argument in arguments)).message


@pytest.mark.usefixtures("cluster")
def test_a_network_of_timms_teaches(finished_search: Path, tmp_path: Path) -> None:
    """One that knows the ten digits, from a file; one that knows other classes is refused before anything starts."""
    torch.manual_seed(0)
    torch.save(timm.create_model("resnet10t", num_classes=10, in_chans=1).state_dict(), tmp_path / "teacher.pth")
    flags = (str(finished_search), "--teacher", "resnet10t", "--epochs", "1", "--train.workers", "1")
    succeed("finetune", *flags, "--teacher-weights", str(tmp_path / "teacher.pth"), "--output", str(tmp_path / "taught"))
    assert read(tmp_path / "taught", "champion.json")["training"]["taught"] == "timm's resnet10t"
    assert not (tmp_path / "taught" / "teacher.safetensors").exists()
    torch.save(timm.create_model("resnet10t", num_classes=7, in_chans=1).state_dict(), tmp_path / "other.pth")
    refused = program("finetune", *flags, "--teacher-weights", str(tmp_path / "other.pth")).message
    assert f"--teacher-weights {tmp_path / 'other.pth'} has 7 classes, the images have 10" in refused
