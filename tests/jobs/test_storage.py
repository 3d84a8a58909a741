"""A second place for results: what it holds, and who may go on from it."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from raysearch.errors import UserError
from raysearch.jobs.plan import SearchCommand
from raysearch.jobs.storage import Storage, fetched, mirrored
from raysearch.recipes.autoformer import DIGITS_RECIPE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An output folder in the middle of a search."""
    made = tmp_path / "here" / "digits-1"
    (made / "cache").mkdir(parents=True)
    (made / "config.json").write_text(json.dumps({"search_id": "one"}))
    for name in ("journal.jsonl", "training.safetensors", "cache/search.arrow", ".lock", "report.html.tmp"):
        (made / name).write_text(name)
    return made


def nothing(line: str) -> None:
    raise AssertionError(line)


def command(**values: Any) -> SearchCommand[Any, Any]:
    return SearchCommand(DIGITS_RECIPE, **values)


def bring(asked: SearchCommand[Any, Any]) -> SearchCommand[Any, Any]:
    return fetched(asked, Console(file=StringIO()))


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_the_storage_holds_what_the_folder_holds_but_for_what_another_machine_makes_itself(
    folder: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    with mirrored(folder, str(there), nothing):
        (folder / "journal.jsonl").write_text("two lines")
        (folder / "training.safetensors").unlink()
        (folder / "supernet.safetensors").write_text("weights")
        (folder / "fine-tuned").mkdir()
        (folder / "fine-tuned" / "champion.safetensors").write_text("better ones")
        (folder / ".finished").touch()
    assert contents(there / "digits-1") == {
        "config.json": '{"search_id": "one"}',
        "journal.jsonl": "two lines",
        "supernet.safetensors": "weights",
        "fine-tuned/champion.safetensors": "better ones",
        ".finished": "",
    }
    before = {path: path.stat().st_mtime_ns for path in there.rglob("*") if path.is_file()}
    with mirrored(folder, str(there), nothing):
        (folder / "journal.jsonl").write_text("three lines, now")
    changed = [path.name for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert changed == ["journal.jsonl"]  # what is there already is not copied again


def test_another_machine_goes_on_with_the_newest_or_with_the_one_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = str(tmp_path / "there")
    with mirrored(folder, there, nothing):
        pass
    with mirrored(folder.rename(folder.with_name("digits-2")), there, nothing):
        pass
    (tmp_path / "machine").mkdir()
    monkeypatch.chdir(tmp_path / "machine")
    assert bring(command(resume=True, storage=there)).output == Path("runs/digits-2")
    assert set(contents(Path("runs/digits-2"))) == {"config.json", "journal.jsonl", "training.safetensors"}
    named = bring(command(resume=True, storage=there, output=tmp_path / "machine" / "digits-1"))
    assert named.output == tmp_path / "machine" / "digits-1"
    assert contents(tmp_path / "machine" / "digits-1") == contents(Path("runs/digits-2"))
    assert bring(command(storage=there)).output is None  # a new search has a new name


@pytest.mark.parametrize(
    ("resume", "spoil", "message"),
    [
        (False, lambda here: None, "digits-1 holds a search: add --resume to continue it, or give another --output"),
        (True, lambda here: (here / "journal.jsonl").write_text("old"), r"is further than .*digits-1 \(journal.jsonl\): move"),
        (True, lambda here: (here / "config.json").write_text('{"search_id": "two"}'), "holds another search than"),
    ],
)
def test_a_search_is_never_mixed_with_what_the_storage_holds(
    folder: Path, tmp_path: Path, resume: bool, spoil: Any, message: str
) -> None:
    there = str(tmp_path / "there")
    with mirrored(folder, there, nothing):
        pass
    spoil(folder)
    before = contents(folder)
    with pytest.raises(UserError, match=message):
        bring(command(resume=resume, storage=there, output=folder))
    assert contents(folder) == before


def test_a_storage_that_holds_nothing_to_continue_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--resume: there is no search of digits in .*there; name its folder with --output"):
        bring(command(resume=True, storage=str(tmp_path / "there")))
    with pytest.raises(UserError, match="ftp://host/x is not read: give a folder, or an address as s3://"):
        bring(command(storage="ftp://host/x", output=tmp_path / "out"))


def test_a_storage_that_takes_nothing_is_told_and_ends_no_search(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("no folder")
    said: list[str] = []
    with mirrored(folder, str(tmp_path / "there"), said.append):
        pass
    (line,) = said
    assert line.startswith(f"--storage {tmp_path / 'there' / 'digits-1'} does not take what is new in {folder} (")
    assert str(Storage.parse(str(tmp_path / "there"))) == str(tmp_path / "there")
