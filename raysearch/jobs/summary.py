"""What is known of a search at any time: the part that the report in progress and the closing summary share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from raysearch.jobs.plan import Plan
from raysearch.search import Candidate
from raysearch.store.folder import OutputFolder
from raysearch.store.versions import package_versions
from raysearch.tracking import Tracker


def known_so_far(
    plan: Plan,
    folder: OutputFolder,
    tracker: Tracker,
    *,
    candidates: Sequence[Candidate],
    history: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """JSON values: what was asked, how many candidates have what status, how the supernet was trained, with which versions."""
    statuses = Counter(c.status for c in candidates)
    return {
        "recipe": plan.recipe.name,
        "seed": plan.recipe.seed,
        "command": folder.config["command"],
        "constraint": str(plan.problem.constraint),
        "search_id": folder.search_id,
        "mlflow_run_id": tracker.run_id,
        "counts": {
            "candidates": len(candidates),
            **{status: statuses[status] for status in ("scored", "raced", "slow", "failed")},
            "train_images": len(plan.splits.train),
            "search_images": len(plan.splits.search),
        },
        "seconds": folder.seconds,
        "training": {"epochs": len(history), "history": list(history)},
        "versions": package_versions(),
    }
