"""Which algorithm a command line means: the one named, or the one whose settings are given, or the recipe's."""

from __future__ import annotations

import pytest

from raysearch.errors import UserError
from raysearch.parsing.search import parse_search


@pytest.mark.parametrize(
    ("flags", "algorithm"),
    [
        ("digits", "predictor"),
        ("imagenet-tiny", "evolution"),
        ("digits --search.population 8", "evolution"),
        ("digits --search.population 50", "evolution"),  # its default: given all the same
        ("digits --search.population=50", "evolution"),
        ("digits --nsga2.objectives score macs", "nsga2"),
        ("imagenet-tiny --predictor.population 100", "predictor"),
        ("imagenet-tiny --search.population 50", "evolution"),
        ("digits --algorithm random --search.population 8", "random"),
        ("digits --algorithm=random --search.population 8", "random"),
        ("digits --search.population 8 --algorithm=random", "random"),
        ("digits --algorithm evolution", "evolution"),
        ("digits --algorithm=evolution", "evolution"),
        ("digits --algorithm predictor", "predictor"),  # what it would be anyhow
        ("digits --algorithm random --algorithm ageing", "ageing"),
        ("digits --algorithm ageing --ageing.look-ahead 100", "ageing"),
        ("digits --algorithm ageing --ageing.look-ahead 50", "ageing"),
        ("digits --warm-start=--algorithm", "predictor"),  # a value that looks like a flag
    ],
)
def test_the_settings_given_choose_the_algorithm(flags: str, algorithm: str) -> None:
    recipe = parse_search(flags.split()).recipe
    assert recipe.algorithm == algorithm


@pytest.mark.parametrize(
    ("flags", "sets"),
    [
        ("--search.population 8 --algorithm ageing", "--search sets evolution, but the algorithm is ageing"),
        ("--search.population 8 --nsga2.population 8", "--search sets evolution, but the algorithm is predictor"),
        ("--algorithm=evolution --predictor.population 10", "--predictor sets predictor, but the algorithm is evolution"),
        ("--algorithm=evolution --predictor.population 25", "--predictor sets predictor, but the algorithm is evolution"),
        ("--algorithm predictor --nsga2.population 50", "--nsga2 sets nsga2, but the algorithm is predictor"),
    ],
)
def test_settings_of_another_algorithm_are_refused(flags: str, sets: str) -> None:
    with pytest.raises(UserError, match=sets):
        parse_search(["digits", *flags.split()])


def test_a_command_knows_what_was_given_whatever_its_value() -> None:
    assert parse_search(["digits"]).given == frozenset()
    flags = "--train.epochs 300 --dataset.img_size=8 --no-resume --report.register --space.depth 2 3 --seed 0 --data ."
    command = parse_search(["digits", *flags.split()])
    given = {"train.epochs", "dataset.img_size", "resume", "report.register", "space.depth", "seed", "data"}
    assert command.given == given
    assert (command.resume, command.recipe.report.register) == (False, True)


def test_the_family_is_what_the_parser_takes_for_it() -> None:
    assert parse_search(["digits", "--family", "nowhere.py", "--family=autoformer"]).recipe.family.name == "autoformer"
    assert parse_search(["digits", "--warm-start=--family", "--output=autoformer"]).family is None
    with pytest.raises(UserError, match=r"nowhere\.py does not exist"):
        parse_search(["--family=nowhere.py", "digits"])
    with pytest.raises(UserError, match="--family"):
        parse_search(["digits", "--family"])
