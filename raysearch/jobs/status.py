"""How far a search is, read from its output folder or its storage: nothing is changed, locked or connected to."""

from __future__ import annotations

import fcntl
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import tyro
from rich.console import Console

from raysearch.errors import UserError
from raysearch.jobs.storage import Storage
from raysearch.report.tables import duration_text
from raysearch.store.folder import CONFIG, LOCK, OutputFolder, read_json
from raysearch.tasks.images.remote import is_address

PHASES = ("prepare", "latency", "train", "search", "report", "fine-tune", "baselines")
"""As the folder counts their seconds, in order."""


@dataclass(frozen=True, slots=True)
class StatusCommand:
    """Tell how far a search is: its phase, epochs or candidates done, the best score, and whether a process works on it."""

    folder: Annotated[str, tyro.conf.Positional]
    """Output folder of a search, also while it runs, on any machine that sees the folder; or where ``--storage`` keeps it, as
    s3://bucket/prefix/digits-20260101-120000."""


def status(command: StatusCommand, *, console: Console) -> None:
    """Print how far a search is. Raises UserError where the folder holds none."""
    lines = status_of_storage(command.folder) if is_address(command.folder) else status_of(Path(command.folder))
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def status_of(path: Path) -> list[str]:
    """Lines for a person. Raises UserError where the folder holds no search."""
    if not (path / CONFIG).exists():
        raise UserError(f"{path} holds no search; give an output folder, as one in runs/")
    lines, spent = _told(path, str(path))
    if spent is None:
        return lines
    works = _works(path)
    state = (
        "a process works on it" if works else "nothing works on it on this machine: the same command with --resume continues"
    )
    written = max(file.stat().st_mtime for file in path.iterdir())
    return [*lines, f"{state}; last written {duration_text(time.time() - written)} ago{spent}"]


def status_of_storage(address: str) -> list[str]:
    """The same for the copy of an output folder in an object store, from its small files and the heads of large ones.

    Raises UserError where the store cannot be read, or holds no search there.
    """
    storage = Storage.parse(address)
    try:
        files = storage.files()
        if CONFIG not in files:
            runs = sorted({name.partition("/")[0] for name in files if name.endswith(f"/{CONFIG}")})
            below = f", but below it: {', '.join(runs)}" if runs else ""
            raise UserError(f"{address} holds no search{below}; give the address of one")
        with tempfile.TemporaryDirectory(prefix="raysearch-status-") as folder:
            for name in files:
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.name.endswith("training.safetensors"):
                    path.write_bytes(storage.head_of_tensors(name))
                elif path.suffix in (".json", ".jsonl"):
                    storage.fetch(name, path)
                else:
                    path.touch()  # that it is there is all that counts
            lines, spent = _told(Path(folder), address)
    except OSError as error:
        raise UserError(f"{address} cannot be read: {error}") from error
    if spent is None:
        return lines
    written = max(changed for _, changed in files.values()) / 1e9
    return [*lines, f"last written {duration_text(time.time() - written)} ago{spent}"]


def _told(path: Path, shown: str) -> tuple[list[str], str | None]:
    """What a folder that is called ``shown`` tells, and the time of each phase so far; None for a search that is finished."""
    config = read_json(path / CONFIG)
    folder, recipe = OutputFolder(path, config), cast("dict[str, Any]", config.get("recipe", {}))
    took = [f"{name} {duration_text(folder.seconds[name])}" for name in PHASES if name in folder.seconds]
    spent = f"; so far: {', '.join(took)}" if took else ""
    begun = config.get("created", "")
    head = (
        f"{recipe.get('name', 'a search')}, {shown}, begun {begun}" if begun else f"{recipe.get('name', 'a search')}, {shown}"
    )
    if folder.finished:
        champion = folder.read_summary().networks
        found = "" if champion is None else f"; champion {champion.champion.id}"
        return [head, f"finished{found}{spent}"], None
    return [head, *_phase(folder, recipe)], spent


def _works(path: Path) -> bool:
    """Whether a process of this machine, or of another where the file system tells, holds the folder."""
    with suppress(OSError), (path / LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _phase(folder: OutputFolder, recipe: dict[str, Any]) -> list[str]:
    if not folder.supernet.exists():
        train = cast("dict[str, Any]", recipe.get("train", {}))
        epochs: Any = train.get("epochs", "?")
        lines = list[str]()
        first = round(train.get("largest_first", 0) * train["epochs"]) if "from_timm" in recipe else 0
        if first and first < epochs:
            lines.append(f"the whole network: {_saved(folder.path / 'whole-training.safetensors', first)}")
            epochs -= first
        return [*lines, f"training: {_saved(folder.training, epochs)}"]
    splits: dict[str, list[dict[str, Any]]] = {}
    for line in _lines(folder.journal):
        if "split" in line:
            splits.setdefault(line["split"], []).append(line["outcome"])
    outcomes = splits.pop("search", [])
    scores = [o["score"] for o in outcomes if "score" in o and not o.get("excluded")]
    best = f", best score {max(scores):.6g}" if scores else ""
    failed = sum("score" not in o for o in outcomes)
    told = f", {failed} without a score" if failed else ""
    lines = [f"search by {recipe.get('algorithm', '?')}: {len(outcomes)} candidates scored{best}{told}"]
    if later := {split: len(of) for split, of in splits.items()}:
        lines.append(f"after it: {', '.join(f'{count} networks on {split}' for split, count in later.items())}")
    for place, what in (("fine-tuned", "fine-tuning"), ("baselines", "baseline")):
        for begun in sorted((folder.path / place).glob("*-training.safetensors")):
            lines.append(f"{what} {begun.name.removesuffix('-training.safetensors')}: {_saved(begun, None)}")
    return lines


def _saved(training: Path, epochs: int | str | None) -> str:
    """How far a training is, by its checkpoint; ``epochs``: of all, where they are known here."""
    history = _history(training) if training.exists() else []
    loss = f", loss {history[-1]['loss']:.3f}" if history else ""
    return f"{len(history)}{'' if epochs is None else f' of {epochs}'} epochs saved{loss}"


def _history(path: Path) -> list[dict[str, Any]]:
    """Records of the epochs in a training checkpoint, from the head of its file: the tensors stay where they are."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        entries: dict[str, Any] = json.loads(file.read(size)).get("__metadata__", {})
    for content in entries.values():
        values: Any = json.loads(content)
        if isinstance(values, dict) and "history" in values:
            return cast("list[dict[str, Any]]", values["history"])
    return []


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines of a journal that another process may be writing."""
    if path.exists():
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                yield json.loads(line)
