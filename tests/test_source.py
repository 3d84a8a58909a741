"""What the source may name and import where: each family in its own rooms, Ray and MLflow in one each."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

import raysearch
from raysearch.spaces import family
from raysearch.spaces.family import BUILT_IN

PACKAGE = Path(raysearch.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

ROOMS_OF_FAMILIES = ("spaces", "recipes", "nn")
"""Here families are written, configured, and share layers; everything else knows the contract alone."""
NEUTRAL = {"depth", "width"}
"""Fields of families that are words of any network."""


def room(path: Path) -> str:
    """The folder or module of the package that ``path`` is in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def of_families() -> re.Pattern[str]:
    """Names of families, however they are written, and of the fields of their architectures."""
    names = ["[-_ ]?".join(re.split("[-_]", name)) for name in BUILT_IN]
    own = {f.name for name in BUILT_IN for f in fields(family(name).architecture)} - NEUTRAL
    return re.compile("|".join([*names, *(rf"\b{re.escape(field)}(?:\b|_)" for field in sorted(own))]), re.IGNORECASE)


def named(text: str) -> Iterator[tuple[int, str]]:
    """Lines, counted from 1, that name a family or one of its fields: in code, docstrings and comments."""
    pattern = of_families()
    for number, line in enumerate(text.splitlines(), start=1):
        if pattern.search(line):
            yield number, line.strip()


def imported(text: str) -> set[str]:
    """The packages that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_no_family_is_named_outside_its_rooms() -> None:
    offenders = [
        f"{path.relative_to(PACKAGE.parent)}:{number}: {line}"
        for path in MODULES
        if room(path) not in ROOMS_OF_FAMILIES
        for number, line in named(path.read_text())
    ]
    assert not offenders, "\n".join(offenders)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from raysearch.spaces.autoformer import FAMILY", True),
        ("# as AutoFormer does", True),
        ("width = arch.embed_dim", True),
        ('"num_heads.3"', True),
        ('axes = ("mlp_ratio_mean",)', True),
        ("family = find_family(reference)", False),
        ("position_embed_dimension = heads * width", False),
    ],
)
def test_what_counts_as_naming_one(line: str, found: bool) -> None:
    assert bool(list(named(line))) == found


@pytest.mark.parametrize(("library", "home"), [("ray", "distributed"), ("mlflow", "tracking")])
def test_a_library_is_imported_in_its_room_only(library: str, home: str) -> None:
    importing = {path.relative_to(PACKAGE).as_posix() for path in MODULES if library in imported(path.read_text())}
    assert {path for path in importing if not path.startswith(f"{home}/")} == set()
    assert importing, f"nothing imports {library}: is this test looking in the right place?"


def test_the_rules_of_imports_know_every_room() -> None:
    """A new folder or module is in none of the lists of ``pyproject.toml`` until someone puts it there."""
    rules = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rooms = {room(path) for path in MODULES} - {"__init__"}
    (layers,) = (rule["layers"] for rule in rules if rule["type"] == "layers")
    assert {name.strip() for layer in layers for name in re.split(r"[|:]", layer)} == {f"raysearch.{name}" for name in rooms}
    for library, home in (("ray", "distributed"), ("mlflow", "tracking")):
        (sources,) = (rule["source_modules"] for rule in rules if rule.get("forbidden_modules") == [library])
        assert set(sources) == {f"raysearch.{name}" for name in rooms - {home}}


def test_no_two_modules_of_tests_have_one_name() -> None:
    """pytest imports them by their names alone: of two that share one, the second is never run."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("*.py") if path.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []
