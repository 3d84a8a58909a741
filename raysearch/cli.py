"""From a command line to typed settings, and from an error to one clear line."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Annotated, Any, NoReturn, TypeVar, Union

import tyro
from rich.console import Console

from raysearch.errors import UserError
from raysearch.jobs.compare import CompareCommand, compare_searches
from raysearch.jobs.export import ExportCommand
from raysearch.jobs.export import export as run_export
from raysearch.jobs.plan import SearchCommand
from raysearch.jobs.search import run
from raysearch.jobs.validate import ValidateCommand
from raysearch.jobs.validate import validate as run_validation
from raysearch.recipes import RECIPES, SETTINGS_OF, Recipe
from raysearch.spaces import find_family

C = TypeVar("C")

GIVE_FOLDER = "give the output folder of a finished search"


def parse_search(arguments: Sequence[str]) -> SearchCommand[Any, Any]:
    """The command of ``experiments/search.py``. Exits with 2 and one line for an unknown recipe, flag or value."""
    if arguments and not arguments[0].startswith("-") and arguments[0] not in RECIPES:
        fail(f"unknown recipe {arguments[0]!r}; recipes: {', '.join(RECIPES)}")
    if not arguments:
        fail(f"give a recipe: {', '.join(RECIPES)}; --help tells more")
    recipes = {name: recipe for name, (_, recipe) in RECIPES.items()}
    # Looked at first: which flags there are depends on the family.
    if (reference := _family_named(arguments)) is not None:
        family = find_family(reference)
        flags = [f.name for f in fields(SearchCommand)]
        recipes = {name: recipe.of_family(family, taken=flags) for name, recipe in recipes.items()}
    commands: list[Any] = []
    for name, recipe in recipes.items():
        kind = SearchCommand[type(recipe.task), type(recipe.config)]
        described = tyro.conf.subcommand(name, default=SearchCommand(recipe), description=RECIPES[name][0])
        commands.append(Annotated[kind, described])
    with _one_line():
        chosen: Any = Union[tuple(commands)]  # noqa: UP007  # made at run time
        command: SearchCommand[Any, Any] = tyro.cli(
            chosen, prog="search.py", args=list(arguments), config=(tyro.conf.AvoidSubcommands,)
        )
    named = any(argument.partition("=")[0] == "--algorithm" for argument in arguments)
    return replace(command, recipe=_with_algorithm(command.recipe, recipes[command.recipe.name], named=named))


def _family_named(arguments: Sequence[str]) -> str | None:
    """The last value of ``--family``; None without one."""
    found: str | None = None
    for i, argument in enumerate(arguments):
        flag, separator, value = argument.partition("=")
        if flag == "--family":
            found = value if separator else arguments[i + 1] if i + 1 < len(arguments) else None
    return found


def _with_algorithm(recipe: Recipe[Any, Any], default: Recipe[Any, Any], *, named: bool) -> Recipe[Any, Any]:
    """The recipe with the algorithm whose settings were given; exits when that is not the one that ``--algorithm`` names."""
    given = [group for group in SETTINGS_OF if getattr(recipe, group) != getattr(default, group)]
    if not named and len(given) == 1:
        return replace(recipe, algorithm=SETTINGS_OF[given[0]][0])
    for group in given:
        if recipe.algorithm not in SETTINGS_OF[group]:
            owner = SETTINGS_OF[group][0]
            fail(f"--{group} sets {owner}, but the algorithm is {recipe.algorithm}; give --algorithm {owner} or leave it out")
    return recipe


@contextlib.contextmanager
def _one_line() -> Generator[None]:
    """Make one line of the command line parser's boxes."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            yield
    except SystemExit as leave:
        if leave.code in (0, None):
            raise
        fail(_essence(complaint.getvalue()))


def _essence(boxed: str) -> str:
    """What was wrong, and the nearest known flag; without frame, title and help texts."""
    lines = [re.sub(r"[─│╭╮╰╯]|\x1b\[[0-9;]*m", " ", line).strip() for line in boxed.splitlines()]
    lines = [line for line in lines if line.strip("-+| ")][1:]  # in plain ASCII, frames are made of these
    asides = ("Argument helptext", "For full helptext", "Perhaps you meant", "Similar arguments", "Available subcommands")
    end = next((i for i, line in enumerate(lines) if line.startswith(asides)), len(lines))
    message = re.sub(r"Error parsing __tyro\S*recipe\.(\S+):", r"\1:", " ".join(lines[:end]))
    named = message.replace(":", " ").replace(",", " ").split()
    near = next((line.split()[0] for line in lines[end:] if line.startswith("--") and line.split()[0] not in named), None)
    return f"{message}{f'; did you mean {near}?' if near else ''}; --help lists all options"


def fail(message: str) -> NoReturn:
    """Print one line on standard error and exit with 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2)


@contextlib.contextmanager
def _reported(*, continues: str) -> Generator[None]:
    """Turn a user's error into one line and exit code 2, and an interruption into how the program is continued, and 130."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        yield
    except UserError as error:
        if os.environ.get("RAYSEARCH_TRACEBACK"):
            raise
        fail(str(error))
    except KeyboardInterrupt:
        print(f"interrupted; {continues} continues", file=sys.stderr)
        raise SystemExit(130) from None


def search(arguments: Sequence[str] | None = None) -> None:
    """The main job as a program."""
    arguments = sys.argv[1:] if arguments is None else arguments
    line = shlex.join(["python", "experiments/search.py", *arguments])
    with _reported(continues="the same command with --resume"):
        command = parse_search(arguments)
        run(command, line=line, console=Console())


def _run_parsed(kind: type[C], arguments: Sequence[str], *, prog: str, missing: str, run: Callable[[C], object]) -> None:
    """A program whose command line is one dataclass; ``missing`` says what to give where nothing is given."""
    if not arguments:
        fail(f"{missing}; --help tells more")
    with _reported(continues="the same command"):
        with _one_line():
            command = tyro.cli(kind, prog=prog, args=list(arguments))
        run(command)


def validate(arguments: Sequence[str] | None = None) -> None:
    """Retraining of a finished search's subnets as a program."""
    _run_parsed(
        ValidateCommand,
        sys.argv[1:] if arguments is None else arguments,
        prog="validate.py",
        missing=GIVE_FOLDER,
        run=partial(run_validation, console=Console()),
    )


def export(arguments: Sequence[str] | None = None) -> None:
    """Export of a finished search's subnets as a program."""
    _run_parsed(
        ExportCommand,
        sys.argv[1:] if arguments is None else arguments,
        prog="export.py",
        missing=GIVE_FOLDER,
        run=partial(run_export, console=Console()),
    )


def compare(arguments: Sequence[str] | None = None) -> None:
    """Comparison of finished searches as a program."""
    arguments = sys.argv[1:] if arguments is None else arguments
    line = shlex.join(["python", "experiments/compare.py", *arguments])
    _run_parsed(
        CompareCommand,
        arguments,
        prog="compare.py",
        missing="give two or more searches: output folders or MLflow run ids",
        run=partial(compare_searches, line=line, console=Console()),
    )
