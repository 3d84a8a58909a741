"""What MLflow is told at the end of a search: the front among the candidates, and networks that load elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from raysearch.jobs.plan import Plan
from raysearch.spaces.autoformer import AutoFormerArchitecture
from raysearch.store.folder import OutputFolder, read_json_rows
from raysearch.tracking import Network, Tracker
from raysearch.training.supernets import read_supernet

_OF_FRONT = 10
"""How many networks of the front are registered at most beside the champion: each costs the search a second or more."""


def record_networks(plan: Plan, folder: OutputFolder, tracker: Tracker, champion: dict[str, Any]) -> None:
    """Mark champion and front among the runs and, unless the recipe forbids it, register them as models."""
    front = read_json_rows(folder.path / "front.json")
    tracker.mark_candidates([row["id"] for row in front], {"raysearch.front": "true"})
    tracker.mark_candidates([champion["id"]], {"raysearch.champion": "true"})
    note = (
        f"Champion {champion['id']}: score {champion['score']}, test score {champion['test_score']}, {champion['params']:,} "
        f"parameters, {champion['macs']:,} MACs. `report.html` is among the artifacts."
    )
    if plan.recipe.report.register:
        note += f' `mlflow.pyfunc.load_model("models:/{plan.recipe.name}@champion")` loads it.'
        _register(plan, folder, tracker, champion, front)
    tracker.set_tags({"raysearch.champion": champion["id"], "mlflow.note.content": note})


def _register(
    plan: Plan, folder: OutputFolder, tracker: Tracker, champion: dict[str, Any], front: Sequence[dict[str, Any]]
) -> None:
    """The champion and the front, under the recipe's name; each maps normalised images in batches to logits."""
    size = plan.recipe.dataset.img_size
    images = np.random.default_rng(0).standard_normal((2, plan.recipe.dataset.in_chans, size, size), dtype=np.float32)
    supernet = read_supernet(folder.supernet).build()
    rest = [{**row, "arch": json.loads(row["arch"])} for row in front if row["id"] != champion["id"]]
    for row in (champion, *spread(rest, _OF_FRONT)):
        told = ("score", "test_score", "params", "macs", "latency_ms")
        tags = {key: str(row[key]) for key in told if row.get(key) is not None}
        tags["architecture"] = json.dumps(row["arch"])
        module = supernet.extract(AutoFormerArchitecture.from_dict(row["arch"]))
        network = Network(row["id"], module, tags, alias="champion" if row is champion else None)
        tracker.register(plan.recipe.name, network, images=images, folder=folder.path)


def spread(rows: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """So many rows, evenly along the order in which they stand, with both ends."""
    if len(rows) <= count:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (count - 1))] for i in range(count)]
