"""Where evaluators' time goes: scoring, waiting for candidates, or between the two."""

from __future__ import annotations

import pytest

from raysearch.distributed.usage import UsageLog


def test_time_is_divided_into_scoring_waiting_and_handing_over() -> None:
    log = UsageLog()
    for evaluator in ("one", "two"):
        log.arrived(evaluator, 0.0)
    log.queued(3, 10.0)
    log.queued(-1, 10.0)  # both take one
    log.queued(-1, 10.0)
    log.queued(-1, 15.0)  # the first, free again, takes the last after a second
    log.scored("search", "one", 10.0, 14.0)
    log.scored("search", "two", 10.0, 16.0)
    log.scored("search", "one", 15.0, 20.0)
    usage = log.usage("search")
    assert usage is not None
    assert (usage.evaluators, usage.seconds) == (2, 10.0)
    assert usage.busy == pytest.approx(15 / 20)
    assert usage.waiting_at_barrier == pytest.approx(4 / 20)  # "two" from 16 to 20; "one" had a candidate to take


def test_only_the_split_and_the_part_asked_for_count() -> None:
    log = UsageLog()
    log.arrived("one", 0.0)
    log.queued(2, 0.0)
    log.queued(-1, 0.0)
    log.scored("search", "one", 0.0, 4.0)
    log.queued(-1, 6.0)
    log.scored("search", "one", 6.0, 10.0)
    log.scored("test", "one", 10.0, 30.0)
    whole, middle = log.usage("search"), log.usage("search", part=(0.3, 0.7))
    assert whole is not None
    assert middle is not None
    assert (whole.busy, whole.seconds) == (pytest.approx(0.8), 10.0)
    assert (middle.busy, middle.seconds) == (pytest.approx(0.5), pytest.approx(4.0))
    assert log.usage("other") is None


def test_evaluators_count_while_they_are_there() -> None:
    log = UsageLog()
    log.arrived("stays", 0.0)
    log.arrived("lost", 0.0)
    log.arrived("late", 100.0)
    log.scored("search", "stays", 0.0, 10.0)
    log.scored("search", "lost", 0.0, 5.0)
    log.left("lost", 5.0)
    usage = log.usage("search")
    assert usage is not None
    assert usage.evaluators == 2
    assert usage.busy == 1.0
