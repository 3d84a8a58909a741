"""The ``raysearch`` command: what a wheel alone brings, what it says first, and how quickly."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path

import pytest
from search_script import ROOT

from raysearch import cli
from raysearch.invocation import command_line


def python(*arguments: str, path: Path = ROOT, folder: Path = ROOT) -> str:
    """What a Python that finds the package in ``path`` prints."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def test_help_and_version_answer_before_anything_heavy_is_imported() -> None:
    program = """
import sys
from raysearch.cli import main
main([]); main(["--help"]); main(["--version"])
print(sorted({"torch", "ray", "mlflow", "numpy", "tyro"} & set(sys.modules)))
"""
    *shown, imported = python("-c", program).splitlines()
    assert imported == "[]"
    assert shown[-1].startswith("raysearch 0.")
    assert len([line for line in shown if line.startswith("  search ")]) == 2  # without arguments and with --help
    for name, job in cli.JOBS.items():
        assert any(line.startswith(f"  {name} ") and job.says in line for line in shown)
        assert any(line.strip().startswith("$ ") and f"{name} {job.example}" in line for line in shown)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``pip install`` unpacks: the wheel's files, and nothing else of the repository."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "raysearch", source / "raysearch", ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('.'))"
    wheel = source / python("-c", build, folder=source).splitlines()[-1]
    with zipfile.ZipFile(wheel) as content:
        content.extractall(target)
    return target


def test_a_wheel_alone_has_the_command_and_all_it_needs(installed: Path, tmp_path: Path) -> None:
    (metadata,) = installed.glob("raysearch-*.dist-info")
    assert "raysearch = raysearch.cli:main" in (metadata / "entry_points.txt").read_text().splitlines()
    told = Parser().parsestr((metadata / "METADATA").read_text())
    assert told["Project-URL"]
    assert "Typing :: Typed" in told.get_all("Classifier", [])
    assert (installed / "raysearch" / "py.typed").is_file()
    # From an empty folder, as of somebody who has no checkout.
    shown = python("-m", "raysearch", "search", "--help", path=installed, folder=tmp_path)
    assert f"raysearch{os.sep}__main__" not in shown
    assert "-m raysearch search digits" in shown
    assert files(ROOT / "raysearch") == files(installed / "raysearch")


def files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.mark.parametrize(
    ("started", "search", "other"),
    [
        (lambda _: "elsewhere/bin/pytest", "raysearch search", "raysearch export"),
        (lambda here: f"{here}/bin/raysearch", "bin/raysearch search", "bin/raysearch export"),
        (lambda here: f"{here}/experiments/search.py", "bin/python experiments/search.py", "bin/python -m raysearch export"),
        (lambda _: "/x/raysearch/__main__.py", "bin/python -m raysearch search", "bin/python -m raysearch export"),
    ],
)
def test_a_command_that_a_message_names_works_where_the_user_is(
    started: Callable[[Path], str], search: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "search.py").touch()  # alone, as `ray submit` brings it
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [started(tmp_path)])
    monkeypatch.setattr(sys, "executable", f"{tmp_path}/bin/python")
    assert command_line("search", "digits", "--data", "my photos") == f"{search} digits --data 'my photos'"
    assert command_line("export") == other


def test_a_program_that_the_shell_finds_is_named_as_one_types_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raysearch").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "raysearch")])
    assert command_line("ui") == "raysearch ui"


def test_an_unknown_job_is_one_line_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["serach", "digits"])
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert said.startswith("error: unknown job 'serach'; did you mean search?")
    assert said.count("\n") == 1


def test_the_help_of_a_search_begins_with_examples_and_fits_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["images", "--help"]):
        with pytest.raises(SystemExit) as left:
            cli.search(arguments)
        assert left.value.code == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[2] == "examples:"
        assert "search digits" in lines[4]
        assert len(lines) < 60
    with pytest.raises(SystemExit):
        cli.search(["images", "--help-all"])
    assert "--train.warmup-epochs" in capsys.readouterr().out
