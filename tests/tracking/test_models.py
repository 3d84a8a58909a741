"""Networks in the registry: loaded where raysearch is not installed, and registered once."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from torch import nn
from tracked_search import arch, candidate, settings

from raysearch.spaces.autoformer import AutoFormerArchitecture, AutoFormerSupernet
from raysearch.tracking import Network, Tracker

ELSEWHERE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("raysearch", "ray", "timm"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import mlflow
import numpy as np

mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
np.save(sys.argv[4], model.predict(np.load(sys.argv[3])))
"""


@pytest.fixture(scope="module")
def subnet() -> nn.Module:
    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0, "head_dim": 16, "max_relative_position": 3}
    supernet = AutoFormerSupernet(img_size=8, patch_size=2, in_chans=1, num_classes=10, **sizes)
    return supernet.extract(AutoFormerArchitecture(embed_dim=24, num_heads=(1, 2), mlp_ratio=(1.0, 2.0)))


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 1, 8, 8)).astype(np.float32)


def test_a_registered_network_computes_the_same_where_only_mlflow_and_torch_are(database, subnet, tmp_path):
    uri = f"sqlite:///{database}"
    for _ in range(2):  # a search that is resumed registers again
        with Tracker(**settings(uri, "models")) as tracker:
            for i in range(2):
                tracker.log_candidate(candidate(i))
                alias = "champion" if i == 0 else None
                network = Network(arch(i).id, subnet, {"score": f"0.5{i}", "params": "1234"}, alias)
                tracker.register("digits", network, images=images(2), folder=tmp_path)
        assert tracker.close() == 0
    assert not list(tmp_path.glob("model-*"))

    client = MlflowClient(uri)
    versions = client.search_model_versions("name = 'digits'")
    assert {v.tags["raysearch.key"] for v in versions} == {arch(0).id, arch(1).id}
    assert len(versions) == 2
    champion = client.get_model_version_by_alias("digits", "champion")
    assert champion.tags == {"raysearch.search_id": "models", "raysearch.key": arch(0).id, "score": "0.50", "params": "1234"}
    run = client.get_run(champion.run_id)
    assert run.data.tags["raysearch.key"] == arch(0).id

    # The batch size of the example must not have become a constant.
    np.save(tmp_path / "in.npy", images(5))
    files = [str(tmp_path / "in.npy"), str(tmp_path / "out.npy")]
    subprocess.run([sys.executable, "-c", ELSEWHERE, uri, "models:/digits@champion", *files], check=True, cwd=tmp_path)
    with torch.no_grad():
        expected = subnet(torch.from_numpy(images(5))).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-5)


def test_a_network_of_a_search_on_a_server_is_registered(server, subnet, tmp_path):
    with Tracker(**settings(server, "models")) as tracker:
        tracker.register("on-server", Network("1234", subnet, alias="champion"), images=images(2), folder=tmp_path)
    assert tracker.close() == 0
    version = MlflowClient(server).get_model_version_by_alias("on-server", "champion")
    assert Path(version.source).name == "model"
    assert version.run_id == tracker.run_id


class Branching(nn.Module):
    """Cannot be exported: what it does depends on the values that it sees."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :2] if x.sum() > 0 else x.flatten(1)[:, 2:4]


def test_a_network_that_cannot_be_exported_costs_a_warning(database, tmp_path, caplog):
    with Tracker(**settings(f"sqlite:///{database}", "s")) as tracker, caplog.at_level(logging.WARNING, "raysearch"):
        tracker.register("digits", Network("1234", Branching()), images=images(2), folder=tmp_path)
    assert tracker.close() == 0
    assert "network 1234 is not registered" in caplog.text
    assert not list(tmp_path.glob("model-*"))
