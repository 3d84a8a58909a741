"""What a whole search leaves in MLflow, and what resuming it adds."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from copies import copied_search
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from search_script import accuracy, program, searched

from raysearch.store.predictions import read_predictions
from raysearch.tasks.images import DIGITS
from raysearch.tracking import artifact_of_run, recorded_searches


def test_a_finished_search_is_recorded_with_training_data_front_and_networks(finished_search: Path) -> None:
    client = MlflowClient(f"sqlite:///{finished_search.parent / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'digits'")
    runs = client.search_runs([experiment.experiment_id])
    by_role = {run.data.tags["raysearch.role"]: run for run in runs}
    (used,) = by_role["search"].inputs.dataset_inputs
    sizes = json.loads(used.dataset.profile)
    command = json.loads((finished_search / "summary.json").read_text())["command"]
    search = by_role["search"].data
    assert search.tags["raysearch.command"] == command
    assert command not in search.params.values()  # two searches side by side would have an axis of command lines
    assert (used.dataset.name, sizes) == ("digits", {"train": 800, "search": 397, "finalists": 200, "test": 400, "classes": 10})
    for role in ("supernet", "champion", "random"):
        training = by_role[role]
        assert training.info.status == "FINISHED"
        assert {"train/loss", "train/lr", "system/cpu_utilization_percentage"} <= training.data.metrics.keys()
    assert {"champion/tuned_test_score", "random/tuned_test_score", "champion/tuning_test_gain_low"} <= search.metrics.keys()

    champion = json.loads((finished_search / "champion.json").read_text())["id"]
    front = {row["id"] for row in json.loads((finished_search / "front.json").read_text())}
    marked = {run.data.tags["raysearch.key"] for run in runs if "raysearch.front" in run.data.tags}
    assert marked == front
    versions = client.search_model_versions("name = 'digits'")
    assert sorted(version.tags["raysearch.key"] for version in versions) == sorted(front | {champion})  # each once
    named = client.get_model_version_by_alias("digits", "champion")
    assert named.tags["raysearch.key"] == champion
    assert named.run_id == json.loads((finished_search / "summary.json").read_text())["mlflow_run_id"]  # whose page shows it
    assert not list(finished_search.glob("model-*"))
    assert not (finished_search / "tracking.jsonl").exists()


def test_what_the_champion_says_of_each_test_image_is_kept(finished_search: Path) -> None:
    summary = json.loads((finished_search / "summary.json").read_text())
    said = read_predictions(finished_search / "test-predictions.parquet")
    assert len(said.labels) == summary["counts"]["test_images"]
    tuning = summary["tuning"]
    deployed = tuning["champion"][{"fine-tuned": "test", "inherited": "inherited_test"}[tuning["deployed"]]]
    assert (said.labels == said.predicted).mean() == pytest.approx(deployed)
    assert said.classes == tuple("0123456789")
    assert len(said.pictures) == min(12, (said.labels != said.predicted).sum())
    client = MlflowClient(f"sqlite:///{finished_search.parent / 'mlflow.db'}")
    recorded = {file.path for file in client.list_artifacts(summary["mlflow_run_id"])}
    assert {"report.html", "test-predictions.parquet"} <= recorded


def test_the_champion_is_trained_further_beside_a_random_network_and_deployed_with_what_scored_higher(
    finished_search: Path,
) -> None:
    summary = json.loads((finished_search / "summary.json").read_text())
    tuning, networks = summary["tuning"], summary["networks"]
    assert (tuning["epochs"], tuning["items"]) == (2, 397 + 200)
    assert tuning["deployed"] == ("fine-tuned" if tuning["champion"]["gain"]["value"] > 0 else "inherited")
    assert tuning["champion"]["inherited_test"] == networks["champion"]["test_score"]  # the search's own scoring says the same
    assert tuning["random"]["id"] in networks["random"]["ids"]
    assert tuning["random"]["inherited_test"] in networks["random"]["test_scores"]

    tested = {
        name: accuracy(finished_search / f"{name}.json", DIGITS, finished_search / "cache" / "test.arrow")
        for name in ("champion", "champion-inherited")
    }
    after = tuning["champion"]["test" if tuning["deployed"] == "fine-tuned" else "inherited_test"]
    assert tested == pytest.approx({"champion": after, "champion-inherited": networks["champion"]["test_score"]})
    cards = {name: json.loads((finished_search / f"{name}.json").read_text()) for name in tested}
    assert cards["champion"]["test_score"] == pytest.approx(after)
    assert "training" not in cards["champion-inherited"]
    told = (finished_search / "champion.md").read_text().lower()
    assert "fine-tuned for 2 epochs" in told
    assert ("deployed are the inherited weights" in told) == (tuning["deployed"] == "inherited")


def test_a_search_that_has_its_result_gets_its_models_later_and_a_failed_export_costs_that_model_alone(
    finished_search: Path, digits_flags: tuple[str, ...], tmp_path: Path
) -> None:
    """As after a kill between the end of the search and the registry: what is left is done by ``--resume``."""
    output = copied_search(finished_search, tmp_path / "copy")
    client = MlflowClient(f"sqlite:///{output.parent / 'mlflow.db'}")
    registered = {version.tags["raysearch.key"] for version in client.search_model_versions("name = 'digits'")}
    client.delete_registered_model("digits")
    (output / ".unregistered").touch()
    unlucky = max(registered)
    (output / f"model-{unlucky}").write_text("a file where its exported files would go")

    ended = program("search", *digits_flags, "--resume", "--output", str(output))
    assert ended.code == 0
    assert ended.complaints.count("\n") == 1
    assert f"network {unlucky} is not registered in MLflow" in ended.complaints
    versions = {version.tags["raysearch.key"]: version for version in client.search_model_versions("name = 'digits'")}
    assert set(versions) == registered - {unlucky}
    summary = json.loads((output / "summary.json").read_text())
    assert summary["unregistered"] == [unlucky]
    assert not (output / ".unregistered").exists()


def test_resuming_a_finished_search_writes_what_mlflow_had_missed(
    finished_search: Path, digits_flags: tuple[str, ...], tmp_path: Path
) -> None:
    output = copied_search(finished_search, tmp_path / "copy")
    missed = {"kind": "tags", "what": "tags", "values": {"tags": {"raysearch.late": "yes"}}}
    (output / "tracking.jsonl").write_text(json.dumps(missed) + "\n")
    _, printed = searched(*digits_flags, "--resume", output=output)
    assert "finished already" in printed
    assert not (output / "tracking.jsonl").exists()
    run_id = json.loads((output / "summary.json").read_text())["mlflow_run_id"]
    run = MlflowClient(f"sqlite:///{output.parent / 'mlflow.db'}").get_run(run_id)
    assert (run.info.status, run.data.tags["raysearch.late"]) == ("FINISHED", "yes")


def test_a_record_that_was_moved_finds_its_artifacts(
    finished_search: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As results that were fetched from a cluster's head, where they lay in a folder that is not on this machine."""
    output = copied_search(finished_search, tmp_path / "copy")
    database = output.parent / "mlflow.db"
    head = "file:///home/ray-of-the-tests/runs"

    def named(place: str, instead: str | None = None) -> set[tuple[str, str]]:
        """Tables and columns that name a place; another is put there."""
        found: set[tuple[str, str]] = set()
        with closing(sqlite3.connect(database)) as record, record:
            for (table,) in record.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                for _, column, kind, *_ in record.execute(f"PRAGMA table_info({table})").fetchall():
                    where = f"FROM {table} WHERE instr({column}, ?)"
                    if "CHAR" in kind and record.execute(f"SELECT count(*) {where}", [place]).fetchone()[0]:
                        found.add((table, column))
                        if instead is not None:
                            change = f"UPDATE {table} SET {column} = replace({column}, ?, ?) WHERE instr({column}, ?)"
                            record.execute(change, [place, instead, place])
        return found

    moved = named(finished_search.parent.as_uri(), head)
    assert ("runs", "artifact_uri") in moved
    assert named(head) == moved

    uri = f"sqlite:///{database}"
    assert len(recorded_searches(uri)) == 1
    here = output.parent / "mlartifacts"
    assert caplog.messages == [
        f"{database} was moved here: its artifacts are found in {here} from now on, no more in {head}/mlartifacts"
    ]
    assert named(head) == set()
    client = MlflowClient(uri)
    run_id = json.loads((output / "summary.json").read_text())["mlflow_run_id"]
    recorded = {file.path for file in client.list_artifacts(run_id)}
    assert {"report.html", "champion.safetensors"} <= recorded
    fetched = Path(client.download_artifacts(run_id, "champion.safetensors", str(tmp_path)))
    assert fetched.read_bytes() == (output / "champion.safetensors").read_bytes()
    version = client.get_model_version_by_alias("digits", "champion")
    model = Path(download_artifacts(client.get_model_version_download_uri("digits", version.version), dst_path=str(tmp_path)))
    assert (model / "MLmodel").exists()

    assert artifact_of_run(uri, run_id, "config.json", folder=tmp_path).exists()
    assert len(caplog.messages) == 1  # said once
