"""The main job's command line: which flags there are depends on its recipe and on the family of networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Union

import tyro

from raysearch.errors import UserError
from raysearch.invocation import command_line
from raysearch.jobs.plan import SearchCommand
from raysearch.parsing.help import search_help
from raysearch.parsing.one_dataclass import one_line
from raysearch.parsing.settings import registry
from raysearch.recipes import RECIPES, SETTINGS_OF, Recipe, of_pretrained
from raysearch.spaces import find_family
from raysearch.spaces.family import pretrained_family

ALL_FLAGS = "--help-all"
"""What lists every flag with its meaning and default; ``--help`` shows those that matter."""


def parse_search(arguments: Sequence[str]) -> SearchCommand[Any, Any]:
    """The command of a search; prints help and exits with 0 where that is asked for.

    Raises UserError, in one line, for an unknown recipe, flag or value.
    """
    if not arguments:
        raise UserError(f"give a recipe: {', '.join(RECIPES)}; --help tells more")
    named = next((argument for argument in arguments if not argument.startswith("-")), None)
    if not arguments[0].startswith("-") and arguments[0] not in RECIPES:
        raise UserError(f"unknown recipe {arguments[0]!r}; recipes: {', '.join(RECIPES)}")
    recipes: dict[str, Recipe[Any, Any]] = {name: recipe for name, (_, recipe) in RECIPES.items()}
    # Looked at first: which flags there are depends on the family.
    said = _said(arguments)
    if said.family is not None or said.from_timm is not None:
        family = pretrained_family() if said.family is None else find_family(said.family)
        flags = [f.name for f in fields(SearchCommand)]
        recipes = {name: recipe.of_family(family, taken=flags) for name, recipe in recipes.items()}
    if said.from_timm is not None:
        recipes = {name: of_pretrained(recipe) for name, recipe in recipes.items()}
    if {"-h", "--help"} & {*arguments}:
        print(search_help(recipes.get(named or "", recipes["digits"])))
        raise SystemExit(0)
    if ALL_FLAGS in arguments and named not in recipes:
        raise UserError(f"{ALL_FLAGS} lists the flags of a recipe; put one before it: {', '.join(RECIPES)}")
    asked = ["--help" if argument == ALL_FLAGS else argument for argument in arguments]
    commands: list[Any] = []
    for name, recipe in recipes.items():
        kind = SearchCommand[type(recipe.task), type(recipe.config)]
        described = tyro.conf.subcommand(name, default=SearchCommand(recipe), description=RECIPES[name][0])
        commands.append(Annotated[kind, described])
    with one_line(help_flag=ALL_FLAGS):
        chosen: Any = Union[tuple(commands)]  # noqa: UP007  # made at run time
        read: Any = tyro.cli(
            chosen, prog=command_line("search"), args=asked, config=(tyro.conf.AvoidSubcommands,), registry=registry()
        )
    command: SearchCommand[Any, Any] = read.settings()
    return replace(command, recipe=_with_algorithm(command.recipe, read.given), given=read.given)


@dataclass(frozen=True, slots=True)
class _Said:
    """The flags that decide which others there are, and their defaults."""

    family: str | None = None
    from_timm: str | None = None


def _said(arguments: Sequence[str]) -> _Said:
    """Their values as the parser finds them."""
    with one_line():
        found, _ = tyro.cli(_Said, args=list(arguments), return_unknown_args=True, add_help=False)
    return found


def _with_algorithm(recipe: Recipe[Any, Any], given: frozenset[str]) -> Recipe[Any, Any]:
    """The recipe with the algorithm whose settings were given, whatever their values; without any, as it is.

    Raises UserError when they are not those of the algorithm that ``--algorithm`` names, or of two algorithms.
    """
    groups = [group for group in SETTINGS_OF if any(name.startswith(f"{group}.") for name in given)]
    if "algorithm" not in given and len(groups) == 1 and recipe.algorithm not in SETTINGS_OF[groups[0]]:
        return replace(recipe, algorithm=SETTINGS_OF[groups[0]][0])
    for group in groups:
        if recipe.algorithm not in SETTINGS_OF[group]:
            owner = SETTINGS_OF[group][0]
            raise UserError(
                f"--{group} sets {owner}, but the algorithm is {recipe.algorithm}; give --algorithm {owner} or leave it out"
            )
    return recipe
