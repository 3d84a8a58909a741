"""How long a candidate may take, and when lost starts are too many: rules that need no process."""

from __future__ import annotations

from raysearch.distributed.deadline import DeadlineConfig, Deadlines
from raysearch.distributed.losses import LOST_STARTS, LOST_WITHIN, LostStarts


def test_the_deadline_follows_the_median_of_the_same_images() -> None:
    deadlines = Deadlines(DeadlineConfig(medians=20, minutes=0.5))
    assert deadlines.limit("search") is None  # nobody knows what is usual
    deadlines.took("search", 1.0)
    assert deadlines.limit("search") == 30.0
    for seconds in (9.0, 2.0, 1000.0, 4.0):
        deadlines.took("search", seconds)
    assert deadlines.median("search") == 4.0
    assert deadlines.limit("search") == 80.0
    assert deadlines.limit("test") is None


def test_lost_starts_are_too_many_within_minutes_and_for_the_number_that_is_wanted() -> None:
    few, many = LostStarts(), LostStarts()
    for second in range(LOST_STARTS - 1):
        assert few.another(float(second), of=2) is None
    assert few.another(10.0, of=2) == f"{LOST_STARTS} evaluators were lost while they loaded the supernet, within 10 s"
    for second in range(3 * 64 - 1):
        assert many.another(float(second), of=64) is None
    assert many.another(200.0, of=64) is not None
    seldom = LostStarts()
    assert all(seldom.another(n * LOST_WITHIN / (LOST_STARTS - 2), of=1) is None for n in range(3 * LOST_STARTS))
