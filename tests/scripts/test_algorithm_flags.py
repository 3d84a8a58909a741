"""Which algorithm a command line means: the one named, or the one whose settings are given, or the recipe's."""

from __future__ import annotations

import pytest

from raysearch.errors import UserError
from raysearch.parsing import parse_search


@pytest.mark.parametrize(
    ("flags", "algorithm"),
    [
        ("digits", "predictor"),
        ("imagenet-tiny", "evolution"),
        ("digits --search.population 8", "evolution"),
        ("digits --nsga2.objectives score macs", "nsga2"),
        ("imagenet-tiny --predictor.population 100", "predictor"),
        ("digits --algorithm random --search.population 8", "random"),
        ("digits --algorithm ageing --ageing.look-ahead 100", "ageing"),
    ],
)
def test_the_settings_given_choose_the_algorithm(flags: str, algorithm: str) -> None:
    recipe = parse_search(flags.split()).recipe
    assert recipe.algorithm == algorithm


@pytest.mark.parametrize(
    "flags", ["digits --search.population 8 --algorithm ageing", "digits --search.population 8 --nsga2.population 8"]
)
def test_settings_of_another_algorithm_are_refused(flags: str) -> None:
    with pytest.raises(UserError, match="--search sets evolution, but the algorithm is"):
        parse_search(flags.split())
