"""A command line that is one dataclass, and the parser's complaints as one line."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Generator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import tyro

from raysearch.errors import UserError
from raysearch.parsing.settings import registry
from raysearch.store.paths import absolute_uri, expanded

C = TypeVar("C")


def parse(kind: type[C], arguments: Sequence[str], *, prog: str) -> C:
    """The command of a job whose command line is one dataclass, with ``~`` expanded in its paths.

    Raises UserError for an unknown flag or value.
    """
    with one_line():
        read: Any = tyro.cli(kind, prog=prog, args=list(arguments), registry=registry())
    command = read.settings()
    made: dict[str, Any] = {}
    for f in fields(command):
        value = getattr(command, f.name)
        if isinstance(value, Path):
            made[f.name] = expanded(value)
        elif f.name in ("tracking_uri", "uri") and value is not None:
            made[f.name] = absolute_uri(value)
        elif f.name == "given":  # which settings stood on the command line
            made[f.name] = read.given
    return replace(command, **made)


@contextlib.contextmanager
def one_line(*, help_flag: str = "--help") -> Generator[None]:
    """Make a UserError of one line of the parser's boxes; ``help_flag`` is the one that lists all options."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            yield
    except SystemExit as leave:
        if leave.code in (0, None):
            raise
        raise UserError(f"{_essence(complaint.getvalue())}; {help_flag} lists all options") from None


def _essence(boxed: str) -> str:
    """What was wrong, and the nearest known flag; without frame, title and help texts."""
    lines = [re.sub(r"[─│╭╮╰╯]|\x1b\[[0-9;]*m", " ", line).strip() for line in boxed.splitlines()]
    lines = [line for line in lines if line.strip("-+| ")][1:]  # in plain ASCII, frames are made of these
    asides = ("Argument helptext", "For full helptext", "Perhaps you meant", "Similar arguments", "Available subcommands")
    end = next((i for i, line in enumerate(lines) if line.startswith(asides)), len(lines))
    message = re.sub(r"Error parsing __tyro\S*recipe\.(\S+):", r"\1:", " ".join(lines[:end]))
    message = re.sub(r"^Error parsing (--\S+):", r"\1:", message)
    named = message.replace(":", " ").replace(",", " ").split()
    flags = [line.split()[0].rstrip(",") for line in lines[end:] if line.startswith("--")]
    near = next((flag for flag in flags if flag not in named), None)
    return f"{message}{f'; did you mean {near}?' if near else ''}"
