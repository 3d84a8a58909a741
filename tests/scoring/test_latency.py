"""The latency table: exact where its model holds, the same from the same numbers, read as milliseconds of parts."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
import torch

from raysearch.scoring.latency import (
    MOST_ROUNDS,
    PATIENCE,
    LatencyConfig,
    LatencyTable,
    architectures_to_measure,
    device_name,
    fit_coefficients,
    measure,
    undisturbed,
)
from raysearch.search import SearchProblem
from raysearch.space.cost import Constraint
from raysearch.spaces.autoformer import AutoFormerArchitecture, AutoFormerGeometry, AutoFormerSpace, AutoFormerSubnet

GEOMETRY = AutoFormerGeometry(
    img_size=8, patch_size=4, in_chans=1, num_classes=10, embed_dim=96, depth=5, num_heads=4, mlp_ratio=3.0, head_dim=32
)
SPACE = AutoFormerSpace(embed_dim=(32, 64, 96), num_heads=(1, 2, 3, 4), mlp_ratio=(1.0, 2.0, 3.0), depth=(2, 3, 4, 5))
CPU = torch.device("cpu")


def problem(**limits: float) -> SearchProblem[AutoFormerArchitecture]:
    return SearchProblem(SPACE, GEOMETRY.cost, Constraint(**limits))


def milliseconds(arch: AutoFormerArchitecture) -> float:
    """A device on which every part takes its time, one after the other."""
    total = 0.5 + 0.01 * arch.embed_dim
    for block, heads in enumerate(arch.num_heads):
        width, hidden = heads * 32, arch.hidden_features(block)
        total += 0.2 + 1e-3 * width + 4e-5 * width * arch.embed_dim + 2e-5 * hidden * arch.embed_dim
    return total


def table_of(measured: dict[AutoFormerArchitecture, float], held_out: dict[AutoFormerArchitecture, float]) -> LatencyTable:
    rows = [[(GEOMETRY.latency_features(arch), ms) for arch, ms in part.items()] for part in (measured, held_out)]
    return LatencyTable.fit(rows[0], rows[1], device="a device", batch_size=1, precision="float32")


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    fitted, held_out = architectures_to_measure(problem(), LatencyConfig(), seed=0)
    return table_of({a: milliseconds(a) for a in fitted}, {a: milliseconds(a) for a in held_out})


def test_a_table_is_exact_where_its_model_holds(table: LatencyTable) -> None:
    """Fitted to 24 of 814,320 subnets, it knows all."""
    assert (table.fitted, table.held_out) == (24, 8)
    assert table.largest_error == pytest.approx(0, abs=1e-6)
    for i in range(200):
        arch = SPACE.sample(Random(i))
        assert table.predict(GEOMETRY.latency_features(arch)) == pytest.approx(milliseconds(arch), rel=1e-6)


def test_errors_are_those_of_the_subnets_held_out() -> None:
    fitted, held_out = architectures_to_measure(problem(), LatencyConfig(), seed=0)
    wrong = dict(zip(held_out, (1.0, 1.0, 1.0, 1.1, 0.9, 1.1, 0.8, 1.25), strict=True))
    table = table_of({a: milliseconds(a) for a in fitted}, {a: f * milliseconds(a) for a, f in wrong.items()})
    assert table.largest_error == pytest.approx(0.25, abs=1e-6)
    assert table.median_error == pytest.approx(1 - 1 / 1.1, abs=1e-6)  # of 0, 0, 0, 0.09, 0.09, 0.11, 0.2, 0.25


def test_no_part_takes_less_than_no_time() -> None:
    """Larger networks that measured faster make no coefficient negative."""
    features = [{"net": 1.0, "width": float(w)} for w in (1, 2, 3)]
    coefficients = fit_coefficients(list(zip(features, (3.0, 2.0, 1.0), strict=True)))
    assert min(coefficients.values()) >= 0


def test_the_rows_that_a_person_reads_add_up_to_the_prediction(table: LatencyTable) -> None:
    rows = table.rows(GEOMETRY.latency_parts(SPACE))
    assert len(rows) == 3 + 3 * 4 * 3
    ends = {row["embed_dim"]: row["ms"] for row in rows if row["part"] == "ends"}
    blocks = {(r["embed_dim"], r["num_heads"], r["mlp_ratio"]): r["ms"] for r in rows if r["part"] == "block"}
    for i in range(20):
        arch = SPACE.sample(Random(i))
        total = ends[arch.embed_dim]
        for heads, ratio in zip(arch.num_heads, arch.mlp_ratio, strict=True):
            total += blocks[arch.embed_dim, heads, ratio]
        assert total == pytest.approx(table.predict(GEOMETRY.latency_features(arch)))


def test_json_in_and_out(table: LatencyTable) -> None:
    stored: dict[str, Any] = json.loads(json.dumps({**table.to_dict(), "rows": []}))
    assert LatencyTable.from_dict(stored) == table


def test_what_is_measured_lies_in_the_band_and_includes_both_ends() -> None:
    band = problem(min_params=100e3, max_params=150e3)
    fitted, held_out = architectures_to_measure(band, LatencyConfig(fitted=10, held_out=4), seed=0)
    assert (len(fitted), len(held_out)) == (10, 4)
    assert fitted[:2] == [SPACE.smallest(), SPACE.largest()]
    assert len({*fitted, *held_out}) == 14
    assert all(band.in_band(arch) for arch in [*fitted[2:], *held_out])
    assert architectures_to_measure(band, LatencyConfig(fitted=10, held_out=4), seed=0) == (fitted, held_out)
    assert architectures_to_measure(band, LatencyConfig(fitted=10, held_out=4), seed=1) != (fitted, held_out)


def test_a_space_of_few_subnets_is_measured_whole() -> None:
    few = AutoFormerSpace(embed_dim=(32, 64), num_heads=(1, 2), mlp_ratio=(1.0,), depth=(2,))
    fitted, held_out = architectures_to_measure(SearchProblem(few, GEOMETRY.cost, Constraint()), LatencyConfig(), seed=0)
    assert {*fitted, *held_out} == set(few)
    assert held_out
    one = AutoFormerSpace(embed_dim=(32,), num_heads=(1,), mlp_ratio=(1.0,), depth=(2,))
    fitted, held_out = architectures_to_measure(SearchProblem(one, GEOMETRY.cost, Constraint()), LatencyConfig(), seed=0)
    assert (fitted, held_out) == ([one.smallest()], [])
    assert table_of({fitted[0]: 2.0}, {}).median_error is None


def test_subnets_are_measured_in_rounds_until_two_values_agree() -> None:
    archs = [SPACE.sample(Random(i)) for i in range(4)]
    calls: list[AutoFormerArchitecture] = []

    def quiet(arch: AutoFormerArchitecture) -> float:
        calls.append(arch)
        return milliseconds(arch) * (1 + 0.02 * (len(calls) > 4))

    assert undisturbed(quiet, archs) == {arch: milliseconds(arch) for arch in archs}
    assert calls == archs * 2


def test_disturbances_are_left_out() -> None:
    """One subnet is slowed down more often than not, differently each time; one always, and its rounds end."""
    archs = [SPACE.sample(Random(i)) for i in range(3)]
    factors = {archs[0]: [3.0, 1.0, 2.0, 1.5, 1.0], archs[1]: [1.0, 1.0], archs[2]: [1.0 + i for i in range(MOST_ROUNDS)][::-1]}
    left = {arch: iter(values) for arch, values in factors.items()}
    found = undisturbed(lambda arch: milliseconds(arch) * next(left[arch]), archs)
    assert found == {arch: milliseconds(arch) for arch in archs}
    assert [list(rest) for rest in left.values()] == [[], [], []]


class Counting(torch.nn.Module):
    """Notes what it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[tuple[int, ...], bool, bool, bool]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mode = torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"), self.training
        self.calls.append((tuple(images.shape), *mode))
        return images


def test_measuring_runs_the_network_as_scoring_does() -> None:
    counting, config = Counting(), LatencyConfig(batch_size=4, warmup=2, repetitions=5)
    assert measure(counting, (1, 8, 8), device=CPU, precision="bfloat16", config=config) > 0
    assert set(counting.calls) == {((4, 1, 8, 8), True, True, False)}
    assert 2 + 5 <= len(counting.calls) <= 2 + PATIENCE * 5  # more than asked for when something interrupts
    assert measure(AutoFormerSubnet(GEOMETRY, SPACE.smallest()), (1, 8, 8), device=CPU, precision="auto", config=config) > 0


def test_a_device_is_named_with_its_threads() -> None:
    threads = torch.get_num_threads()
    assert device_name(CPU).endswith(f", {threads} thread{'s' * (threads > 1)}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "^batch-size is 0, must be at least 1"),
        ({"warmup": -1}, "^warmup is -1, must be at least 0"),
        ({"held_out": 0}, "^held-out is 0, must be at least 1"),
    ],
)
def test_mistakes_are_named(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatencyConfig(**settings)
