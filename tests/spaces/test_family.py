"""Where families are found, and what is said of a file that is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from raysearch.spaces import family, find_family
from raysearch.spaces.autoformer import FAMILY as AUTOFORMER
from raysearch.spaces.family import BUILT_IN

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "experiments" / "own_space.py"
PLAIN = """
from dataclasses import dataclass
from raysearch.spaces import Family

@dataclass(frozen=True)
class Config:
    width: int = 8

FAMILY = Family(NAME, Config, object, None, None, None, "nothing")
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which modules can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_families_of_the_package_are_found_by_name() -> None:
    for name in BUILT_IN:
        found = find_family(name)
        assert found is family(name)
        assert (found.name, found.source) == (name, None)
    with pytest.raises(ValueError, match=r"unknown space family 'resnet'; known: autoformer.* --family FILE.py"):
        family("resnet")


def test_a_file_and_a_module_are_families_of_ones_own(mine: Path) -> None:
    (mine / "raysearch_test_module.py").write_text(PLAIN.replace("NAME", "'plain'"))
    for reference in (str(EXAMPLE), "raysearch_test_module", str(mine / "raysearch_test_module.py")):
        found = find_family(reference)
        assert found.source is not None
        assert found.source is not None
        assert found.source.exists()
    assert find_family("raysearch_test_module").source == mine / "raysearch_test_module.py"


def test_a_package_is_a_family_where_its_folder_is_in_the_working_directory(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mine / "raysearch_test_package").mkdir()
    (mine / "raysearch_test_package" / "__init__.py").write_text(PLAIN.replace("NAME", "'packed'"))
    monkeypatch.chdir(mine)
    assert find_family("raysearch_test_package").name == "packed"
    (mine / "pictures").mkdir()
    with pytest.raises(ValueError, match=r"--family pictures: no family of that name .*, no file and no importable module"):
        find_family("pictures")


def test_the_same_file_is_the_same_family_and_a_changed_one_another(mine: Path) -> None:
    (mine / "mine.py").write_text(PLAIN.replace("NAME", "'plain'"))
    first = find_family(str(mine / "mine.py"))
    assert find_family(str(mine / "mine.py")) is first
    (mine / "mine.py").write_text(PLAIN.replace("NAME", "'plain'").replace("= 8", "= 9"))
    assert find_family(str(mine / "mine.py")).configured("digits").width == 9
    assert first.configured("digits").width == 8
    (mine / "other").mkdir()
    (mine / "other" / "mine.py").write_text(PLAIN.replace("NAME", "'other'"))
    assert find_family(str(mine / "other" / "mine.py")).name == "other"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"--family .*mine\.py does not exist; give a Python file that sets FAMILY"),
        (
            "",
            r"--family .*mine\.py sets no FAMILY; it must be a raysearch\.spaces\.Family \(experiments/own_space\.py",
        ),
        ("FAMILY = 3", r"--family .*mine\.py: FAMILY is a int, not a raysearch\.spaces\.Family"),
        ("a = 1\nb = a / 0\n", r"--family .*mine\.py, line 2: ZeroDivisionError: division by zero"),
        ("a = (\n", r"--family .*mine\.py, line 1: SyntaxError: '\(' was never closed"),
        ("import raysearch_absent", r"--family .*mine\.py, line 1: ModuleNotFoundError: No module .*; install it, also on the"),
        (PLAIN.replace("NAME", "'my family'"), r"--family .*mine\.py, line 9: family name 'my family': use letters"),
        (PLAIN.replace("NAME", "'plain'").replace(" = 8", ""), r"line 9: family plain: Config\.width has no default"),
        (PLAIN.replace("NAME", "'plain'").replace("@data", "#"), r"line 9: family plain: config Config is no dataclass"),
        (PLAIN.replace("NAME", "'autoformer'"), r"its name 'autoformer' is that of a family of this package"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(text: str | None, message: str, mine: Path) -> None:
    if text is not None:
        (mine / "mine.py").write_text(text)
    with pytest.raises(ValueError, match=message) as refused:
        find_family(str(mine / "mine.py"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("reference", ["nowhere", "nowhere.family", "", ".mine", "json.", "--resume"])
def test_a_module_that_is_not_there_is_said_in_one_line(reference: str, mine: Path) -> None:
    with pytest.raises(ValueError, match=r"no file and no importable module|is no Python file|does not exist"):
        find_family(reference)


def test_an_error_in_a_module_names_its_line(mine: Path) -> None:
    (mine / "raysearch_test_broken.py").write_text("a = 1\n\nraise KeyError('b')\n")
    with pytest.raises(ValueError, match=r"--family raysearch_test_broken, line 3: KeyError: 'b'"):
        find_family("raysearch_test_broken")
    assert "raysearch_test_broken" not in sys.modules
    with pytest.raises(ValueError, match="--family json sets no FAMILY"):
        find_family("json")


def test_the_packages_own_is_not_marked_as_a_users() -> None:
    assert find_family("raysearch.spaces.autoformer") is AUTOFORMER
    assert AUTOFORMER.source is None
