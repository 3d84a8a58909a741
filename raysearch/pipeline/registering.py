"""What MLflow is told at the end of a search: the front among the candidates, and networks that load elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from raysearch.output import OutputFolder, read_json_rows
from raysearch.pipeline.plan import Plan
from raysearch.spaces.autoformer import AutoFormerArchitecture
from raysearch.tracking import Network, Tracker
from raysearch.training.supernets import read_supernet

_OF_FRONT = 3
"""How many networks of the front are registered beside the champion: each costs the search a second or more."""


def register_networks(plan: Plan, folder: OutputFolder, tracker: Tracker, champion: dict[str, Any]) -> None:
    """Mark champion and front among the runs, and register the champion and three more of the front under the recipe's name.

    Each version maps images, normalised and batched, to logits.
    """
    front = read_json_rows(folder.path / "front.json")
    tracker.mark_candidates([row["id"] for row in front], {"raysearch.front": "true"})
    tracker.mark_candidates([champion["id"]], {"raysearch.champion": "true"})
    name, size = plan.recipe.name, plan.recipe.dataset.img_size
    note = (
        f"Champion {champion['id']}: score {champion['score']}, test score {champion['test_score']}, {champion['params']:,} "
        f"parameters, {champion['macs']:,} MACs. `report.html` is among the artifacts; "
        f'`mlflow.pyfunc.load_model("models:/{name}@champion")` loads it.'
    )
    tracker.set_tags({"raysearch.champion": champion["id"], "mlflow.note.content": note})
    images = np.random.default_rng(0).standard_normal((2, plan.recipe.dataset.in_chans, size, size), dtype=np.float32)
    supernet = read_supernet(folder.supernet).build()
    rest = [{**row, "arch": json.loads(row["arch"])} for row in front if row["id"] != champion["id"]]
    for row in (champion, *spread(rest, _OF_FRONT)):
        told = ("score", "test_score", "params", "macs", "latency_ms")
        tags = {key: str(row[key]) for key in told if row.get(key) is not None}
        tags["architecture"] = json.dumps(row["arch"])
        module = supernet.extract(AutoFormerArchitecture.from_dict(row["arch"]))
        network = Network(row["id"], module, tags, alias="champion" if row is champion else None)
        tracker.register(name, network, images=images, folder=folder.path)


def spread(rows: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """So many rows, evenly along the order in which they stand, with both ends."""
    if len(rows) <= count:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (count - 1))] for i in range(count)]
