"""A search that begins with a pretrained vision transformer, from its weights to files that timm opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from ray.cluster_utils import Cluster
from search_script import FEW_CANDIDATES, NO_MODELS, kill_when, searched, start, succeed
from timm_layouts import pretrained_folder

from raysearch.export import load_subnet
from raysearch.tracking import default_uri
from raysearch.training import checkpoint


@pytest.mark.timeout(600)
def test_a_pretrained_network_is_made_elastic_searched_compared_and_exported(cluster: Cluster, tmp_path: Path) -> None:
    pretrained = tmp_path / "pretrained"
    pretrained.mkdir()
    pretrained_folder(pretrained)
    output, baseline = tmp_path / "run", f"local-dir:{pretrained}"
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
        *("--baselines", baseline, "--report.baseline-epochs", "1"),
    )
    # Killed when the whole network is fine-tuned, before the training of all subnets: what was done is not done again.
    kill_when(start(tmp_path, *flags, "--output", str(output)), lambda: (output / "whole.safetensors").exists())
    assert not (output / "supernet.safetensors").exists()
    prepared, tuned = (output / "importance.safetensors").read_bytes(), (output / "whole.safetensors").read_bytes()
    searched(*flags, "--resume", output=output)
    assert (output / "importance.safetensors").read_bytes() == prepared
    assert (output / "whole.safetensors").read_bytes() == tuned, "with the seconds of its epochs"
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
    # Beside the champion: the whole network as it was fine-tuned, and the named one, from timm's weights; in pairs of items.
    summary = json.loads((output / "summary.json").read_text())
    whole, other = summary["baselines"]
    assert (whole["name"], whole["began"], whole["epochs"]) == ("full network", "whole", 1)
    assert (other["name"], other["began"], len(other["history"])) == ("pretrained", "pretrained", 1)
    champion = summary["networks"]["champion"]
    for each in (whole, other):
        assert each["lead"]["value"] == pytest.approx(champion["test_score"] - each["test"], abs=1e-6)
        assert each["lead"]["low"] < each["lead"]["value"] < each["lead"]["high"]
        assert each["params"] > champion["params"]
    assert len(client.get_metric_history(runs["baseline pretrained"].info.run_id, "train/loss")) == 1
    # A search that was killed before its end trains no baseline again, and needs none of its sources.
    (output / ".finished").unlink()
    written = (output / "baselines" / "pretrained.safetensors").stat().st_mtime_ns
    (pretrained / "model.safetensors").rename(pretrained / "elsewhere.safetensors")
    again, printed = searched(*flags, "--resume", output=output)
    (pretrained / "elsewhere.safetensors").rename(pretrained / "model.safetensors")
    assert again["baselines"] == summary["baselines"]
    assert (output / "baselines" / "pretrained.safetensors").stat().st_mtime_ns == written
    assert "pretrained, fine-tuned" in printed
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
