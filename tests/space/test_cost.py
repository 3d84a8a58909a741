import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysearch.errors import UserError
from raysearch.space.cost import Constraint, Cost

sizes = st.integers(0, 10**12)
limits = st.none() | st.floats(0, 1e12)


@given(sizes, sizes, limits, limits)
def test_limits_are_inclusive_and_distance_is_zero_inside_only(params: int, macs: int, low: float | None, high: float | None):
    if low is not None and high is not None and low > high:
        low, high = high, low
    constraint, cost = Constraint(min_params=low, max_macs=high), Cost(params, macs)
    inside = (low is None or params >= low) and (high is None or macs <= high)
    assert constraint.admits(cost) == inside
    assert (constraint.distance(cost) == 0) == inside
    assert math.isfinite(constraint.distance(cost))
    assert Constraint(params, params, macs, macs).admits(cost)


@given(sizes, st.integers(1, 10**6))
def test_distance_shrinks_towards_the_band(value: int, step: int):
    constraint = Constraint(min_params=4e11, max_params=6e11)
    nearer = min(value + step, 5 * 10**11) if value < 5 * 10**11 else max(value - step, 5 * 10**11)
    assert constraint.distance(Cost(nearer, 0)) <= constraint.distance(Cost(value, 0))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_macs": math.nan}, "max-macs is nan, must be finite and at least 0"),
        ({"min_macs": -1}, "min-macs is -1"),
        ({"max_params": math.inf}, "max-params is inf"),
        ({"max_latency_ms": -2.5}, "max-latency-ms is -2.5, must be above 0"),
        ({"max_latency_ms": 0.0}, "max-latency-ms is 0"),
    ],
)
def test_mistakes_in_a_budget_are_named(limits: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        Constraint(**limits)


def test_a_band_without_members_is_named_when_it_is_used():
    with pytest.raises(UserError, match="empty band: min-params 6,000,000 is above max-params 5,000,000"):
        Constraint(min_params=6e6, max_params=5e6).check_band()


def test_a_latency_limit_counts_where_latency_is_known():
    limit = Constraint(max_latency_ms=20)
    assert limit.admits(Cost(1, 1))
    assert limit.admits(Cost(1, 1, latency_ms=20))
    assert not limit.admits(Cost(1, 1, latency_ms=20.1))
    assert limit.exceeded_by(Cost(1, 1, latency_ms=20.1))
    assert not limit.exceeded_by(Cost(1, 1, latency_ms=20))
    assert Constraint(min_params=5, max_macs=2).exceeded_by(Cost(1, 3))
    assert not Constraint(min_params=5, max_macs=2).exceeded_by(Cost(1, 2))


def test_a_budget_reads_as_people_write_it():
    assert str(Constraint()) == "no limit"
    assert str(Constraint(5e6, 6e6, max_macs=1.5e9)) == "5,000,000 <= params <= 6,000,000, macs <= 1,500,000,000"
