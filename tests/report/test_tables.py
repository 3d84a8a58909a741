"""Numbers as people read them."""

import pytest

from raysearch.report.tables import duration_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(0.04, "0.0 s"), (8.2, "8.2 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"), (252, "4 min 12 s")],
        *[(3599.6, "1 h 00 min"), (11_100, "3 h 05 min"), (100_000, "27 h 46 min")],
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
