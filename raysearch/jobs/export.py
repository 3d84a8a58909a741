"""From a finished search, or from a subnet's two files, to files for other programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from torch import nn

from raysearch.errors import UserError
from raysearch.export.card import Form, write_markdown
from raysearch.export.programs import (
    check_onnx_installed,
    pixels_in_words,
    preprocessing_of_images,
    write_onnx,
    write_onnx_uint8,
    write_torch_export,
    write_torch_export_uint8,
)
from raysearch.export.subnet_file import read_card, save_subnet
from raysearch.jobs.found_network import find_network
from raysearch.store.files import folder_written_whole
from raysearch.store.folder import write_json
from raysearch.store.model_card import ModelCard
from raysearch.store.names import check_text

FILES: dict[Form, str] = {
    "safetensors": "model.safetensors",
    "timm": "config.json",
    "torch-export": "model.pt2",
    "onnx": "model.onnx",
}
"""The file that each format adds to the output folder; the names are those that timm expects."""
PROGRAMS: tuple[Form, ...] = ("torch-export", "onnx")
"""Formats that hold what is computed, not only weights."""


@dataclass(frozen=True, slots=True)
class ExportCommand:
    """Write a subnet of a finished search in formats of other programs, each with a model card beside it."""

    source: Annotated[Path, tyro.conf.Positional]
    """Output folder of the search, or champion.json with its weights beside it."""
    subnet: str = "champion"
    """champion, largest, smallest, or the id of a candidate or of a random subnet of the closing report."""
    format: tuple[Form, ...] = ("safetensors", "timm", "torch-export", "onnx")
    """safetensors and JSON are always written; timm, torch-export and onnx beside them."""
    uint8: bool = False
    """Programs (torch-export, onnx) take pixels as they are, uint8 (batch, height, width, chans) of any size, and give
    probabilities: resize, crop, normalisation and softmax are inside. Else they take normalised floats and give logits."""
    family: str | None = None
    """File or module of the family, where it is one of your own."""
    output: Path | None = None
    """Folder of the files. Default: export/ID in the folder of the search, export/ID-uint8 with --uint8."""

    def __post_init__(self) -> None:
        """Raises UserError where no format is given."""
        if not self.format:
            raise UserError("--format is empty; give at least one of " + ", ".join(FILES))
        if self.uint8 and not set(PROGRAMS) & set(self.format):
            programs, given = " or ".join(PROGRAMS), " ".join(self.format)
            raise UserError(f"--uint8 --format {given} holds no program; add {programs}, or leave out --uint8")


def export(command: ExportCommand, *, console: Console) -> Path:
    """Write the files; returns their folder.

    Programs are compared with the network before they are kept. Raises UserError, in one line with the remedy.
    """
    if "onnx" in command.format:
        check_onnx_installed()
    found = find_network(command.source, subnet=command.subnet, family=command.family)
    family, card, subnet = found.family, found.card, found.module
    if family.timm is None and family.timm_files is None and command.format == ("timm",):
        raise UserError(f"--format timm: networks of the family {family.name} have no names in timm; choose another format")
    if command.uint8:
        preprocessing_of_images(card)
    base = command.source if command.source.is_dir() else command.source.parent
    output = command.output or base / "export" / (f"{card.id}-uint8" if command.uint8 else str(card.id))
    shape = _image_shape(command, card)
    card = replace(card, programs_take="pixels" if command.uint8 else None)
    check_text(output, "--output")
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
    if "timm" in command.format and family.timm_files is not None:
        _write_timm(output / "timm", family.timm_files(subnet, card.to_dict()), console)
    if command.uint8:
        _write_uint8(command, output, subnet, card, console)
    else:
        if "torch-export" in command.format:
            difference = write_torch_export(output / "model.pt2", subnet, shape, card=card)
            _say(console, output / "model.pt2", f"for torch.export.load; largest difference of a logit {difference:.1e}")
        if "onnx" in command.format:
            difference = write_onnx(output / "model.onnx", subnet, shape, card=card)
            _say(console, output / "model.onnx", f"as onnxruntime computes it; largest difference of a logit {difference:.1e}")
    written: list[Form] = [form for form, name in FILES.items() if (output / name).exists()]
    write_markdown(output / "model.md", card, family=family, forms=written)
    return output


def _write_timm(folder: Path, files: Mapping[str, bytes], console: Console) -> None:
    """A folder that timm opens without this package."""
    with folder_written_whole(folder) as made:
        made.mkdir()
        for name, content in files.items():
            (made / name).write_bytes(content)
    stock = "config.json" in files
    call = (
        f'timm.create_model("local-dir:{folder}", pretrained=True)'
        if stock
        else "model.py: load(); imports timm and torch alone"
    )
    _say(console, folder, f"{'a plain network of timm, ' if stock else ''}{call}; compared with the network")


def _write_uint8(command: ExportCommand, output: Path, subnet: nn.Module, card: ModelCard, console: Console) -> None:
    """The programs that take pixels."""
    words = f"{pixels_in_words(preprocessing_of_images(card))}; largest difference of a probability"
    if "torch-export" in command.format:
        difference = write_torch_export_uint8(output / "model.pt2", subnet, card=card)
        _say(console, output / "model.pt2", f"for torch.export.load, takes {words} {difference:.1e}")
    if "onnx" in command.format:
        difference = write_onnx_uint8(output / "model.onnx", subnet, card=card)
        _say(console, output / "model.onnx", f"as onnxruntime computes it, takes {words} {difference:.1e}")


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
        held_programs = [FILES[form] for form in PROGRAMS if (output / FILES[form]).exists()]
        if held_programs and other.programs_take != card.programs_take:
            uint8 = "with" if other.programs_take else "without"
            raise UserError(f"--output {output} holds {held_programs[0]}, written {uint8} --uint8; choose another folder")
