"""A pretrained network of timm's as the start of a search: read, fitted to the images, and prepared on some of them."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console

from raysearch.distributed.files import serve, share
from raysearch.distributed.preparing import prepared
from raysearch.errors import UserError
from raysearch.jobs.given import sized_by_supernet, with_setting
from raysearch.jobs.given_start import Start
from raysearch.jobs.progress import activity, say_on
from raysearch.recipes import SETTLED, Recipe
from raysearch.spaces import Geometry
from raysearch.spaces.other_ends import refitted
from raysearch.spaces.pretrained import PretrainedNetwork
from raysearch.store.folder import CONFIG, OutputFolder, write_json
from raysearch.tasks import Ends, Splits
from raysearch.training import checkpoint
from raysearch.training.supernets import SupernetFile

IMAGES = 2_000
"""Training images on which a pretrained supernet is prepared, at most."""
IMPORTANCE = "importance.safetensors"
BEGUN = "pretrained.safetensors"
"""The prepared supernet, until it is trained."""
PRETRAINED = "the supernet begins as the pretrained network, with a new head; its whole is fine-tuned first"
KIND = "importance"


def read_pretrained(recipe: Recipe[Any, Any], name: str, weights: Path | None) -> PretrainedNetwork:
    """The network that ``--from-timm`` names. Raises UserError for none that the recipe's family makes elastic."""
    if (offered := recipe.family.pretrained) is None:
        raise UserError(f"--from-timm: networks of the family {recipe.family.name} do not begin as timm's; leave out --family")
    return offered.read(name, weights)


def seen_as(
    network: PretrainedNetwork, recipe: Recipe[Any, Any], given: frozenset[str]
) -> tuple[Recipe[Any, Any], frozenset[str]]:
    """The recipe with the network's sizes and its way of seeing images, but for what is given; and the names of these."""
    task, seen = recipe.task.seen_as(network.preprocessing, given=given)
    file = SupernetFile(recipe.family, {}, {}, config=dict(network.config))
    sized, taken = sized_by_supernet(replace(recipe, task=task), file, given)
    return sized, taken | seen | SETTLED


def pretrained_start(network: PretrainedNetwork, recipe: Recipe[Any, Any], geometry: Geometry[Any], ends: Ends) -> Start:
    """The weights that the training begins with. Raises UserError when the network does not fit the images or the recipe."""
    if ends.outputs < 2:
        raise UserError(f"the images are of {ends.outputs} class: there is nothing to tell apart; give images of two or more")
    try:
        made = refitted(
            recipe.family,
            network.settings,
            network.weights,
            ends,
            arch=None,
            weight_init=recipe.train.weight_init,
            seed=recipe.seed,
        )
    except UserError as error:
        raise UserError(f"--from-timm does not fit the images: {error}") from None
    offered = recipe.family.pretrained
    assert offered is not None
    own = {name: size for name, size in geometry.settings.items() if name not in offered.decides}
    if differing := [name for name, size in own.items() if made.settings.get(name) != size]:
        pairs = ", ".join(f"{name} {made.settings.get(name)} instead of {own[name]}" for name in differing)
        raise UserError(f"--from-timm does not fit the settings given: {pairs}")
    return Start("--from-timm", made.weights, PRETRAINED, unordered=True)


def is_prepared(folder: Path) -> bool:
    """Whether a search's folder has all that its pretrained network was read for."""
    trained = (folder / "supernet.safetensors").exists() or (folder / BEGUN).exists()
    return (folder / IMPORTANCE).exists() and trained


def prepared_plan(plan: Any, folder: OutputFolder, console: Console) -> Any:
    """The plan of a search whose pretrained supernet was prepared; done once, and kept in the folder.

    ``importance.safetensors`` says what each part is worth, and ``config.json`` what follows from it.
    """
    recipe, path = plan.recipe, folder.path / IMPORTANCE
    start = folder.path / BEGUN
    if not is_prepared(folder.path):
        items, server = _some(plan.splits, seed=recipe.seed), serve()
        cache = folder.path / "cache" / "prepare.arrow"
        with activity(console, f"training the head and measuring what each part is worth on {len(items):,} images"):
            recipe.task.write_cache(items, cache)
            raw = folder.path / "cache" / "pretrained.safetensors"
            checkpoint.write(raw, checkpoint.pack(plan.start.weights, {"kind": "weights"}))
            made = prepared(
                recipe.family,
                plan.geometry.settings,
                share(raw, server=server),
                share(cache, server=server),
                task=recipe.task,
                nodes=recipe.train.nodes,
                say=say_on(console),
            )
        raw.unlink()
        checkpoint.write(start, checkpoint.pack(made.weights, {"kind": "weights"}))
        checkpoint.write(path, checkpoint.pack(made.importance, {"kind": KIND, "settings": dict(made.settings)}))
        say_on(console)(made.words)
    settings: dict[str, Any] = checkpoint.read(path)[1]["settings"]
    config = recipe.config
    for name, value in settings.items():
        config = with_setting(config, name, tuple(value) if isinstance(value, list) else value)
    recipe = replace(recipe, config=config)
    geometry = recipe.family.build(config, recipe.task.ends(plan.splits))
    stored = json.loads(json.dumps({**folder.config["recipe"], **{name: recipe.to_dict()[name] for name in _groups(settings)}}))
    if stored != folder.config["recipe"]:
        folder.config["recipe"] = stored
        write_json(folder.path / CONFIG, folder.config)
    weights = plan.start.weights if folder.supernet.exists() else checkpoint.read(start)[0]
    return replace(plan, recipe=recipe, geometry=geometry, start=replace(plan.start, weights=weights))


def _groups(settings: Collection[str]) -> set[str]:
    return {name.partition(".")[0] for name in settings}


def _some(splits: Splits, *, seed: int) -> Any:
    """Training items, drawn once for a search, in a fixed order."""
    count = min(IMAGES, len(splits.train))
    return splits.train.subset(sorted(Random(f"{seed}/prepare").sample(range(len(splits.train)), count)))
