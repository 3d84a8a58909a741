"""How far a search is, from its folder alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from s3_server import s3_server, system, to_reach

from raysearch.errors import UserError
from raysearch.jobs.status import status_of, status_of_storage
from raysearch.jobs.storage import mirrored
from raysearch.recipes.autoformer import DIGITS_RECIPE
from raysearch.search import Failure, Result
from raysearch.store.folder import open_folder
from raysearch.store.journal import Journal
from raysearch.training import checkpoint


def test_a_search_is_told_by_its_phase_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "run"
    config = {"command": "line", "created": "2026-01-01T12:00:00+00:00", "recipe": DIGITS_RECIPE.to_dict()}
    with open_folder(path, config, resume=False) as folder:
        head, phase, state = status_of(path)
        assert head == f"digits, {path}, begun 2026-01-01T12:00:00+00:00"
        assert phase == "training: 0 of 300 epochs saved"
        assert state.startswith("a process works on it; last written ")
        history = [{"epoch": epoch, "loss": 2.0 - epoch, "lr": 1e-3} for epoch in range(2)]
        checkpoint.write(folder.training, checkpoint.pack({}, {"kind": "training", "history": history}))
        assert status_of(path)[1] == "training: 2 of 300 epochs saved, loss 1.000"
        folder.add_seconds("train", 90)
        folder.supernet.touch()
        journal = Journal(folder.journal, weights="w")
        journal.append(("search", "a"), Result(0.5, 1, 1, 1))
        journal.append(("search", "b"), Result(0.75, 1, 1, 1))
        journal.append(("search", "c"), Failure("outputs are not finite"))
        journal.append(("finalists", "a"), Result(0.5, 1, 1, 1))
        with folder.journal.open("ab") as file:
            file.write(b'{"split": "sea')  # another process is writing it
        (path / "baselines").mkdir()
        begun = path / "baselines" / "resnet18-training.safetensors"
        checkpoint.write(begun, checkpoint.pack({}, {"kind": "training", "history": history}))
        assert status_of(path)[3] == "baseline resnet18: 2 epochs saved, loss 1.000"
        begun.unlink()
        begun.parent.rmdir()
        before = {file.name: file.read_bytes() for file in path.iterdir()}
        lines = status_of(path)
        assert lines[1:3] == [
            "search by predictor: 3 candidates scored, best score 0.75, 1 without a score",
            "after it: 1 networks on finalists",
        ]
        assert lines[3].endswith("; so far: train 1 min 30 s")
        assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert status_of(path)[3].startswith("nothing works on it on this machine: the same command with --resume continues; ")


def test_both_trainings_of_a_pretrained_network_are_told(tmp_path: Path) -> None:
    path, values = tmp_path / "run", DIGITS_RECIPE.to_dict()
    values = {**values, "from_timm": "vit_small", "train": {**values["train"], "epochs": 60, "largest_first": 0.25}}
    with open_folder(path, {"command": "line", "recipe": values}, resume=False) as folder:
        history = [{"epoch": epoch, "loss": 2.0 - epoch, "lr": 1e-3} for epoch in range(2)]
        checkpoint.write(path / "whole-training.safetensors", checkpoint.pack({}, {"kind": "training", "history": history}))
        whole = "the whole network: 2 of 15 epochs saved, loss 1.000"
        assert status_of(path)[1:3] == [whole, "training: 0 of 45 epochs saved"]
        checkpoint.write(folder.training, checkpoint.pack({}, {"kind": "training", "history": history[:1]}))
        assert status_of(path)[1:3] == [whole, "training: 1 of 45 epochs saved, loss 2.000"]


def test_a_folder_without_a_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no search"):
        status_of(tmp_path)


def test_a_search_of_0_1_0_is_told_too(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parents[1] / "data" / "of_0_1_0", tmp_path / "old")
    assert status_of(tmp_path / "old")[0].startswith("digits, ")


def test_a_storage_is_told_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a checkpoint the head alone is read; the folder itself is on a machine that is out of reach."""
    path = tmp_path / "run"
    config = {"command": "line", "created": "2026-01-01T12:00:00+00:00", "recipe": DIGITS_RECIPE.to_dict()}
    with s3_server() as endpoint:
        for name, value in to_reach(endpoint).items():
            monkeypatch.setenv(name, value)
        system(endpoint).create_dir("results")
        with mirrored(path, "s3://results/mine", print), open_folder(path, config, resume=False) as folder:
            history = [{"epoch": 0, "loss": 2.0, "lr": 1e-3}]
            content = checkpoint.pack({"weight": torch.zeros(1_000_000)}, {"kind": "training", "history": history})
            checkpoint.write(folder.training, content)
        shutil.rmtree(path)
        head, phase, state = status_of_storage("s3://results/mine/run")
        assert head == "digits, s3://results/mine/run, begun 2026-01-01T12:00:00+00:00"
        assert phase == "training: 1 of 300 epochs saved, loss 2.000"
        assert state.startswith("last written ")
        with pytest.raises(UserError, match=r"s3://results/mine holds no search, but below it: run; give"):
            status_of_storage("s3://results/mine")
        with pytest.raises(UserError, match="s3://nowhere/run"):
            status_of_storage("s3://nowhere/run")
