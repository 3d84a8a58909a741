"""How this process was started, so that what it tells the user to type works there."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

SCRIPTS = ("search", "compare", "export", "finetune", "predict", "retrain", "transfer", "ui", "validate")
"""Jobs that have a script of their name."""


def command_line(job: str, *arguments: str) -> str:
    """The shell command that starts ``job`` the way in which this process was started.

    ``raysearch search digits`` after ``pip install``, ``python -m raysearch search digits``, or, from a script such as
    ``experiments/search.py``, ``python experiments/search.py digits``; a job that has no script beside that one is started as
    a module. A program that uses the package as a library names the installed command.
    """
    return shlex.join([*_program(job), *arguments])


def _program(job: str) -> list[str]:
    started = Path(sys.argv[0])
    if started.name == "__main__.py" and started.parent.name == "raysearch":
        return [_python(), "-m", "raysearch", job]
    if started.name == "raysearch":
        return [_found("raysearch", started), job]
    if started.suffix == ".py" and started.stem in SCRIPTS:
        script = started.with_name(f"{job}.py")
        return [_python(), *([_short(script)] if script.is_file() else ["-m", "raysearch", job])]
    return ["raysearch", job]


def _python() -> str:
    return _found("python", Path(sys.executable))


def _found(name: str, path: Path) -> str:
    """``name`` where the shell finds ``path`` under it. Links count as they are: those of two environments end in one file."""
    on_path = shutil.which(name)
    return name if on_path is not None and os.path.abspath(on_path) == os.path.abspath(path) else _short(path)  # noqa: PTH100


def _short(path: Path) -> str:
    """A path as one would type it: relative below the working directory."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  # resolve() would follow an environment's link to its Python
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)
