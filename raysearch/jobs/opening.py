"""Before a search computes anything: what it is, that its folder is whole, and its record in MLflow."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from raysearch.distributed.files import content_digest
from raysearch.errors import UserError
from raysearch.jobs.latency_table import read_latency
from raysearch.jobs.plan import Plan, SearchCommand
from raysearch.recipes import flat_settings
from raysearch.spaces import Family
from raysearch.store.folder import OutputFolder
from raysearch.store.journal import Journal
from raysearch.tracking import Tracker, default_uri
from raysearch.training import checkpoint
from raysearch.training.supernets import read_supernet


def configuration(plan: Plan, command: SearchCommand[Any, Any], line: str) -> dict[str, Any]:
    """What ``config.json`` says of a search: with another recipe, images, weights or family it cannot be resumed.

    Beside that stands what it was asked for: which settings stood on the command line, and in what time it was to end. The
    others followed from recipe, images and machine.
    """
    family = plan.recipe.family
    own = {} if family.source is None else {"family_source": content_digest(family.source)[:12]}
    return {
        "command": line,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "given": sorted(command.given),
        "time": command.time,
        **({"pretrained": dict(plan.origin)} if plan.origin else {}),
        "recipe": {
            **plan.recipe.to_dict(),
            "images": plan.splits.digest[:12],
            "warm_start": [arch.id for arch in plan.initial],
            "supernet": None if command.supernet is None else content_digest(command.supernet)[:12],
            **({} if plan.start is None else {"supernet_is": "a start"}),
            **({} if plan.from_timm is None else {"from_timm": plan.from_timm}),
            **own,
        },
    }


def check_held(folder: OutputFolder, family: Family[Any, Any]) -> None:
    """Raises UserError for a damaged file of an earlier run, before anything is computed or recorded."""
    _ = folder.seconds
    if folder.latency.exists():
        read_latency(folder)
    if folder.supernet.exists():
        read_supernet(folder.supernet, family)
        folder.read_history()
        if folder.journal.exists():
            calibration = content_digest(folder.calibration) if family.calibrates and folder.calibration.exists() else None
            Journal(folder.journal, weights=content_digest(folder.supernet), calibration=calibration)
    elif folder.journal.exists():
        raise UserError(
            f"{folder.supernet} is missing, whose scores {folder.journal} holds; restore it or choose another --output"
        )
    elif folder.training.exists():
        checkpoint.read(folder.training)


def _params(plan: Plan) -> dict[str, object]:
    """The settings of a search, but for those that its preparation decides: they are not known when it begins."""
    offered, settings = plan.recipe.family.pretrained, flat_settings(plan.recipe.to_dict())
    decided = () if offered is None or plan.from_timm is None else offered.decides
    return {name: value for name, value in settings.items() if name.rpartition(".")[2] not in decided}


def open_tracker(command: SearchCommand[Any, Any], plan: Plan, folder: OutputFolder) -> Tracker:
    """The search's record in MLflow, opened; closing it writes what an earlier run left in the folder."""
    recipe, splits = plan.recipe, plan.splits
    tracker = Tracker(
        uri=command.tracking_uri or default_uri(folder.path.absolute().parent),
        experiment=recipe.name,
        search_id=folder.search_id,
        run_name=folder.path.name,
        params=_params(plan),
        # No param: MLflow's page of two searches side by side would draw an axis of command lines.
        tags={"raysearch.command": folder.config["command"]},
        axes=plan.geometry.plotted,
        spool=folder.spool,
    )
    parts = {part: len(getattr(splits, part)) for part in ("train", "search", "finalists", "test")}
    tracker.log_dataset(
        recipe.task.data_name,
        digest=splits.digest,
        source=recipe.task.data_source,
        profile={**parts, **({"classes": len(splits.classes)} if splits.classes else {})},
    )
    return tracker
