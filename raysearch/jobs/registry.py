"""Champion and front as versions of a registered model in MLflow, described for people who find them there."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from raysearch.export import load_subnet, read_card
from raysearch.export.card import facts, knows_names, shortened
from raysearch.jobs.plan import Plan
from raysearch.scoring.subnets import open_subnets_of
from raysearch.search.front import spread
from raysearch.store.candidates import CANDIDATES, CandidateRow, read_candidates
from raysearch.store.folder import OutputFolder, read_json_rows
from raysearch.store.model_card import ModelCard
from raysearch.tracking import Network, Tracker

OF_FRONT = 5
"""How many networks of the front are registered at most beside the champion: each costs the search a second or more."""
_TAKES = (
    "It takes pictures as paths, bytes of files, base64 strings or uint8 pixels (height, width, chans), one or a list of them, "
    "or a table with a column `image`, prepares them itself, and gives `name`, `probability` and the `top_k` best."
)


def register_networks(plan: Plan, folder: OutputFolder, tracker: Tracker) -> tuple[str, ...]:
    """Have the champion and an even sample of the front registered, under the recipe's name.

    All is read from the folder of a search that has its result: this is done after its end, also by a later run. Each network
    by itself: one that cannot be exported costs a warning, and the others are registered. Returns the ids of those that failed.
    """
    shape = plan.recipe.task.ends(plan.splits).input_shape
    inputs = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)
    subnets = open_subnets_of(folder, plan.recipe.family, plan.recipe.task)
    champion = read_card(folder.path / "champion.json")
    rows = {row.id: row for row in read_candidates(folder.path / CANDIDATES)}
    front = [rows[member["id"]] for member in read_json_rows(folder.path / "front.json")]
    rest = [_card_of(row, champion) for row in front if row.id != champion.id]
    left: list[str] = []
    for i, card in enumerate([champion, *spread(rest, OF_FRONT)]):
        arch = plan.architecture(card.arch)
        network = Network(
            arch.id,
            # The champion as it is deployed, which may be trained further; the front with the weights that it inherits.
            subnets.extract(arch) if i else load_subnet(folder.path / "champion.json", family=plan.recipe.family),
            _tags(card),
            alias=None if i else "champion",
            card=card,
            about_model=_about_model(plan.recipe.name, card),
            about=_about(card, "On the front" if i else "Champion", plan.seen),
        )
        if not tracker.register(plan.recipe.name, network, images=inputs, folder=folder.path):
            left.append(arch.id)
    return tuple(left)


def _card_of(row: CandidateRow, champion: ModelCard) -> ModelCard:
    """What is known of a member of the front; the test split has not seen it."""
    return replace(
        champion,
        id=row.id,
        training=None,
        remark=None,
        arch=row.arch,
        score=row.score,
        score_images=row.images_seen,
        test_score=None,
        test_images=None,
        params=row.params,
        macs=row.macs,
        latency_ms=row.latency_ms,
    )


def _tags(card: ModelCard) -> dict[str, str]:
    names = ("score", "test_score", "params", "macs", "latency_ms")
    tags = {name: str(value) for name in names if (value := getattr(card, name)) is not None}
    tags["architecture"] = json.dumps(card.arch)
    if card.classes:
        tags["classes"] = json.dumps(card.classes)
    return tags


def _about_model(name: str, card: ModelCard) -> str:
    """What all versions have in common."""
    call = f'mlflow.pyfunc.load_model("models:/{name}@champion")'
    if knows_names(card):
        return (
            f"Classifiers of pictures that raysearch found, one version per network: champion and front of each search of "
            f"`{name}`. The alias `champion` is that of the newest search.\n\n`{call}.predict(['photo.jpg'])` names what a "
            f"picture shows. {_TAKES} Each version says which classes it knows."
        )
    return (
        f"Networks that raysearch found, one version per network: champion and front of each search of `{name}`. The alias "
        f"`champion` is that of the newest search.\n\n`{call}.predict(inputs)` maps prepared inputs (batch, ...) to outputs."
    )


def _about(card: ModelCard, rank: str, seen: str | None) -> str:
    """What this version is; ``seen`` is what a reader must know of its score."""
    lines = [f"{rank} of the search `{card.search_id}`: subnet `{card.id}`.", ""]
    lines += [f"- {name}: {value}" for name, value in facts(card)]
    if card.classes:
        lines.append(f"- {len(card.classes)} classes: {shortened(card.classes)}")
    if card.data is not None:
        lines.append(f"- images: {card.data.dataset}, {card.data.train_images:,} to train")
    if card.command is not None:
        lines.append(f"- command: `{card.command}`")
    if seen is not None:
        lines += ["", seen]
    if knows_names(card):
        lines += ["", _TAKES]
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode()  # names of folders may be bytes of any kind
