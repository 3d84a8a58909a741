"""A finished search, opened again: its plan as it was, on the images that it had."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from raysearch.errors import UserError
from raysearch.invocation import command_line
from raysearch.jobs.plan import Plan, SearchCommand, plan_search
from raysearch.recipes.stored import stored_search
from raysearch.spaces import find_family
from raysearch.store.folder import CONFIG, OutputFolder, read_json


@dataclass(frozen=True, eq=False, slots=True)
class FinishedSearch:
    """A search that has ended."""

    folder: OutputFolder
    """To be read from: it is not locked."""
    plan: Plan


def finished_search(path: Path, *, family: str | None = None) -> FinishedSearch:
    """The search in an output folder.

    Args:
        path: the folder.
        family: file or module of the family, where it is one of the user's own.

    Raises:
        UserError: it is none, it is not finished, or its images are no longer those that it had.

    """
    if not (path / CONFIG).is_file():
        raise UserError(f"{path} is no output folder of a search; give the folder that `{command_line('search')}` named")
    config = read_json(path / CONFIG)
    if (job := config.get("job")) is not None:
        raise UserError(f"{path} is what `raysearch {job}` left of one network; give the folder of its search")
    if not (path / ".finished").exists():
        raise UserError(f"the search in {path} is not finished; continue it with --resume first")
    stored = stored_search(config["recipe"], path / CONFIG, None if family is None else find_family(family))
    recipe = stored.recipe
    plan = plan_search(SearchCommand(recipe))
    if stored.images is not None and not plan.splits.digest.startswith(stored.images):
        raise UserError(
            f"the data of {recipe.task.data_name} in {recipe.task.data_source} are not those that {path} searched with; "
            "restore them"
        )
    return FinishedSearch(OutputFolder(path, config), plan)
