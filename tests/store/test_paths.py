"""Paths as people type them mean one file, in whatever process and from whatever folder."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from raysearch.errors import UserError
from raysearch.jobs.compare import CompareCommand
from raysearch.jobs.export import ExportCommand
from raysearch.jobs.plan import SearchCommand
from raysearch.jobs.ui import UiCommand
from raysearch.jobs.validate import ValidateCommand
from raysearch.parsing.one_dataclass import parse
from raysearch.recipes.autoformer import IMAGES_RECIPE
from raysearch.store.files import write_whole
from raysearch.store.names import check_text, shown
from raysearch.store.paths import absolute, absolute_uri, of_home
from raysearch.tasks.images import IMAGES
from raysearch.training import checkpoint


def test_paths_are_absolute_and_know_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert absolute(Path("data")) == tmp_path / "data"
    assert absolute(Path("~/data")) == tmp_path / "home" / "data"
    assert absolute(Path("~nobody-of-that-name/data")) == tmp_path / "~nobody-of-that-name" / "data"
    assert absolute_uri("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert absolute_uri("sqlite:////tmp/mlflow.db") == "sqlite:////tmp/mlflow.db"
    assert absolute_uri("mlruns") == str(tmp_path / "mlruns")
    assert absolute_uri("http://host:5000") == "http://host:5000"


def test_a_search_reads_the_folder_that_was_meant_when_it_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = SearchCommand(IMAGES_RECIPE, data="photos", supernet=Path("~/net.pth"), tracking_uri="sqlite:///m.db")
    assert command.data == str(tmp_path / "photos")
    for kept in ("s3://bucket/photos", "torchvision:CIFAR10"):
        assert replace(command, data=kept).data == kept
    (tmp_path / "of:mine").mkdir()
    assert replace(command, data="of:mine").data == str(tmp_path / "of:mine")
    assert command.supernet == Path.home() / "net.pth"
    assert command.tracking_uri == f"sqlite:///{tmp_path}/m.db"
    config = replace(IMAGES, root=Path("photos"))
    monkeypatch.chdir("/")
    assert config.root == tmp_path / "photos"  # so it travels to processes with another working directory


def test_the_home_is_known_wherever_a_command_takes_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shells expand it at the beginning of a word alone: neither in --output=~/page.html nor in what is quoted."""
    monkeypatch.setenv("HOME", str(tmp_path))
    command = parse(
        CompareCommand, ["~/one", "0" * 32, "--output=~/page.html", "--tracking-uri=sqlite:///~/m.db"], prog="compare"
    )
    assert command.runs == (f"{tmp_path}/one", "0" * 32)
    assert command.output == tmp_path / "page.html"
    assert command.tracking_uri == f"sqlite:///{tmp_path}/m.db"
    assert CompareCommand(("one", "other"), output=Path("~/page.html")).output == tmp_path / "page.html"
    assert parse(ExportCommand, ["~/run", "--output=~/files"], prog="export") == ExportCommand(
        tmp_path / "run", output=tmp_path / "files"
    )
    assert parse(ValidateCommand, ["~/run"], prog="validate").folder == tmp_path / "run"
    assert parse(UiCommand, ["sqlite:///~/m.db"], prog="ui").uri == f"sqlite:///{tmp_path}/m.db"
    assert of_home("./~a/*.png") == "./~a/*.png"


def test_results_are_written_where_every_library_can_and_read_from_anywhere(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    with pytest.raises(UserError, match=r"--output .*caf\N{REPLACEMENT CHARACTER}: its path has bytes that are no UTF-8"):
        check_text(odd, "--output")
    check_text(tmp_path / "café \"<b>'\n", "--output")
    weights = {"w": torch.arange(3.0)}
    checkpoint.write(odd, checkpoint.pack(weights, {"kind": "supernet"}))
    tensors, metadata = checkpoint.read(odd)
    assert torch.equal(tensors["w"], weights["w"])
    assert metadata == {"kind": "supernet"}
    write_whole(tmp_path / "page", f"of {odd}")
    assert (tmp_path / "page").read_text(encoding="utf-8").endswith("/caf\N{REPLACEMENT CHARACTER}")


def test_any_name_can_be_shown() -> None:
    assert shown(Path("caf\udce9") / "a\nb") == "caf\N{REPLACEMENT CHARACTER}/a\N{REPLACEMENT CHARACTER}b"
    assert shown("naïve 画像") == "naïve 画像"
