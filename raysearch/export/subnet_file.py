"""A subnet as two files: weights as safetensors, everything else as JSON beside them, and the same for people in Markdown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from raysearch.errors import UserError
from raysearch.export.card import write_markdown
from raysearch.spaces import Family, build_subnet, find_family
from raysearch.spaces import family as family_named
from raysearch.store.folder import read_json, read_record, write_json
from raysearch.store.model_card import ModelCard
from raysearch.training import checkpoint

KIND = "subnet"


def save_subnet(path: Path, subnet: nn.Module, *, family: Family[Any, Any], card: ModelCard) -> ModelCard:
    """Write ``path`` (JSON), and beside it its weights (``.safetensors``) and its model card for people (``.md``).

    Args:
        path: ``.../champion.json``.
        subnet: what ``extract`` returned, or the same trained further.
        family: of the network.
        card: all that a user must know; its ``family`` and ``weights`` are set here.

    Returns:
        The card as it was written.

    """
    weights = path.with_suffix(".safetensors")
    checkpoint.write(weights, checkpoint.pack(subnet.state_dict(), {"kind": KIND, "family": family.name, "arch": card.arch}))
    written = replace(card, family=family.name, weights=weights.name)
    write_json(path, written.to_dict())
    write_markdown(path.with_suffix(".md"), written, family=family)
    return written


def read_card(path: Path) -> ModelCard:
    """What ``champion.json`` holds. Raises UserError when the file is missing, damaged or another's."""
    values = read_json(path)
    if absent := {"family", "settings", "weights", "arch"} - values.keys():
        raise UserError(f"{path} describes no subnet ({', '.join(sorted(absent))} missing); give a file such as champion.json")
    return read_record(path, ModelCard)


def load_subnet(path: Path, *, family: Family[Any, Any] | str | None = None) -> nn.Module:
    """The network of ``champion.json``, in evaluation mode.

    Args:
        path: the JSON file; its weights stand beside it.
        family: needed for one of your own: the object, its file or its module. Reading the files themselves executes nothing.

    Raises:
        UserError: a file is missing, damaged or another's, or the family is not known.

    """
    card = read_card(path)
    weights = path.parent / card.weights
    tensors, _ = checkpoint.read(weights)
    known = find_family(family) if isinstance(family, str) else family or family_named(card.family)
    subnet = build_subnet(known, card.settings, card.arch)
    try:
        subnet.load_state_dict(tensors)
    except RuntimeError:
        raise UserError(f"{weights} does not hold the weights of {path}; copy both files again") from None
    return subnet.eval()
