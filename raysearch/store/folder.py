"""The output folder of a search: one owner at a time, one configuration, files that are whole or not there."""

from __future__ import annotations

import fcntl
import html
import json
import os
import time
import uuid
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from raysearch.errors import UserError
from raysearch.store.files import make_folder, temporary_name, write_whole
from raysearch.store.json_values import Record
from raysearch.store.names import check_text, readable
from raysearch.store.secrets import without_password, words_with_password
from raysearch.store.summary import EpochRecord, Summary

R = TypeVar("R", bound=Record)

CONFIG = "config.json"
LOCK = ".lock"
SPOOL = "tracking.jsonl"


def write_json(path: Path, values: Any) -> None:
    """Write JSON to ``path``, durably, whole or not at all."""
    write_whole(path, json.dumps(values, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of our own. Raises UserError that names a missing or damaged file."""
    return cast(dict[str, Any], _read(path, dict))


def read_json_rows(path: Path) -> list[dict[str, Any]]:
    """Read a JSON list of objects of our own. Raises UserError that names a missing or damaged file."""
    return cast(list[dict[str, Any]], _read(path, list))


def read_record(path: Path, kind: type[R]) -> R:
    """Read a dataclass that is a JSON file of its own. Raises UserError that names a missing or damaged file."""
    values = read_json(path)
    try:
        return kind.from_dict(values)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None


def _read(path: Path, kind: type) -> Any:
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing; restore it or choose another --output") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}); restore it or choose another --output") from None
    if not isinstance(values, kind):
        raise UserError(f"{path} is damaged (it holds no JSON {kind.__name__}); restore it or choose another --output")
    return values


class OutputFolder:
    """One search's folder. Made by :func:`open_folder`, which locks it; to read from it needs no lock."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.config = config

    @property
    def search_id(self) -> str:
        """Identity of the search, the same after a resume."""
        return self.config["search_id"]

    @property
    def summary(self) -> Path:
        """The closing numbers."""
        return self.path / "summary.json"

    @property
    def finished(self) -> bool:
        """Whether everything is written."""
        return (self.path / ".finished").exists()

    def finish(self) -> None:
        """Say that everything is written: whoever sees the mark finds every other file, for each was on disk before it."""
        write_whole(self.path / ".finished", "")

    @property
    def unregistered(self) -> Path:
        """A mark: the search is finished, but for its networks, which are not all on their way to MLflow's registry."""
        return self.path / ".unregistered"

    @property
    def supernet(self) -> Path:
        """The trained supernet."""
        return self.path / "supernet.safetensors"

    @property
    def training(self) -> Path:
        """Weights and optimiser state after the last finished epoch; removed when training is done."""
        return self.path / "training.safetensors"

    @property
    def latency(self) -> Path:
        """The latency table and what it was fitted to, where latency is asked for."""
        return self.path / "latency.json"

    @property
    def journal(self) -> Path:
        """Every outcome, in the order of completion."""
        return self.path / "journal.jsonl"

    @property
    def calibration(self) -> Path:
        """Training inputs from which subnets' running statistics are estimated, for families that have them."""
        return self.path / "calibration.arrow"

    @property
    def spool(self) -> Path:
        """Records that MLflow did not take yet; there only while some wait."""
        return self.path / SPOOL

    def read_summary(self) -> Summary:
        """The closing numbers. Raises UserError that names the file when it is missing or damaged."""
        return read_record(self.summary, Summary)

    def write_history(self, history: Sequence[EpochRecord]) -> None:
        """Keep the records of all epochs."""
        write_json(self.path / "training.json", {"history": [asdict(record) for record in history]})

    def read_history(self) -> list[EpochRecord]:
        """The records of all epochs. Raises UserError that names the file when it is missing or damaged."""
        path = self.path / "training.json"
        try:
            return [EpochRecord(**record) for record in read_json(path)["history"]]
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}); restore it or choose another --output") from None

    @contextmanager
    def timed(self, phase: str) -> Generator[None]:
        """Count the time of a ``with`` block as that of a phase."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add_seconds(phase, time.perf_counter() - started)

    @property
    def seconds(self) -> dict[str, float]:
        """Time spent in each phase so far, over all runs."""
        path = self.path / "seconds.json"
        return read_json(path) if path.exists() else {}

    def add_seconds(self, phase: str, seconds: float) -> None:
        """Count time that a phase took."""
        total = self.seconds
        write_json(self.path / "seconds.json", {**total, phase: total.get(phase, 0.0) + seconds})


def check_output(path: Path, *, resume: bool) -> dict[str, Any] | None:
    """The configuration of the search that the folder holds; None for a new or empty folder. Changes nothing.

    Raises UserError when it is no folder of ours, or holds an earlier search and ``resume`` is False.
    """
    file = path / CONFIG
    check_text(path, "--output")
    if path.exists() and not path.is_dir():
        raise UserError(f"--output {path} is a file, not a folder")
    held = _held(file) if file.exists() else None
    of_a_start = {LOCK, temporary_name(file).name}  # all that one leaves that was killed before its configuration was there
    if held is None and path.is_dir() and any(p.name not in of_a_start for p in path.iterdir()):
        raise UserError(f"--output {path} holds files, but no search of raysearch; choose an empty folder")
    if held is not None and not resume:
        raise UserError(f"--output {path} holds an earlier search; add --resume to continue it, or choose another folder")
    return held


@contextmanager
def open_folder(
    path: Path,
    config: dict[str, Any],
    *,
    resume: bool,
    upgrade: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    may_change: Collection[str] = (),
) -> Generator[OutputFolder]:
    """The output folder of a search with ``config``, locked for the length of a ``with`` block.

    ``upgrade`` makes of the ``recipe`` that an earlier version stored what this version would have stored for it, settings that
    were added since at the value that they stand for. So it is compared, and so it stands in :attr:`OutputFolder.config`; the
    file stays as it is.

    ``may_change`` names the settings, as ``train.lr``, that may differ from those of the earlier start. They take the place of
    these, and the file's ``changes`` tells when each had which value.

    Raises UserError, before anything is changed, when another process uses the folder, when it holds an earlier search and
    ``resume`` is False, when that had another configuration, or when it is somebody else's folder. A new folder is left empty
    when a UserError ends the block before anything was computed in it.
    """
    held = check_output(path, resume=resume)
    file = path / CONFIG
    if held is not None and upgrade is not None:
        held["recipe"] = upgrade(held["recipe"])
    changes = [] if held is None else _changes(held["recipe"], config["recipe"])
    if fixed := [change for change in changes if change.setting not in may_change]:
        raise UserError(
            f"--output {path} holds a search of another configuration ({'; '.join(str(change) for change in fixed[:3])}); "
            "repeat its settings, or choose another folder"
        )
    try:
        make_folder(path)
        lock = (path / LOCK).open("a")
    except OSError as error:
        raise UserError(f"--output {path} cannot be written: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"--output {path} is in use by another search") from None
        os.set_inheritable(lock.fileno(), False)
        if held is not None:
            _clean(path)
            held["command"] = without_password(held["command"])
            if changes:
                made = {change.setting: {"before": change.before, "after": change.after} for change in changes}
                now = datetime.now(UTC).isoformat(timespec="seconds")
                held["changes"] = [*held.get("changes", []), {"written": now, "settings": made}]
                held["recipe"] = json.loads(json.dumps(config["recipe"]))  # which differs in these alone
                write_json(file, held)
            yield OutputFolder(path, held)
            return
        held = {"search_id": uuid.uuid4().hex[:12], **config}
        write_json(file, held)
        try:
            yield OutputFolder(path, held)
        except UserError:
            if {p.name for p in path.iterdir()} == {CONFIG, LOCK}:
                file.unlink()
            raise


_TEXTS = (".json", ".md", ".html")
"""Endings of the files that may tell how a search was started: its own, those of its exports, and pages that were put there."""


def _clean(folder: Path) -> None:
    """Take the passwords that version 0.1.0 wrote down, in its command line, out of every text of the folder.

    Which there are stands in small files: pages of megabytes are read only where there is one.
    """
    secret: dict[str, str] = {}
    for name in (CONFIG, "summary.json", "champion.json"):
        with suppress(OSError, ValueError):  # whoever needs a file that is missing or damaged says so
            values = json.loads((folder / name).read_text(encoding="utf-8"))
            for told in ("command", "mlflow_uri"):
                secret |= words_with_password(str(values.get(told))) if isinstance(values, dict) else {}
    if not secret:
        return
    forms: tuple[Callable[[str], str], ...] = (str, lambda text: json.dumps(text)[1:-1], html.escape)
    shown = {readable(form(word)).encode(): readable(form(clean)).encode() for word, clean in secret.items() for form in forms}
    texts = [path for path in folder.rglob("*") if path.suffix in _TEXTS or path.name == SPOOL]
    for path in filter(Path.is_file, texts):
        content = path.read_bytes()
        cleaned = content
        for word in sorted(shown, key=len, reverse=True):  # one may be the beginning of another
            cleaned = cleaned.replace(word, shown[word])
        if cleaned != content:
            write_whole(path, cleaned)


def _held(file: Path) -> dict[str, Any]:
    """The configuration that a folder was made with."""
    values = read_json(file)
    if not isinstance(values.get("search_id"), str) or not isinstance(values.get("recipe"), dict):
        raise UserError(f"{file} is no configuration of raysearch; restore it or choose another --output")
    return values


@dataclass(frozen=True, slots=True)
class _Change:
    """A setting that differs from that of an earlier start; written as ``train.epochs: 300 there, 200 here``."""

    setting: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.setting}: {self.before} there, {self.after} here"


def _changes(before: Any, after: Any, place: str = "") -> list[_Change]:
    """The settings that differ."""
    after = json.loads(json.dumps(after))
    if isinstance(before, dict) and isinstance(after, dict):
        old, new = cast(dict[str, Any], before), cast(dict[str, Any], after)
        names = [*old, *(name for name in new if name not in old)]
        return [c for name in names for c in _changes(old.get(name), new.get(name), f"{place}.{name}".lstrip("."))]
    return [] if before == after else [_Change(place, before, after)]
