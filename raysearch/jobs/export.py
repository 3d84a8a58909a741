"""From a finished search, or from a subnet's two files, to files for other programs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from torch import nn

from raysearch.errors import UserError
from raysearch.export.card import Form, write_markdown
from raysearch.export.programs import check_onnx_installed, write_onnx, write_torch_export
from raysearch.export.subnet_file import load_subnet, read_card, save_subnet
from raysearch.invocation import command_line
from raysearch.recipes.stored import family_of_files, stored_search
from raysearch.scoring.subnets import open_subnets_of
from raysearch.spaces import Family, find_family
from raysearch.store.candidates import CANDIDATES, read_candidates
from raysearch.store.folder import CONFIG, OutputFolder, read_json, read_record, write_json
from raysearch.store.model_card import ModelCard
from raysearch.store.summary import Summary

FILES: dict[Form, str] = {
    "safetensors": "model.safetensors",
    "timm": "config.json",
    "torch-export": "model.pt2",
    "onnx": "model.onnx",
}
"""The file that each format adds to the output folder; the names are those that timm expects."""


@dataclass(frozen=True, slots=True)
class ExportCommand:
    """Write a subnet of a finished search in formats of other programs, each with a model card beside it."""

    source: Annotated[Path, tyro.conf.Positional]
    """Output folder of the search, or champion.json with its weights beside it."""
    subnet: str = "champion"
    """champion, largest, smallest, or the id of a candidate or of a random subnet of the closing report."""
    format: tuple[Form, ...] = ("safetensors", "timm", "torch-export", "onnx")
    """safetensors and JSON are always written; timm, torch-export and onnx beside them."""
    family: str | None = None
    """File or module of the family, where it is one of your own."""
    output: Path | None = None
    """Folder of the files. Default: export/ID in the folder of the search."""

    def __post_init__(self) -> None:
        """Raises UserError where no format is given."""
        if not self.format:
            raise UserError("--format is empty; give at least one of " + ", ".join(FILES))


def export(command: ExportCommand, *, console: Console) -> Path:
    """Write the files; returns their folder.

    Programs are compared with the network before they are kept. Raises UserError, in one line with the remedy.
    """
    if "onnx" in command.format:
        check_onnx_installed()
    family, card, subnet = _found(command)
    if family.timm is None and command.format == ("timm",):
        raise UserError(f"--format timm: networks of the family {family.name} have no names in timm; choose another format")
    base = command.source if command.source.is_dir() else command.source.parent
    output = command.output or base / "export" / str(card.id)
    shape = _image_shape(command, card)
    _check_output(output, card)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output} cannot be made: {error.strerror}") from None

    card = save_subnet(output / "model.json", subnet, family=family, card=card)
    _say(console, output / "model.json", "architecture, scores, preprocessing; the same for people in model.md")
    _say(console, output / "model.safetensors", "weights")
    if "timm" in command.format and family.timm is not None:
        write_json(output / "config.json", family.timm.folder_config(card.to_dict()))
        _say(console, output / "config.json", 'for timm.create_model("local-dir:FOLDER")')
    if "torch-export" in command.format:
        difference = write_torch_export(output / "model.pt2", subnet, shape)
        _say(console, output / "model.pt2", f"for torch.export.load; largest difference of a logit {difference:.1e}")
    if "onnx" in command.format:
        difference = write_onnx(output / "model.onnx", subnet, shape, card=card)
        _say(console, output / "model.onnx", f"as onnxruntime computes it; largest difference of a logit {difference:.1e}")
    written: list[Form] = [form for form, name in FILES.items() if (output / name).exists()]
    write_markdown(output / "model.md", card, family=family, forms=written)
    return output


def _image_shape(command: ExportCommand, card: ModelCard) -> tuple[int, int, int]:
    """Channels, height, width of what goes in; zeros where no format asks. Raises UserError where a card does not say."""
    how = card.preprocessing or {}
    if {"in_chans", "img_size"} <= how.keys():
        return how["in_chans"], how["img_size"], how["img_size"]
    if asking := [form for form in command.format if form != "safetensors"]:
        raise UserError(f"--format {' '.join(asking)}: the network takes no images; choose --format safetensors")
    return 0, 0, 0


def _say(console: Console, path: Path, words: str) -> None:
    console.print(f"{path}  {words}", highlight=False, soft_wrap=True)


def _check_output(output: Path, card: ModelCard) -> None:
    """Raises UserError for a file, for the folder of a search, and for a folder that holds another subnet."""
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file, not a folder")
    config, held = output / "config.json", output / "model.json"
    if config.exists() and not held.exists():
        raise UserError(f"--output {output} holds a config.json of something else; choose another folder")
    if held.exists():
        other = read_card(held)
        if (other.id, other.search_id) != (card.id, card.search_id):
            raise UserError(f"--output {output} holds another subnet ({other.id}); choose another folder")


# --- which subnet -----------------------------------------------------------------------------------------------------


def _found(command: ExportCommand) -> tuple[Family[Any, Any], ModelCard, nn.Module]:
    """The family, the model card and the network that a command asks for."""
    source = command.source
    given = None if command.family is None else find_family(command.family)
    if source.suffix == ".json":
        if command.subnet != "champion":
            raise UserError(f"--subnet {command.subnet}: {source} is one subnet; give the folder of the search instead")
        family, card = _card(source, given)
        return family, card, load_subnet(source, family=family)
    champion = source / "champion.json"
    if not (source / CONFIG).is_file():
        raise UserError(f"{source} is no output folder of a search; give the folder that `{command_line('search')}` named")
    if not champion.is_file():
        raise UserError(f"the search in {source} has no champion yet; continue it with --resume first")
    family, card = _card(champion, given)
    if command.subnet in ("champion", card.id):
        return family, card, load_subnet(champion, family=family)
    card = _of_network(source, command.subnet, card)
    arch = family.architecture.from_dict(card.arch)
    folder = OutputFolder(source, read_json(source / CONFIG))
    task = stored_search(folder.config["recipe"], source / CONFIG, given).recipe.task
    subnets = open_subnets_of(folder, family, task)
    cost = subnets.supernet.cost(arch)
    return family, replace(card, params=cost.params, macs=cost.macs), subnets.extract(arch)


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
    card = replace(champion, score_images=counts.search_images, test_images=counts.test_images, latency_ms=None)
    others = {} if networks is None else {"largest": networks.largest, "smallest": networks.smallest}
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
    row = next((row for row in read_candidates(folder / CANDIDATES) if row.id == which), None)
    if row is None:
        raise UserError(f"--subnet {which}: no such candidate in {folder / CANDIDATES}; give an id of it, largest or smallest")
    return replace(
        card,
        id=which,
        arch=row.arch,
        score=row.score,
        score_images=row.images_seen,
        test_score=None,
        latency_ms=row.latency_ms,
        origin=f"index {row.index}, {row.origin}, generation {row.generation}, {row.status}",
    )
