"""Several processes that open a store at once which is not there yet: each is served, and the store is whole."""

import subprocess
import sys

from mlflow import MlflowClient

OPENING = """
import sys
from raysearch.tracking.store import open_store, quieten_mlflow

quieten_mlflow()
print("ready", flush=True)
sys.stdin.readline()
client, experiment = open_store(sys.argv[1], sys.argv[2])
print(client.create_run(experiment).info.experiment_id, flush=True)
"""


def test_searches_that_start_at_once_make_one_store(tmp_path):
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    opening = [
        subprocess.Popen([sys.executable, "-c", OPENING, uri, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in ("digits", "digits", "images")
    ]
    for process in opening:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in opening:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    experiments = [process.communicate()[0].strip() for process in opening]
    assert [process.returncode for process in opening] == [0, 0, 0]
    assert experiments[0] == experiments[1] != experiments[2]
    assert len(MlflowClient(uri).search_runs(experiments)) == 3
