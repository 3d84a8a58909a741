"""A search that begins with a pretrained vision transformer, from its weights to files that timm opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from mlflow import MlflowClient
from ray.cluster_utils import Cluster
from search_script import FEW_CANDIDATES, NO_MODELS, searched, succeed
from timm_layouts import pretrained_folder

from raysearch.export import load_subnet
from raysearch.tracking import default_uri
from raysearch.training import checkpoint


def test_a_pretrained_network_is_made_elastic_searched_and_exported(cluster: Cluster, tmp_path: Path) -> None:
    pretrained = pretrained_folder(tmp_path)
    output = tmp_path / "run"
    flags = (
        *("digits", "--from-timm", f"local-dir:{pretrained}", "--constraint.max-macs", "60000"),
        *(
            "--train.epochs",
            "3",
            "--train.largest-first",
            "0.4",
            "--train.warmup-epochs",
            "0",
            "--train.batch-size",
            "100",
            "--train.workers",
            "1",
        ),
        *("--train.widen", "0", *FEW_CANDIDATES, *NO_MODELS),
    )
    searched(*flags, output=output)
    settings: dict[str, Any] = json.loads((output / "champion.json").read_text())["settings"]
    importance, about = checkpoint.read(output / "importance.safetensors")
    assert settings["order"] == about["settings"]["net.order"] == importance["blocks"].argsort(descending=True).tolist()
    assert importance["heads"].shape == (3, 3)
    recipe: dict[str, Any] = json.loads((output / "config.json").read_text())["recipe"]
    assert (recipe["family"], recipe["net"]["order"]) == ("elastic_vit", settings["order"])
    # The whole network was trained for the first epoch, and taught the others: each training has its own curve.
    assert not [*output.glob("whole-*"), *output.glob("pretrained.*")]
    client = MlflowClient(default_uri(tmp_path))
    (experiment,) = client.search_experiments(filter_string="name = 'digits'")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id], max_results=100)}
    for role, epochs in (("whole", 1), ("supernet", 2)):
        assert len(client.get_metric_history(runs[role].info.run_id, "train/loss")) == epochs
    # The folder is that of the same search when it is asked for again, whose preparation was done.
    again = succeed("search", *flags, "--output", str(output), "--resume")
    assert "is finished already" in " ".join(again.split())
    succeed("export", str(output), "--format", "timm")
    network = load_subnet(output / "champion.json")
    (exported,) = (output / "export").glob("*/timm")
    inputs = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(opened(exported)(inputs), network(inputs), rtol=1e-4, atol=1e-4)


def opened(folder: Path) -> Any:
    """The network in a folder of the export."""
    if (folder / "config.json").exists():
        import timm

        return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    names: dict[str, Any] = {"__name__": "model", "__file__": str(folder / "model.py")}
    exec((folder / "model.py").read_text(), names)
    return names["load"](folder)
