"""A network out of a file that belongs to no folder of a search: a subnet's weights, or a supernet, published ones included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from raysearch.errors import UserError
from raysearch.jobs.found_network import FoundNetwork, find_network
from raysearch.scoring.subnets import open_subnets
from raysearch.space import SearchSpace
from raysearch.spaces import Family, find_family
from raysearch.spaces.family import DEFAULT
from raysearch.spaces.other_ends import head_names
from raysearch.store.folder import read_json
from raysearch.store.model_card import ModelCard
from raysearch.tasks import Ends
from raysearch.tasks.images.classification import ImageClassification
from raysearch.training import checkpoint
from raysearch.training.supernets import SupernetFile, read_supernet


def any_network(source: Path, *, subnet: str, family: str | None, task: ImageClassification) -> FoundNetwork:
    """The network of a folder, of a subnet's files, or of a supernet's file.

    Args:
        source: what find_network takes, the weights of a subnet (its JSON file beside them), or a supernet of ours or of
            another program.
        subnet: which network; of a supernet's file largest, smallest, a name that a paper gave, or a JSON file with an
            architecture. ``champion`` is then the largest.
        family: file, module or name of the family, where files do not name it or it is the user's own.
        task: how inputs are prepared, where the file does not say.

    Raises:
        UserError: nothing of the kind is there, or a file is missing or damaged.

    """
    if source.is_dir() or source.suffix == ".json":
        return find_network(source, subnet=subnet, family=family)
    if not source.is_file():
        raise UserError(f"{source} does not exist; give the folder of a search, champion.json, or a supernet's file")
    if source.suffix == ".safetensors" and checkpoint.read(source)[1].get("kind") == "subnet":
        if not (card := source.with_suffix(".json")).is_file():
            raise UserError(f"{card} is missing, which says what {source} holds; copy both files")
        return find_network(card, subnet=subnet, family=family)
    known = find_family(family or DEFAULT)
    return _of_supernet(source, read_supernet(source, known), subnet, task)


def _of_supernet(source: Path, file: SupernetFile, subnet: str, task: ImageClassification) -> FoundNetwork:
    family = file.family
    arch = _architecture(source, file, subnet)
    with torch.device("meta"):
        cost = family.supernet(**file.settings).cost(arch)
    calibration = source.with_name("calibration.arrow")
    subnets = open_subnets(source, family, task=task, calibration=calibration if calibration.exists() else None)
    settings = {name: value for name, value in file.settings.items() if name != "drop_path_rate"}
    card = ModelCard(
        family=family.name,
        settings=settings,
        id=arch.id,
        arch=arch.to_dict(),
        params=cost.params,
        macs=cost.macs,
        classes=file.classes,
        preprocessing=file.preprocessing,
        origin=f"{subnet} subnet of {source.name}",
    )
    return FoundNetwork(family, card, subnets.extract(arch))


def _architecture(source: Path, file: SupernetFile, subnet: str) -> Any:
    family = file.family
    if subnet in family.published:
        return family.published[subnet]
    if subnet.endswith(".json"):
        values = read_json(Path(subnet))
        return family.architecture.from_dict(values.get("arch", values))
    if subnet not in ("champion", "largest", "smallest"):
        names = ", ".join(["largest", "smallest", *family.published])
        raise UserError(f"--subnet {subnet}: {source} is a supernet without a search; give {names}, or a JSON file of one")
    space = _space(source, file, subnet)
    return space.smallest() if subnet == "smallest" else space.largest()


def _space(source: Path, file: SupernetFile, subnet: str) -> SearchSpace[Any]:
    """The space of a supernet: as its file says, else that of the preset of the same sizes."""
    family: Family[Any, Any] = file.family
    sizes = {name: value for name, value in file.settings.items() if name != "drop_path_rate"}
    ends = _ends(file)
    if file.config is not None:
        return family.build(TypeAdapter(family.config).validate_python(file.config), ends).space
    for preset in family.presets.values():
        geometry = family.build(preset, ends)
        if dict(geometry.settings) == sizes:
            return geometry.space
    raise UserError(
        f"--subnet {subnet}: {source} does not say what its space is, and no preset of {family.name} has its sizes; give a "
        "JSON file with an architecture"
    )


def _ends(file: SupernetFile) -> Ends:
    """What a supernet for images takes and gives. Raises UserError where it says no size of images."""
    how = {**file.settings, **(file.preprocessing or {})}
    if "img_size" not in how or "in_chans" not in how:
        raise UserError("the file does not say what images its supernet takes; evaluate a network of the folder of its search")
    shape = (how["in_chans"], how["img_size"], how["img_size"])
    if file.family.for_ends is None:
        return Ends(shape, len(file.classes or ()))
    head = head_names(file.family, file.settings, Ends(shape, 2), arch=None)
    return Ends(shape, file.weights[head[0]].shape[0])
