"""What a search's record holds, whatever the store: the same suite on SQLite and on a real server."""

import contextlib
import json
import logging
import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from mlflow import MlflowClient
from small_servers import demanding_proxy
from tracked_search import arch, candidate, children, settings

from raysearch.tracking import Tracker, TrackingError, default_uri, ui_command, ui_url


class TrackerContract:
    """Inherited by a class per store, which provides ``uri``."""

    def test_a_search_can_be_read_back(self, uri, request, tmp_path, capfd):
        picture = tmp_path / "report.html"
        picture.write_text("<html></html>")
        with Tracker(**settings(uri, request.node.name), tags={"raysearch.recipe": "digits"}) as tracker:
            for i in range(6):
                tracker.log_candidate(candidate(i))
            tracker.log_metrics({"train/loss": 2.0, "train/lr": 1e-3}, step=0)
            tracker.log_metrics({"train/loss": float("nan"), "train/lr": 5e-4, "smallest/score": None}, step=1)
            tracker.log_artifact(picture)
            tracker.set_tags({"raysearch.champion": arch(3).id})
        assert tracker.close() == 0
        assert capfd.readouterr() == ("", "")

        client = MlflowClient(uri)
        parent = client.get_run(tracker.run_id)
        assert (parent.info.status, parent.info.run_name, parent.data.params) == ("FINISHED", "digits 1", {"seed": "1"})
        assert {"raysearch.role": "search", "raysearch.champion": arch(3).id}.items() <= parent.data.tags.items()
        assert [(p.step, p.value) for p in client.get_metric_history(tracker.run_id, "train/loss")] == [(0, 2.0)]
        assert [p.step for p in client.get_metric_history(tracker.run_id, "train/lr")] == [0, 1]
        assert [f.path for f in client.list_artifacts(tracker.run_id)] == ["report.html"]

        runs = {run.data.tags["raysearch.key"]: run for run in children(uri, tracker.run_id)}
        assert set(runs) == {arch(i).id for i in range(6)}
        scored, failed, odd = runs[arch(3).id], runs[arch(4).id], runs[arch(2).id]
        assert scored.info.status == "FINISHED"
        assert scored.info.end_time - scored.info.start_time == 2500
        assert scored.data.metrics == {
            "score": 0.53, "loss": 0.25, "params": 1003, "macs": 5003, "images_seen": 397, "seconds": 2.5
        }  # fmt: skip
        plotted = dict(scored.data.params)
        assert json.loads(plotted.pop("architecture")) == arch(3).to_dict()
        assert plotted == {
            "index": "3", "generation": "0", "origin": "crossover", "depth": "2", "embed_dim": "67",
            "num_heads_mean": "3.5", "num_heads.00": "3", "num_heads.01": "4",
            "window_mean": "10.5", "window.00.00": "7", "window.01.00": "14", "skipped": "1",
            "pooling.00": "avg", "pooling.01": "max",
        }  # fmt: skip
        origin = {name.removeprefix("raysearch."): v for name, v in scored.data.tags.items() if name.startswith("raysearch.")}
        assert origin == {
            "search_id": request.node.name, "key": arch(3).id, "role": "candidate",
            "status": "scored", "parents": f"{arch(2).id},{arch(1).id}",
        }  # fmt: skip
        assert (failed.info.status, failed.data.tags["raysearch.reason"]) == ("FAILED", "evaluator lost: node 4")
        assert failed.data.metrics == {"params": 1004, "macs": 5004}
        assert "loss" not in odd.data.metrics  # it was infinite

    def test_a_search_that_goes_on_logs_nothing_twice(self, uri, request):
        again = settings(uri, request.node.name)
        with Tracker(**again) as first:
            for i in (0, 1, 1, 4):
                first.log_candidate(candidate(i))
            first.log_metrics({"train/loss": 2.0}, step=0)
            first.log_metrics({"train/loss": 2.0}, step=0)
        with Tracker(**again) as second:
            for i in range(6):
                second.log_candidate(candidate(i))
            for step in range(3):
                second.log_metrics({"train/loss": 1.0, "search/best": 0.5}, step=step)
        assert (second.run_id, second.experiment_id) == (first.run_id, first.experiment_id)
        client = MlflowClient(uri)
        assert [(p.step, p.value) for p in client.get_metric_history(first.run_id, "train/loss")] == [(0, 2), (1, 1), (2, 1)]
        assert len(client.get_metric_history(first.run_id, "search/best")) == 3
        keys = Counter(run.data.tags["raysearch.key"] for run in children(uri, first.run_id))
        assert keys == Counter(arch(i).id for i in range(6))

    def test_training_has_a_run_of_its_own_with_curves_and_the_load_of_the_machine(self, uri, request):
        """Also of a search that was killed in the middle of its training, and of one that goes on after it."""
        again = settings(uri, request.node.name)
        broken = Tracker(**again)
        with contextlib.suppress(KeyboardInterrupt), broken, broken.training({"epochs": 2}):
            broken.log_metrics({"train/loss": 2.0}, step=0, run="supernet")
            raise KeyboardInterrupt
        with Tracker(**again) as second, second.training({"epochs": 2}):
            for step, loss in enumerate((2.0, 1.0)):
                second.log_metrics({"train/loss": loss}, step=step, run="supernet")
            second.log_metrics({"train/loss": 1.0}, step=1, run="supernet")
            second.end_training()
            with second.training({"epochs": 1}, run="champion"):
                second.log_metrics({"train/loss": 0.5}, step=0, run="champion")
        with Tracker(**again) as third:
            third.end_training("champion")
            third.log_metrics({"train/loss": 1.0}, step=1, run="supernet")
            third.end_training()
        client = MlflowClient(uri)
        run, champion = sorted(children(uri, second.run_id), key=lambda child: child.info.run_name, reverse=True)
        assert (champion.info.run_name, champion.info.status, champion.data.params) == ("champion", "FINISHED", {"epochs": "1"})
        assert champion.data.metrics["train/loss"] == 0.5
        assert (run.info.run_name, run.info.status, run.data.tags["raysearch.role"]) == ("supernet", "FINISHED", "supernet")
        assert run.data.params == {"epochs": "2"}
        curve = client.get_metric_history(run.info.run_id, "train/loss")
        assert [(p.step, p.value) for p in curve] == [(0, 2.0), (1, 1.0)]
        assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= run.data.metrics.keys()
        assert "train/loss" not in client.get_run(second.run_id).data.metrics

    def test_the_data_set_is_named_once_with_its_numbers(self, uri, request):
        for _ in range(2):
            with Tracker(**settings(uri, request.node.name)) as tracker:
                tracker.log_dataset("digits", digest="ab" * 32, source="scikit-learn", profile={"train": 1000, "search": 397})
        (used,) = MlflowClient(uri).get_run(tracker.run_id).inputs.dataset_inputs
        assert (used.dataset.name, used.dataset.digest) == ("digits", "ab" * 18)
        assert json.loads(used.dataset.profile) == {"train": 1000, "search": 397}
        assert [(tag.key, tag.value) for tag in used.tags] == [("mlflow.data.context", "search")]

    def test_marked_candidates_are_found(self, uri, request):
        with Tracker(**settings(uri, request.node.name)) as tracker:
            for i in range(3):
                tracker.log_candidate(candidate(i))
            tracker.mark_candidates([arch(0).id, arch(2).id, "never seen"], {"raysearch.front": "true"})
        marked = [run for run in children(uri, tracker.run_id) if run.data.tags.get("raysearch.front") == "true"]
        assert {run.data.tags["raysearch.key"] for run in marked} == {arch(0).id, arch(2).id}

    def test_the_view_of_the_search_is_stored_where_its_address_points(self, uri, request):
        with Tracker(**settings(uri, "view"), axes=("depth", "embed_dim")) as tracker:
            pass
        assert tracker.url.endswith("&compareRunsMode=CHART&viewStateShareKey=raysearch-view")
        tags = MlflowClient(uri).get_experiment(tracker.experiment_id).tags
        stored = tags["mlflow.sharedViewState.raysearch-view"]
        assert len(stored) < 20_000
        state = json.loads(json.loads(stored)["state"])
        assert "'view'" in state["searchFilter"]
        assert [chart["type"] for chart in state["compareRunCharts"]].count("SCATTER") == 3

    def test_what_a_killed_writer_left_is_completed_or_ended(self, uri, request):
        """Left RUNNING: one whose candidate comes again, one whose never does, and one of two for the same candidate."""
        client, again = MlflowClient(uri), settings(uri, request.node.name)
        with Tracker(**again) as first:
            first.log_candidate(candidate(0))

        def leave_running(i):
            tags = {
                "raysearch.search_id": request.node.name, "raysearch.role": "candidate", "raysearch.key": arch(i).id,
                "mlflow.parentRunId": first.run_id,
            }  # fmt: skip
            return client.create_run(first.experiment_id, tags=tags).info.run_id

        twin, lone, orphan = leave_running(0), leave_running(1), leave_running(2)
        client.log_metric(lone, "score", 0.51)
        with Tracker(**again) as second:
            second.log_candidate(candidate(0))
            second.log_candidate(candidate(1))
        found = {run.info.run_id: run for run in children(uri, first.run_id)}
        assert twin not in found
        assert {run.info.status for key, run in found.items() if key != orphan} == {"FINISHED"}
        assert found[orphan].info.status == "KILLED"
        assert found[lone].data.metrics["images_seen"] == 397
        assert len(client.get_metric_history(lone, "score")) == 1
        with Tracker(**again) as third:  # and should it come at last, it is no failure for ever
            third.log_candidate(candidate(2))
        assert client.get_run(orphan).info.status == "FINISHED"

    @pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
    def test_an_exception_ends_the_run_with_all_that_was_logged(self, uri, request, error, status):
        tracker = Tracker(**settings(uri, request.node.name))

        def search():
            with tracker:
                for i in range(4):
                    tracker.log_candidate(candidate(i))
                raise error

        with pytest.raises(error):
            search()
        assert MlflowClient(uri).get_run(tracker.run_id).info.status == status
        assert [run.info.status for run in children(uri, tracker.run_id)] == ["FINISHED"] * 4

    def test_a_record_that_the_store_refuses_is_counted_and_named(self, uri, request, caplog):
        with Tracker(**settings(uri, request.node.name)) as tracker, caplog.at_level(logging.ERROR, "raysearch"):
            tracker.log_metrics({"score!": 1.0}, step=7)
            tracker.log_candidate(candidate(0))
        assert tracker.close() == 1
        assert "refused metrics of step 7" in caplog.text
        assert len(children(uri, tracker.run_id)) == 1

    def test_many_candidates_come_back_over_pages(self, uri, request, monkeypatch):
        monkeypatch.setattr("raysearch.tracking.search_runs._PAGE", 3)
        for _ in range(2):
            with Tracker(**settings(uri, request.node.name)) as tracker:
                for i in range(8):
                    tracker.log_candidate(candidate(i))
        assert len(children(uri, tracker.run_id)) == 8


class TestSqlite(TrackerContract):
    @pytest.fixture
    def uri(self, database: Path) -> str:
        return f"sqlite:///{database}"

    def test_the_database_is_read_while_it_is_written_and_holds_its_files_beside_it(self, uri, database, tmp_path):
        with Tracker(**settings(uri, "wal")) as tracker:
            reader = sqlite3.connect(database)
            assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            reader.close()
        location = MlflowClient(uri).get_run(tracker.run_id).info.artifact_uri
        assert location.startswith((tmp_path / "mlartifacts").as_uri())

    def test_the_first_search_in_a_folder_makes_its_database(self, tmp_path, monkeypatch, capfd):
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with Tracker(**settings(default_uri(tmp_path / "runs"), "first")) as tracker:
            tracker.log_candidate(candidate(0))
        assert (tmp_path / "runs" / "mlflow.db").is_file()
        assert capfd.readouterr() == ("", "")
        assert f"ui --backend-store-uri sqlite:///{tmp_path}/runs/mlflow.db --port 7000" in ui_command(tracker.uri, port=7000)
        assert ui_url(tracker.uri, "5").startswith("http://localhost:5000/#/experiments/5/runs?")

    def test_the_environment_decides_where_when_it_is_set(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
        assert default_uri(tmp_path) == "http://mlflow.example:5000"


class TestServer(TrackerContract):
    @pytest.fixture
    def uri(self, server: str) -> str:
        return server

    def test_a_server_has_its_ui_already(self, uri):
        assert ui_command(uri) == ""
        assert ui_url(uri, "5") == f"{uri}/#/experiments/5/runs?workflowType=machine_learning"

    def test_a_token_is_sent_with_everything(self, uri, monkeypatch, tmp_path):
        """Through a proxy that knows one token; runs, files, models and what is read again."""
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
        picture = tmp_path / "report.html"
        picture.write_text("<html></html>")
        with demanding_proxy(uri, authorization=f"Bearer {'secret'}") as guarded:
            with Tracker(**settings(guarded, "token")) as tracker:
                tracker.log_candidate(candidate(0))
                tracker.log_artifact(picture)
            assert tracker.close() == 0
            monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "wrong")
            with pytest.raises(TrackingError, match="set MLFLOW_TRACKING_TOKEN") as caught:
                Tracker(**settings(guarded, "token"))
            assert "wrong" not in str(caught.value)
        monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
        assert [run.info.status for run in children(uri, tracker.run_id)] == ["FINISHED"]
        assert [f.path for f in MlflowClient(uri).list_artifacts(tracker.run_id)] == ["report.html"]
