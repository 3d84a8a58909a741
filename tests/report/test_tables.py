"""Numbers as people read them."""

import pytest

from raysearch.report.tables import duration_text, smallest_line
from raysearch.statistics import share_interval


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(0.04, "0.0 s"), (8.2, "8.2 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"), (252, "4 min 12 s")],
        *[(3599.6, "1 h 00 min"), (11_100, "3 h 05 min"), (100_000, "27 h 46 min")],
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_a_smallest_subnet_that_only_guesses_is_told() -> None:
    line = smallest_line(share_interval(45, 400), 10)
    assert line is not None
    assert line.startswith("the smallest subnet knows 11.2 % of the search images (95 %: 8.3 to 14.8), no more than a guess")
    assert smallest_line(share_interval(80, 400), 10) is None
    assert smallest_line(share_interval(45, 400), 0) is None, "nothing is told apart"
    assert smallest_line(None, 10) is None
