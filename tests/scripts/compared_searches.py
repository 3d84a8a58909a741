"""Output folders of finished searches of digits, without the work: real files with made-up scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from raysearch.recipes.autoformer import DIGITS_RECIPE
from raysearch.search import Candidate, Proposal, Result
from raysearch.space.cost import Cost
from raysearch.store.candidates import CANDIDATES, write_candidates
from raysearch.store.folder import CONFIG, write_json

SPACE = DIGITS_RECIPE.config.space.build()


def write_search(
    folder: Path, scores: Sequence[float], *, seed: int = 0, params: Sequence[int] | None = None, **settings: Any
) -> Path:
    """A search whose candidates have these scores (below zero: racing stopped it), each after 2 seconds of an evaluator."""
    stored = {name: settings.pop(name) for name in ("images", "supernet") if name in settings}
    asked = {name: settings.pop(name) for name in ("flags", "time") if name in settings}
    trained, test, given = settings.pop("trained", None), settings.pop("test", None), settings.pop("given", 0)
    task = replace(DIGITS_RECIPE.task, dataset=settings.pop("dataset", replace(DIGITS_RECIPE.task.dataset, split_seed=seed)))
    recipe = replace(DIGITS_RECIPE, **{"task": task, "algorithm": "evolution", "seed": seed, **settings})
    candidates: list[Candidate] = []
    for i, score in enumerate(scores):
        cost = Cost(100_000 if params is None else params[i], 500_000)
        result = Result(abs(score), 397, cost.params, cost.macs, excluded="raced" if score < 0 else None, seconds=2.0)
        proposal = Proposal(
            SPACE.sample(Random(f"{seed}/{i}")), index=i, generation=i // 4, origin="seed" if i < given else "random"
        )
        candidates.append(Candidate(proposal, cost, result))
    folder.mkdir(parents=True)
    write_candidates(folder / CANDIDATES, candidates)
    if trained is not None:
        (folder / "journal.jsonl").write_text(json.dumps({"weights": trained}) + "\n")
    more = {"images": f"images-{seed}", "supernet": None, "warm_start": ["a"] * given, **stored}
    told = {"given": sorted(asked["flags"]), "time": asked.get("time")} if "flags" in asked else {}
    write_json(folder / CONFIG, {"search_id": folder.name, "command": "", **told, "recipe": {**recipe.to_dict(), **more}})
    if test is not None:
        write_json(folder / "summary.json", _summary(folder.name, best=max(scores), test=test, recipe=recipe.name, seed=seed))
    return folder


def _summary(name: str, *, best: float, test: tuple[float, float], recipe: str, seed: int) -> dict[str, Any]:
    """The closing numbers: test scores of the champion and of the median random subnet, on 400 images."""
    network = {"id": "a", "arch": {}, "score": best, "test_score": test[0], "params": 100_000, "macs": 500_000}
    drawn = {"score": best, "test_score": test[1], "params": 90_000.0, "macs": 400_000.0, "subnets": 25}
    networks = {"champion": network, "largest": network, "smallest": network, "random": drawn}
    counts = {"candidates": 1, "train_images": 1000, "search_images": 397, "test_images": 400}
    known = {"recipe": recipe, "seed": seed, "command": "", "constraint": "none", "search_id": name, "mlflow_run_id": name}
    training = {"epochs": 0, "history": []}
    return {**known, "counts": counts, "seconds": {}, "training": training, "versions": {}, "networks": networks}
