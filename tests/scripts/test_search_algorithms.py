"""The algorithms beyond the demo's, from the command line through training, search, report and MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import timm
import torch
from mlflow import MlflowClient
from search_script import NO_MODELS, searched

from raysearch.training.teacher import read_logits

pytestmark = pytest.mark.usefixtures("cluster")

TRAINED = (
    "digits",
    "--train.epochs",
    "2",
    "--train.warmup-epochs",
    "1",
    "--train.workers",
    "1",
    "--report.random-subnets",
    "2",
)
AGEING = (
    *("--algorithm", "ageing", "--ageing.candidates", "24", "--ageing.population", "6"),
    *("--ageing.sample", "3", "--ageing.look-ahead", "4"),
)


def search(output: Path, *flags: str, supernet: Path | None = None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Summary and candidates of a search, which record and report know too; it trains a supernet unless one is given."""
    given = () if supernet is None else ("--supernet", str(supernet))
    summary, _ = searched(*TRAINED, *flags, *given, *NO_MODELS, output=output)
    rows = pq.read_table(output / "candidates.parquet").to_pylist()
    assert [row["index"] for row in rows] == list(range(len(rows)))
    assert summary["counts"]["candidates"] == len({row["id"] for row in rows}) == len(rows)
    assert summary["training"]["epochs"] == (2 if supernet is None else 0)

    best = max((row for row in rows if row["status"] == "scored"), key=lambda row: row["score"])
    champion = summary["networks"]["champion"]
    judged = summary["finalists"]
    assert judged["best"] == best["id"]
    assert champion["id"] in {row["id"] for row in judged["rows"] if not row["beaten"]}
    assert json.loads((output / "champion.json").read_text())["id"] == champion["id"]
    assert champion["id"] in (output / "report.html").read_text()

    client = MlflowClient(f"sqlite:///{output.parent / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'digits'")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    (recorded,) = (run for run in runs if run.data.tags["raysearch.role"] == "search")
    assert recorded.data.params["algorithm"] == flags[1]
    children = {run.data.tags["raysearch.key"]: run.data for run in runs if run.data.tags["raysearch.role"] == "candidate"}
    assert children.keys() == {row["id"] for row in rows}
    for row in rows:
        child = children[row["id"]]
        assert child.metrics["score" if row["status"] == "scored" else "partial_score"] == row["score"]
        assert (child.params["origin"], child.tags["raysearch.status"]) == (row["origin"], row["status"])
    return summary, rows


def test_nsga2_spreads_along_the_front_that_was_asked_for(tmp_path: Path) -> None:
    """Over a supernet that another network taught in part, by logits that were kept."""
    teacher = timm.create_model("test_resnet", num_classes=10)
    torch.save(teacher.state_dict(), tmp_path / "teacher.pth")
    flags = ("--nsga2.population", "6", "--nsga2.generations", "3", "--nsga2.objectives", "score", "macs")
    teaching = ("--teacher.name", "test_resnet", "--teacher.weights", str(tmp_path / "teacher.pth"), "--teacher.cache")
    taught = (*teaching, "--train.distill.weight", "0.1", "--teacher.img-size", "32")
    summary, rows = search(tmp_path / "run", "--algorithm", "nsga2", *flags, *taught)
    logits = read_logits(tmp_path / "run" / "cache" / "teacher-logits.safetensors")
    assert logits.shape == (800, 10)
    assert logits.isfinite().all()
    stored = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]["train"]["distill"]
    assert stored["source"] == "teacher"
    assert summary["counts"]["generations"] == 3
    assert [row["generation"] for row in rows] == [0] * 6 + [1] * 6 + [2] * 6
    assert {row["origin"] for row in rows[6:]} <= {"crossover", "mutation"}

    def beaten(row: dict[str, Any]) -> bool:
        return any(
            other["score"] >= row["score"]
            and other["macs"] <= row["macs"]
            and (other["score"], other["macs"]) != (row["score"], row["macs"])
            for other in rows
        )

    front = json.loads((tmp_path / "run" / "front.json").read_text())
    assert [row["macs"] for row in front] == sorted({row["macs"] for row in rows if not beaten(row)})
    assert not any(beaten(row) for row in front)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "as few MACs" in page


def test_ageing_evolution_breeds_from_the_latest(finished_search: Path, tmp_path: Path) -> None:
    summary, rows = search(tmp_path / "run", *AGEING, supernet=finished_search / "supernet.safetensors")
    assert summary["counts"]["scored"] == 24
    assert [row["origin"] for row in rows[:6]] == ["random"] * 6
    index = {row["id"]: row["index"] for row in rows}
    mutants = [row for row in rows if row["origin"] == "mutation"]
    assert len(mutants) >= 12
    for row in mutants:
        (parent,) = row["parents"]
        assert 4 <= row["index"] - index[parent] < 4 + 6  # told by then, and not too old


def test_candidates_are_scored_on_the_images_that_tell_them_apart(finished_search: Path, tmp_path: Path) -> None:
    """The first six on all, the others on about a hundred; resumed, nothing is scored again and nothing changes."""
    flags = ("--informative.images", "100", "--informative.pilots", "6", "--informative.check", "10")
    supernet = finished_search / "supernet.safetensors"
    summary, rows = search(tmp_path / "run", *AGEING, *flags, supernet=supernet)
    assert {row["images_seen"] for row in rows[:6]} == {397}
    assert all(60 < row["images_seen"] < 150 for row in rows[6:16])
    use = summary["informative"]
    assert (use["candidates"], use["of"], use["samples"]) == (24, 397, len({row["images_seen"] for row in rows} - {397}))
    assert use["sampled"] == sum(row["images_seen"] < 397 for row in rows)
    assert "that tell candidates apart" in (tmp_path / "run" / "report.html").read_text()
    assert summary["networks"]["champion"]["score_interval"]
    assert {row["status"] for row in rows} == {"scored"}
    again, same = search(tmp_path / "run", *AGEING, *flags, "--resume", supernet=supernet)
    assert same == rows
    assert again["networks"]["champion"] == summary["networks"]["champion"]


def test_ageing_evolution_races(finished_search: Path, tmp_path: Path) -> None:
    """With so high an error level that candidates of a hardly trained supernet are told apart by a few images."""
    races = ("--racing.enabled", "--racing.error", "0.8", "--racing.block", "10")
    summary, rows = search(tmp_path / "run", *AGEING, *races, supernet=finished_search / "supernet.safetensors")
    raced = [row for row in rows if row["status"] == "raced"]
    assert raced
    assert all(10 <= row["images_seen"] < 397 for row in raced)
    assert {row["images_seen"] for row in rows if row["status"] == "scored"} == {397}
    assert {row["status"] for row in rows[:9]} == {"scored"}  # until a look-ahead after the sixth there is nobody to beat
    assert (summary["counts"]["raced"], summary["racing"]["raced"]) == (len(raced), len(raced))
    assert not {row["id"] for row in raced} & {parent for row in rows for parent in row["parents"]}
    assert "Images saved by racing" in (tmp_path / "run" / "report.html").read_text()
