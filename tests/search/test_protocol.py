"""Outcomes as JSON: what is written is read again, and so is what 0.1.0 wrote."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from toy_space import Toy, drive, result, small_problem

from raysearch.search import Evolution, EvolutionConfig, Failure, Result
from raysearch.search.protocol import outcome_from_dict, outcome_to_dict, pack, unpack

by_item = st.one_of(
    arrays.arrays(bool, st.integers(0, 40)),
    arrays.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32, allow_infinity=False)),
)


@given(by_item)
def test_outcomes_by_item_come_back_bit_for_bit(outcomes: np.ndarray):
    kind = "bits" if outcomes.dtype == bool else "float32"
    again = unpack(pack(outcomes), kind, items=len(outcomes))
    assert again.dtype == outcomes.dtype
    assert np.array_equal(again, outcomes, equal_nan=kind == "float32")


results = st.builds(
    Result,
    score=st.floats(allow_nan=False, allow_infinity=False),
    items_seen=st.integers(1, 10_000),
    params=st.integers(0),
    macs=st.integers(0),
    loss=st.none() | st.floats(0, 9),
    outcomes=st.binary(max_size=9),
    kind=st.sampled_from(["bits", "float32"]),
    latency_ms=st.none() | st.floats(0, 9),
    excluded=st.sampled_from([None, "raced", "slow"]),
    seconds=st.floats(0, 9),
)


@given(results | st.builds(Failure, st.text()))
def test_outcomes_survive_json(outcome: Result | Failure):
    assert outcome_from_dict(json.loads(json.dumps(outcome_to_dict(outcome)))) == outcome


def test_outcomes_of_0_1_0_are_read():
    written = {"score": 0.75, "images_seen": 4, "params": 7, "macs": 9, "loss": 0.5, "correct": "0A==", "latency_ms": None}
    result = outcome_from_dict({**written, "excluded": "raced", "seconds": 2.0})
    assert result == Result(0.75, 4, 7, 9, loss=0.5, outcomes=b"\xd0", excluded="raced", seconds=2.0)
    assert isinstance(result, Result)
    assert result.by_item(4).tolist() == [True, True, False, True]


@pytest.mark.parametrize("values", [{}, {"score": 0.5}, {"score": 0.5, "items_seen": 1, "params": 1, "macs": 1, "hits": 3}])
def test_what_is_no_outcome_is_refused(values: dict[str, float]):
    with pytest.raises(TypeError):
        outcome_from_dict(values)


STATE_OF_0_1_0 = """{"settings": {"algorithm": "evolution", "population": 4, "generations": 2, "parents": 2, "mutations": null,
"crossovers": null, "rates": "code", "max_tries": 10, "direction": "%s", "seed": 3, "initial": [], "space": {"architecture":
"Toy", "choices": [{"name": "mlp_ratio", "options": [2, 4], "per": "block", "weight_free": false}, {"name": "num_heads",
"options": [1, 2], "per": "block", "weight_free": false}, {"name": "embed_dim", "options": [16, 24, 32], "per": "net",
"weight_free": false}], "depth": [1, 2], "stages": null, "skippable": []}, "constraint": {"min_params": null, "max_params":
null, "min_macs": null, "max_macs": null, "max_latency_ms": null}}, "generation": 0, "start": 0, "parents": [], "asked": 3,
"candidates": [[{"embed_dim": 32, "mlp_ratio": [4.0], "num_heads": [2]}, 0, "random", [], {"reason": "lost"}], [{"embed_dim":
32, "mlp_ratio": [2.0, 2.0], "num_heads": [1, 1]}, 0, "random", [], {"score": 0.125, "images_seen": 100, "params": 10560,
"macs": 179520, "loss": 0.5, "latency_ms": null, "excluded": null}], [{"embed_dim": 32, "mlp_ratio": [4.0, 2.0], "num_heads":
[1, 1]}, 0, "random", [], null], [{"embed_dim": 16, "mlp_ratio": [2.0], "num_heads": [1]}, 0, "random", [], null]]}"""
"""A search as its ``state_dict`` was in 0.1.0, after two outcomes and with a third candidate asked."""


def test_a_search_of_0_1_0_goes_on():
    """With the candidates that 0.1.0 itself asked next; one that took lower scores for better ones does not."""
    search = Evolution(small_problem(), EvolutionConfig(4, 2, parents=2), seed=3)
    search.load_state_dict(json.loads(STATE_OF_0_1_0 % "max"))
    awaited = Toy(32, (1, 1), (4.0, 2.0))
    search.tell(awaited, result(awaited))
    assert [arch.id for arch in drive(search)] == [
        "3d9f45ec7455", "3fc1497f6adb", "d0d0160641ed", "7d2be78f6047", "37ad9f7a2c88"
    ]  # fmt: skip
    with pytest.raises(ValueError, match="the stored search has direction = min"):
        search.load_state_dict(json.loads(STATE_OF_0_1_0 % "min"))
