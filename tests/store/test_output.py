"""The output folder: one owner, one configuration, files that are whole or not there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raysearch.errors import UserError
from raysearch.store.folder import open_folder, read_json, write_json

CONFIG: dict[str, Any] = {"command": "search", "recipe": {"name": "digits", "train": {"epochs": 3, "lr": 0.1}, "rates": (1, 2)}}


def test_a_search_keeps_its_identity_and_adds_up_its_time(tmp_path: Path) -> None:
    with open_folder(tmp_path / "a" / "run", CONFIG, resume=False) as folder:
        first = folder.search_id
        folder.add_seconds("train", 2.5)
        assert not folder.finished
    with open_folder(folder.path, {**CONFIG, "command": "search --resume"}, resume=True) as folder:
        assert folder.search_id == first
        assert folder.config["command"] == "search"  # of the first start
        folder.add_seconds("train", 1.0)
        folder.add_seconds("search", 4.0)
        folder.finish()
    with open_folder(folder.path, CONFIG, resume=True) as folder:
        assert folder.finished
        assert folder.seconds == {"train": 3.5, "search": 4.0}
    with open_folder(tmp_path / "b", CONFIG, resume=False) as other:
        assert other.search_id != first


def test_other_settings_are_listed(tmp_path: Path) -> None:
    with open_folder(tmp_path, CONFIG, resume=False):
        pass
    changed = {**CONFIG, "recipe": {"name": "digits", "train": {"epochs": 4, "lr": 0.1}, "rates": (1, 2), "seed": 1}}
    with (
        pytest.raises(ValueError, match=r"train\.epochs: 3 there, 4 here; seed: None there, 1 here"),
        open_folder(tmp_path, changed, resume=True),
    ):
        pass


def test_settings_that_may_change_do_and_their_history_is_kept(tmp_path: Path) -> None:
    with open_folder(tmp_path, CONFIG, resume=False) as folder:
        first = folder.search_id

    def resumed(**train: Any) -> dict[str, Any]:
        changed = {**CONFIG, "recipe": {**CONFIG["recipe"], "train": {"epochs": 3, "lr": 0.1, **train}}}
        with open_folder(tmp_path, changed, resume=True, may_change=("train.lr", "train.clip_grad")) as folder:
            assert folder.search_id == first
        assert read_json(tmp_path / "config.json") == folder.config
        return folder.config

    assert resumed(lr=0.05)["recipe"] == {"name": "digits", "train": {"epochs": 3, "lr": 0.05}, "rates": [1, 2]}
    config = resumed(lr=0.05, clip_grad=1.0)
    assert [change["settings"] for change in config["changes"]] == [
        {"train.lr": {"before": 0.1, "after": 0.05}},
        {"train.clip_grad": {"before": None, "after": 1.0}},
    ]
    assert config["command"] == "search"
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UserError, match=r"another configuration \(train\.epochs: 3 there, 4 here\); repeat its settings"):
        resumed(lr=0.01, clip_grad=1.0, epochs=4)
    resumed(lr=0.05, clip_grad=1.0)
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_configuration_of_an_earlier_version_is_brought_up_to_date_before_it_is_compared(tmp_path: Path) -> None:
    def upgrade(recipe: dict[str, Any]) -> dict[str, Any]:
        return {"family": "autoformer", **recipe}

    with open_folder(tmp_path, CONFIG, resume=False):
        pass
    before = (tmp_path / "config.json").read_bytes()
    now = {**CONFIG, "recipe": upgrade(CONFIG["recipe"])}
    with pytest.raises(ValueError, match="family: None there, autoformer here"), open_folder(tmp_path, now, resume=True):
        pass
    with open_folder(tmp_path, now, resume=True, upgrade=upgrade) as folder:
        assert folder.config["recipe"]["family"] == "autoformer"
    other = {**CONFIG, "recipe": {"family": "hybrid", **CONFIG["recipe"]}}
    with (
        pytest.raises(ValueError, match="family: autoformer there, hybrid here"),
        open_folder(tmp_path, other, resume=True, upgrade=upgrade),
    ):
        pass
    assert (tmp_path / "config.json").read_bytes() == before


def test_passwords_that_0_1_0_wrote_down_are_taken_out_of_every_text_of_the_folder(tmp_path: Path) -> None:
    """It wrote the command line as it was given, in JSON, Markdown and pages, each of which escapes in its own way."""
    given, bare = "--tracking-uri 'http://ada:s3&cr\"t@host:5000' --seed 1", 'http://ada:s3&cr"t@host:5000'
    with open_folder(tmp_path, {**CONFIG, "command": f"search.py {given}"}, resume=False) as folder:
        search_id = folder.search_id
    page = "<style>p{}</style><pre>--tracking-uri &#x27;http://ada:s3&amp;cr&quot;t@host:5000&#x27; --seed 1</pre>mail@a.b"
    (tmp_path / "export").mkdir()
    for name in ("summary.json", "champion.json", "export/model.json"):
        write_json(tmp_path / name, {"command": f"search.py {given}", "mlflow_uri": bare, "recipe": "digits"})
    for name in ("report.html", "compare.html"):
        (tmp_path / name).write_text(page)
    (tmp_path / "champion.md").write_text(f"| command | `search.py {given}` |\n")
    (tmp_path / "tracking.jsonl").write_text(json.dumps({"params": {"command": f"search.py {given}"}}) + "\n")
    for _ in range(2):  # once config.json was cleaned, as an earlier version did it alone, the others tell what is secret
        with open_folder(tmp_path, CONFIG, resume=True) as folder:
            assert folder.config["command"] == "search.py --tracking-uri 'http://ada:***@host:5000' --seed 1"
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"cr" in path.read_bytes()]
        (tmp_path / "report.html").write_text(page)
        write_json(tmp_path / "summary.json", {"command": f"search.py {given}"})
    with open_folder(tmp_path, CONFIG, resume=True) as folder:
        assert folder.search_id == search_id
    assert (tmp_path / "report.html").read_text() == page.replace("s3&amp;cr&quot;t", "***")
    assert read_json(tmp_path / "champion.json")["recipe"] == "digits"


def test_texts_that_hold_no_password_are_not_touched(tmp_path: Path) -> None:
    with open_folder(tmp_path, {**CONFIG, "command": "search.py --tracking-uri http://host:5000/a@b"}, resume=False):
        write_json(tmp_path / "summary.json", {"command": "search.py"})
        (tmp_path / "champion.json").write_text("damaged")
        (tmp_path / "report.html").write_bytes(b"\xff http://ada:secret@host")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()}
    with open_folder(tmp_path, CONFIG, resume=True):
        pass
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()} == before


KILLED_AT_ONCE = """
import os, signal, sys
from pathlib import Path
from raysearch.store.folder import open_folder

sys.addaudithook(lambda event, _: event == "os.rename" and os.kill(os.getpid(), signal.SIGKILL))
with open_folder(Path(sys.argv[1]), {"recipe": {}}, resume=False):
    pass
"""


def test_a_start_that_was_killed_before_its_configuration_was_there_is_no_earlier_search(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED_AT_ONCE, str(tmp_path / "run")], check=False)
    assert killed.returncode == -signal.SIGKILL
    with open_folder(tmp_path / "run", CONFIG, resume=False) as folder:
        assert {p.name for p in folder.path.iterdir()} == {"config.json", ".lock"}


HOLD = """
import pathlib, sys
from raysearch.store.folder import open_folder, read_json
folder = pathlib.Path(sys.argv[1])
with open_folder(folder, read_json(folder / "config.json"), resume=True):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with open_folder(tmp_path, CONFIG, resume=False):
        pass
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match="in use by another search"), open_folder(tmp_path, CONFIG, resume=True):
        pass
    holder.kill()  # a lock does not outlive its process
    holder.communicate()
    with open_folder(tmp_path, CONFIG, resume=True):
        pass


def test_a_start_that_fails_at_once_is_no_earlier_search(tmp_path: Path) -> None:
    def start(*, computes: bool) -> None:
        with open_folder(tmp_path, CONFIG, resume=False) as folder:
            if computes:
                folder.add_seconds("train", 1.0)
            raise UserError("no server")

    for computes in (False, False, True):
        with pytest.raises(ValueError, match="no server"):
            start(computes=computes)
    with open_folder(tmp_path, CONFIG, resume=True) as folder:  # what was computed stays
        assert folder.seconds == {"train": 1.0}


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match=f"--output {tmp_path / 'file' / 'run'} cannot be written"),
        open_folder(tmp_path / "file" / "run", CONFIG, resume=False),
    ):
        pass


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "values.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}


def test_resuming_a_search_that_left_nothing_starts_it(tmp_path: Path) -> None:
    """A search killed before its first file was there."""
    with open_folder(tmp_path / "run", CONFIG, resume=True) as folder:
        assert not folder.finished
    with open_folder(tmp_path / "run", CONFIG, resume=True) as again:
        assert again.search_id == folder.search_id
