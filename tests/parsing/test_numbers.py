"""Every number of every job: finite and in its range before anything starts, named by its flag; written as people write it.

The settings are found by walking through the commands: one that is added is tested here, and must say its range.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, make_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from raysearch.bounds import FINITE, Bounds, Count, check_numbers, declared_bounds
from raysearch.cli import JOBS
from raysearch.errors import SettingError, UserError
from raysearch.jobs.plan import SearchCommand
from raysearch.parsing.one_dataclass import parse
from raysearch.parsing.search import parse_search
from raysearch.parsing.settings import real_number, whole_number
from raysearch.recipes import RECIPES

MIXER = Path(__file__).parents[2] / "experiments" / "own_space.py"
FAMILY = ("--family", str(MIXER))


@dataclass(frozen=True)
class Setting:
    """A field that holds numbers."""

    group: str
    """Of the search's settings, as ``train`` or ``train.distill``; empty beside them."""
    name: str
    kind: type
    """The dataclass that it is a field of."""
    values: int
    """How many numbers the flag takes."""

    @property
    def flag(self) -> str:
        return "--" + ".".join(filter(None, (self.group, self.name.replace("_", "-"))))

    @property
    def bounds(self) -> dict[type, Bounds]:
        return declared_bounds(self.kind)[self.name]

    def __str__(self) -> str:
        return self.flag


def numeric(hint: Any) -> bool:
    return hint in (int, float) or any(numeric(part) for part in get_args(hint))


def places(hint: Any) -> int:
    """How many numbers a flag takes at least: two for a pair."""
    parts = [part for part in get_args(hint) if part is not type(None)]
    return len(parts) if get_origin(hint) is tuple and ... not in parts else max(map(places, parts), default=1)


def settings(value: Any, group: str = "", unnamed: tuple[str, ...] = ()) -> Iterator[Setting]:
    hints = get_type_hints(type(value))
    for f in fields(value):
        held = getattr(value, f.name)
        if f.name == "family":
            continue
        if is_dataclass(held):
            inner = "" if f.name in unnamed else ".".join(filter(None, (group, f.name)))
            yield from settings(held, inner, ("task", "config"))
        elif numeric(hints[f.name]):
            yield Setting(group, f.name, type(value), places(hints[f.name]))


RECIPE_SETTINGS = list(settings(SearchCommand(RECIPES["digits"][1]), unnamed=("recipe",)))


def commands() -> Iterator[type]:
    """The dataclasses of the jobs beside the search."""
    for job in JOBS.values():
        if job.command is not None:
            module, _, name = job.command.partition(":")
            yield getattr(importlib.import_module(module), name)


def outside(declared: dict[type, Bounds]) -> Iterator[tuple[str, str]]:
    """Numbers just out of range as one gives them, and as a message shows them."""
    for kind, bounds in declared.items():
        limits = (bounds.least, -1), (bounds.above, 0), (bounds.most, 1), (bounds.below, 0)
        for number in (limit + step for limit, step in limits if limit is not None):
            yield repr(kind(number)), f"{number:.15g}"


def refused(kind: Any, *arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        parse(kind, arguments, prog="raysearch")
    return str(caught.value)


@pytest.mark.parametrize("setting", RECIPE_SETTINGS, ids=str)
def test_a_number_that_cannot_be_is_refused_by_the_name_of_its_flag(setting: Setting) -> None:
    assert setting.bounds, f"{setting.kind.__name__}.{setting.name} does not say which numbers it takes: raysearch/bounds.py"
    only: Any = setting.kind
    if setting.group:  # a command of this group alone, which the parser makes in milliseconds
        for part in reversed(setting.group.split(".")):
            only = make_dataclass("Only", [(part, only)], frozen=True)
    elif setting.kind not in (SearchCommand,):
        only = make_dataclass("Only", [(setting.name, get_type_hints(setting.kind, include_extras=True)[setting.name])])
        only.__post_init__ = check_numbers
    else:
        return  # of the whole command: below
    for words in ("nan", "inf", "-inf"):
        message = refused(only, setting.flag, *[words] * setting.values)
        assert message.startswith(setting.flag)
        assert words.strip("-") in message
    for words, shown in outside(setting.bounds):
        message = refused(only, setting.flag, *[words] * setting.values)
        assert message.startswith(f"{setting.flag} is {shown}")
        assert "must be " in message


@pytest.mark.parametrize("setting", list({(s.group, s.kind): s for s in RECIPE_SETTINGS}.values()), ids=str)
def test_the_whole_command_refuses_it_too(setting: Setting) -> None:
    """The same through the command line of a search, for one setting of each group."""
    wrong, shown = next(outside(setting.bounds))
    with pytest.raises(UserError, match=f"^{setting.flag} is {shown}"):
        parse_search(["digits", setting.flag, *[wrong] * setting.values])


@pytest.mark.parametrize("kind", list(commands()), ids=lambda kind: kind.__name__)
def test_other_jobs_refuse_them_as_well(kind: type) -> None:
    hints = get_type_hints(kind)
    required = ["a", "b"]
    for f in fields(kind):
        if not numeric(hints[f.name]):
            continue
        declared = declared_bounds(kind)[f.name]
        assert declared, f"{kind.__name__}.{f.name} does not say which numbers it takes: raysearch/bounds.py"
        flag, count = f"--{f.name.replace('_', '-')}", places(hints[f.name])
        positional = required[: 2 if kind.__name__ in ("CompareCommand", "PredictCommand") else 1]
        positional += ["--data", "c"] if kind.__name__ == "TransferCommand" else []
        for words in ("nan", "inf", "-inf", *(words for words, _ in outside(declared))):
            assert refused(kind, *positional, flag, *[words] * count).startswith(flag)


def test_a_family_of_ones_own_says_its_ranges_like_ours_and_gets_finite_numbers_anyhow(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--width is 16 0, must be at least 1"):
        parse_search(["digits", *FAMILY, "--width", "16", "0"])
    silent = tmp_path / "silent.py"
    silent.write_text(MIXER.read_text().replace("patch: Count = 2", "patch: float = 2.0").replace('"mixer"', '"silent"'))
    with pytest.raises(UserError, match=r"^--patch is nan, must be finite"):
        parse_search(["digits", "--family", str(silent), "--patch", "nan"])


def test_settings_made_in_python_are_checked_like_those_of_the_command_line() -> None:
    from raysearch.training.config import TrainingConfig

    with pytest.raises(SettingError, match=r"^clip-grad is -1, must be above 0"):
        TrainingConfig(clip_grad=-1.0)
    assert str(SettingError("clip_grad", "is 0").inside("train")) == "train.clip-grad is 0"


# --- numbers as people write them -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [("6M", 6e6), ("1.5G", 1.5e9), ("200k", 2e5), ("200K", 2e5), ("1.5B", 1.5e9), ("1.1M", 1_100_000), ("6e6", 6e6),
     (".5", 0.5), ("-1", -1), ("1_000", 1000), ("2T", 2e12), ("inf", math.inf)],
)  # fmt: skip
def test_a_number_may_have_a_factor(text: str, number: float) -> None:
    assert real_number(text) == number
    if float(number).is_integer() and math.isfinite(number):
        assert whole_number(text) == int(number)


@pytest.mark.parametrize("text", ["6q", "M", "6m", "1,000", "", "six", "6MM", "."])
def test_what_is_no_number_is_one_plain_line(text: str) -> None:
    for flag in ("--constraint.max-params", "--train.epochs", "--dataset.search-images"):
        with pytest.raises(UserError) as caught:
            parse_search(["digits", f"{flag}={text}"])
        message = str(caught.value)
        assert message.startswith(f"{flag}: '{text}' is no ")
        assert "give one such as" in message
        assert "Annotated" not in message
        assert "NoneType" not in message


def test_counts_are_whole_and_shares_of_images_are_not() -> None:
    recipe = parse_search(
        "digits --constraint.max-params 150k --constraint.max-macs 1.5M --dataset.search-images 0.2 "  # noqa: SIM905
        "--dataset.test-images 0.3k --train.epochs 1e2 --train.batch-size 1.5k".split()
    ).recipe
    assert (recipe.constraint.max_params, recipe.constraint.max_macs) == (150_000, 1_500_000)
    assert (recipe.task.dataset.search_images, recipe.task.dataset.test_images) == (0.2, 300)
    assert type(recipe.task.dataset.test_images) is int
    assert (recipe.train.epochs, recipe.train.batch_size) == (100, 1500)
    for text in ("1.0", "2.5", "1.2345k", "nan", "inf"):
        with pytest.raises(UserError, match=f"^--train.epochs: '{text}' is no whole number"):
            parse_search(["digits", "--train.epochs", text])


def test_bounds_are_said_in_words() -> None:
    assert declared_bounds(make_dataclass("One", [("count", Count)]))["count"] == {int: Bounds(least=1)}
    words = [str(bounds) for bounds in (Bounds(least=0, below=1), Bounds(least=0, most=1), Bounds(above=0), FINITE)]
    assert words == ["at least 0 and below 1", "between 0 and 1", "above 0", "finite"]
