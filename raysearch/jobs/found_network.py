"""Which network a command means: that of a JSON file with its weights, or any of a finished search by its id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from raysearch.errors import UserError
from raysearch.export.subnet_file import load_subnet, read_card
from raysearch.invocation import command_line
from raysearch.spaces import Family, find_family
from raysearch.spaces.family import family_of_files
from raysearch.store.candidates import CANDIDATES, read_candidates
from raysearch.store.folder import CONFIG, OutputFolder, read_json, read_record
from raysearch.store.model_card import ModelCard
from raysearch.store.summary import Summary


@dataclass(frozen=True, eq=False, slots=True)
class FoundNetwork:
    """A network and what is known of it."""

    family: Family[Any, Any]
    card: ModelCard
    """With its id."""
    module: nn.Module


def find_network(source: Path, *, subnet: str = "champion", family: str | None = None) -> FoundNetwork:
    """The network that a command names.

    Args:
        source: output folder of a search, folder of an export, or a JSON file with its weights beside it.
        subnet: champion, largest, smallest, or the id of a candidate or of a random subnet of the closing report, or a
            beginning of one that tells it from the others.
        family: file or module of the family, where it is one of the user's own.

    Raises:
        UserError: nothing of the kind is there, or a file is missing or damaged.

    """
    given = None if family is None else find_family(family)
    champion, exported = source / "champion.json", source / "model.json"
    single = source if source.suffix == ".json" else exported if exported.is_file() and not champion.exists() else None
    if single is not None:
        known, card = _card(single, given)
        if subnet not in ("champion", card.id):
            raise UserError(f"--subnet {subnet}: {source} is one subnet; give the folder of the search instead")
        return FoundNetwork(known, card, load_subnet(single, family=known))
    if not (source / CONFIG).is_file():
        raise UserError(f"{source} is no output folder of a search; give the folder that `{command_line('search')}` named")
    if not champion.is_file():
        raise UserError(f"the search in {source} has no champion yet; continue it with --resume first")
    known, card = _card(champion, given)
    if subnet == "champion" or subnet == card.id:
        return FoundNetwork(known, card, load_subnet(champion, family=known))
    if (job := read_json(source / CONFIG).get("job")) is not None:
        raise UserError(f"--subnet {subnet}: {source} holds the one network of `raysearch {job}`, {card.id}")
    chosen = _of_network(source, subnet, card)
    if chosen.id == card.id:
        return FoundNetwork(known, card, load_subnet(champion, family=known))
    return _cut_out(source, chosen, known, given)


def _cut_out(source: Path, card: ModelCard, family: Family[Any, Any], given: Family[Any, Any] | None) -> FoundNetwork:
    """A subnet whose weights only the supernet holds."""
    # Recipes know evaluators and these Ray, whose import takes seconds that a champion needs not.
    from raysearch.recipes.stored import stored_search
    from raysearch.scoring.subnets import open_subnets_of

    arch = family.architecture.from_dict(card.arch)
    folder = OutputFolder(source, read_json(source / CONFIG))
    task = stored_search(folder.config["recipe"], source / CONFIG, given).recipe.task
    subnets = open_subnets_of(folder, family, task)
    cost = subnets.supernet.cost(arch)
    return FoundNetwork(family, replace(card, params=cost.params, macs=cost.macs), subnets.extract(arch))


def _card(path: Path, given: Family[Any, Any] | None) -> tuple[Family[Any, Any], ModelCard]:
    """Family and model card with its id. Raises UserError where classes or preprocessing are absent, as without a search."""
    card = read_card(path)
    if absent := [name for name in ("classes", "preprocessing") if getattr(card, name) is None]:
        raise UserError(f"the subnet's JSON file lacks {', '.join(absent)}; export it from the folder of its search")
    try:
        family = family_of_files(card.family, given)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    return family, replace(card, id=family.architecture.from_dict(card.arch).id)


def _of_network(folder: Path, which: str, champion: ModelCard) -> ModelCard:
    """The champion's card with what the search's files say of another network. Raises UserError when they do not name it."""
    summary = read_record(folder / "summary.json", Summary)
    counts, networks = summary.counts, summary.networks
    card = replace(
        champion,
        score_images=counts.search_images,
        test_images=counts.test_images,
        latency_ms=None,
        training=None,
        remark=None,
    )
    others = {} if networks is None else {"largest": networks.largest, "smallest": networks.smallest}
    rows = read_candidates(folder / CANDIDATES)
    drawn_ids = [] if networks is None or networks.random is None else networks.random.ids
    if which not in others:
        which = _whole_id(
            which, [champion.id or "", *(n.id for n in others.values()), *drawn_ids, *(row.id for row in rows)], folder
        )
    for name, network in others.items():
        if which in (name, network.id):
            return replace(
                card,
                id=network.id,
                arch=network.arch,
                score=network.score,
                test_score=network.test_score,
                latency_ms=network.latency_ms,
                origin=f"{name} subnet of the space",
            )
    if networks is not None and (drawn := networks.random) is not None:
        columns = zip(drawn.ids, drawn.archs, drawn.scores, drawn.test_scores, strict=False)  # early searches have no archs
        for drawn_id, arch, score, test_score in columns:
            if which == drawn_id:
                origin = "random subnet of the closing report"
                return replace(card, id=which, arch=arch, score=score, test_score=test_score, origin=origin)
    row = next((row for row in rows if row.id == which), None)
    if row is None:  # the champion itself
        return champion
    return replace(
        card,
        id=row.id,
        arch=row.arch,
        score=row.score,
        score_images=row.images_seen,
        test_score=None,
        latency_ms=row.latency_ms,
        origin=f"index {row.index}, {row.origin}, generation {row.generation}, {row.status}",
    )


def _whole_id(which: str, ids: Sequence[str], folder: Path) -> str:
    """The one of ``ids`` that is ``which`` or begins so. Raises UserError when there is none, or several."""
    found = sorted({one for one in ids if one.startswith(which)})
    if which in found:
        return which
    if not found:
        raise UserError(f"--subnet {which}: no such candidate in {folder / CANDIDATES}; give an id of it, largest or smallest")
    if len(found) > 1:
        raise UserError(f"--subnet {which}: {len(found)} ids begin so ({found[0]}, {found[1]}); give more of it")
    return found[0]
