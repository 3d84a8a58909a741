import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, fields, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from space_strategies import seeds, spaces

from raysearch.space import Architecture, Choice, MutationRates, SearchSpace


@dataclass(frozen=True)
class Net(Architecture):
    embed_dim: int
    num_heads: tuple[int, ...]
    mlp_ratio: tuple[float, ...]


NET = Net(192, (3, 3, 4), (3.5, 4, 4))
probabilities = st.floats(0, 1)
rates = st.builds(MutationRates, probabilities, probabilities, probabilities)


def flat(value: Any) -> list[Any]:
    """The values of an architecture's field, without their nesting."""
    return [leaf for part in value for leaf in flat(part)] if isinstance(value, tuple) else [value]


# --- every declaration ---


@given(spaces(), seeds)
def test_samples_and_extremes_are_members(space: SearchSpace[Any], rng: Random):
    for arch in (space.sample(rng), space.smallest(), space.largest()):
        assert space.contains(arch)


@given(spaces(), seeds, rates)
def test_mutants_and_children_are_members(space: SearchSpace[Any], rng: Random, rates: MutationRates):
    a, b = space.sample(rng), space.sample(rng)
    for _ in range(3):
        a, b = space.mutate(a, rng, rates), space.crossover(a, b, rng)
        assert space.contains(a)
        assert space.contains(b)


@settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much])
@given(spaces(largest=1_000))
def test_size_is_the_number_of_members(space: SearchSpace[Any]):
    members = list(space)
    assert len(members) == len(set(members)) == len({arch.id for arch in members}) == space.size()
    assert all(map(space.contains, members))
    assert {space.smallest(), space.largest()} <= set(members)


@settings(max_examples=30, derandomize=True, suppress_health_check=[HealthCheck.filter_too_much])
@given(spaces(largest=30), seeds)
def test_every_member_is_reached_by_sampling_and_by_mutation(space: SearchSpace[Any], rng: Random):
    members, arch, draws = set(space), space.smallest(), 25 * space.size()
    mutants = {arch := space.mutate(arch, rng, MutationRates(0.5, 0.5, 0.5)) for _ in range(draws)}
    samples = {space.sample(rng) for _ in range(draws)}
    # A member can be rarer than one in size, as the deepest are, so a few may be missing by chance.
    assert len(samples) >= 0.9 * len(members)
    assert len(mutants) >= 0.9 * len(members)


@given(spaces(), seeds)
def test_json_round_trip(space: SearchSpace[Any], rng: Random):
    arch = space.sample(rng)
    again = space.architecture.from_json(arch.to_json())
    assert again == arch
    assert hash(again) == hash(arch)
    assert again.id == arch.id
    assert space.architecture.from_dict(json.loads(json.dumps(arch.to_dict()))) == arch
    assert space.contains(again)


@given(spaces(), seeds)
def test_decisions_round_trip(space: SearchSpace[Any], rng: Random):
    arch = space.sample(rng)
    params = space.to_params(arch)
    assert all(value in space.param_space[name] for name, value in params.items())
    assert space.from_params(params) == arch
    surplus = {name: rng.choice(options) for name, options in space.param_space.items()}
    assert space.from_params(surplus | params) == arch, "decisions for blocks that are not there change nothing"
    assert space.contains(space.from_params(surplus))
    for name in params:
        with pytest.raises(ValueError, match=f"{name} is missing; give one of"):
            space.from_params({k: v for k, v in params.items() if k != name})


@settings(max_examples=50, suppress_health_check=[HealthCheck.filter_too_much])
@given(spaces(largest=60))
def test_features_tell_members_apart(space: SearchSpace[Any]):
    rows = [space.features(arch) for arch in space]
    assert len({len(row) for row in rows}) == 1
    assert len(set(rows)) == len(rows)
    assert all(0 <= value <= 1 for row in rows for value in row)


@given(spaces(), seeds)
def test_identities(space: SearchSpace[Any], rng: Random):
    arch = space.sample(rng)
    assert space.mutate(arch, rng, MutationRates(0, 0, 0)) == arch
    assert space.crossover(arch, arch, rng) == arch


@given(spaces(), seeds)
def test_children_hold_values_of_their_parents(space: SearchSpace[Any], rng: Random):
    a, b = space.sample(rng), space.sample(rng)
    child = space.crossover(a, b, rng)
    for choice in space.choices:
        values, one, two = (getattr(arch, choice.name) for arch in (child, a, b))
        if choice.per != "block":
            assert all(v in pair for v, *pair in zip(flat(values), flat(one), flat(two), strict=True))
            continue
        for blocks, left, right in zip(*((x if space.staged else (x,)) for x in (values, one, two)), strict=True):
            assert len(blocks) in (len(left), len(right))
            for v, x, y in itertools.zip_longest(blocks, left, right, fillvalue=...):
                assert v is ... or v in (x, y)


@given(spaces(), seeds)
def test_a_changed_value_is_not_contained(space: SearchSpace[Any], rng: Random):
    arch = space.sample(rng)
    foreign = {int: 1_000, float: 1_000.5, str: "foreign"}

    def change(value: Any, path: list[int]) -> Any:
        if path:
            return (*value[: path[0]], change(value[path[0]], path[1:]), *value[path[0] + 1 :])
        return foreign.get(type(value), value)

    def paths(value: Any) -> list[list[int]]:
        return [[i, *rest] for i, part in enumerate(value) for rest in paths(part)] if isinstance(value, tuple) else [[]]

    for field in fields(arch):
        value = getattr(arch, field.name)
        for path in paths(value):
            changed = replace(arch, **{field.name: change(value, path)})
            assert space.contains(changed) == (changed == arch)
        if isinstance(value, tuple) and value:
            assert not space.contains(replace(arch, **{field.name: (*value, *value[:1] * 9)}))


@given(spaces().filter(lambda space: bool(space.skippable)), seeds)
def test_only_skippable_blocks_may_be_left_out(space: SearchSpace[Any], rng: Random):
    arch = space.sample(rng)
    rows = {
        c.name: getattr(arch, c.name) if space.staged else (getattr(arch, c.name),) for c in space.choices if c.per == "block"
    }
    depths = [len(blocks) for blocks in next(iter(rows.values()))]
    for stage, depth in enumerate(depths):
        for block in range(depth):
            less = {name: tuple(map(list, stages)) for name, stages in rows.items()}
            for stages in less.values():
                stages[stage][block] = None
            values = {name: stages if space.staged else stages[0] for name, stages in less.items()}
            assert space.contains(replace(arch, **values)) == (block in space.skippable)


@given(spaces(), seeds)
def test_the_same_chance_draws_the_same(space: SearchSpace[Any], rng: Random):
    state = rng.getstate()
    first = space.mutate(space.sample(rng), rng)
    rng.setstate(state)
    assert space.mutate(space.sample(rng), rng) == first


@given(spaces())
def test_equal_declarations_are_equal_spaces(space: SearchSpace[Any]):
    depth = space.depth or None
    again = SearchSpace(
        space.architecture,
        space.choices,
        depth=depth,
        stages=space.stages if space.staged else None,
        skippable=sorted(space.skippable),
    )
    assert again == space
    assert hash(again) == hash(space)
    assert json.loads(json.dumps(space.to_dict())) == json.loads(json.dumps(again.to_dict()))


# --- architectures ---


@pytest.mark.parametrize(
    "same",
    [
        Net(192.0, [3, 3.0, 4], [3.5, 4.0, 4]),
        Net.from_json('{"mlp_ratio": [3.5, 4, 4.0], "embed_dim": 192, "num_heads": [3, 3, 4]}'),
    ],
)
def test_numbers_written_differently_are_one_architecture(same: Net):
    assert (same, hash(same), same.id, same.to_json()) == (NET, hash(NET), NET.id, NET.to_json())


def test_negative_zero_is_zero():
    assert Net(1, (1,), (-0.0,)).id == Net(1, (1,), (0.0,)).id


def test_id_is_the_same_in_another_process():
    code = "import sys; sys.path.insert(0, sys.argv[1]); from test_space import NET; print(NET.id)"
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    for hash_seed in ("1", "2"):
        done = subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": hash_seed}, check=True, capture_output=True)
        assert done.stdout.decode().strip() == NET.id


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Net(192.5, (3,), (4,)), r"embed_dim is 192.5, not int"),
        (lambda: Net(True, (3,), (4,)), r"embed_dim is True, not int"),
        (lambda: Net(192, (3, "4"), (4, 4)), r"num_heads\[1\] is '4', not int"),
        (lambda: Net(192, 3, (4,)), r"num_heads is 3, not a sequence"),
        (lambda: Net(192, (3,), (float("nan"),)), r"mlp_ratio\[0\] is nan"),
        (lambda: Net.from_dict({"embed_dim": 192, "heads": [3]}), "missing or unknown heads, mlp_ratio, num_heads"),
        (lambda: Net.from_json("[1]"), "not a Net"),
        (lambda: Net.from_json("{"), "not a Net"),
    ],
)
def test_what_is_no_architecture_is_named(make: Any, message: str):
    with pytest.raises(ValueError, match=message):
        make()


# --- published rates ---


@pytest.mark.parametrize("rates", [MutationRates.published_code(), MutationRates.published_paper()])
def test_mutation_follows_its_rates(rates: MutationRates):
    """Observed changes of 4,000 mutants lie within four standard deviations of rate * (1 - 1/3), a redraw being uniform."""
    choices = [
        Choice("embed_dim", (1, 2, 3)),
        Choice("num_heads", (1, 2, 3), per="block"),
        Choice("mlp_ratio", (1, 2, 3), per="block"),
    ]
    space = SearchSpace(Net, choices, depth=(2, 3, 4))
    parent, rng, n = Net(2, (2, 2, 2), (2, 2, 2)), Random(0), 4_000
    changed = Counter[str]()
    for _ in range(n):
        child = space.mutate(parent, rng, rates)
        changed["depth"] += len(child.num_heads) != 3
        changed["net"] += child.embed_dim != 2
        changed["heads"] += sum(h != 2 for h in child.num_heads[:2])
        changed["ratio"] += sum(r != 2 for r in child.mlp_ratio[:2])
    trials = {"depth": (n, rates.depth), "net": (n, rates.net), "heads": (2 * n, rates.block), "ratio": (2 * n, rates.block)}
    for name, (count, rate) in trials.items():
        p = rate * 2 / 3
        assert abs(changed[name] - count * p) < 4 * (count * p * (1 - p)) ** 0.5, name


def test_a_cut_keeps_the_prefix_and_growth_appends():
    space = SearchSpace(
        Net,
        [
            Choice("embed_dim", (1,)),
            Choice("num_heads", tuple(range(9)), per="block"),
            Choice("mlp_ratio", (1, 2), per="block"),
        ],
        depth=(1, 3, 5),
    )
    parent, rng = Net(1, (8, 7, 6), (1, 2, 1)), Random(0)
    depths = Counter[int]()
    for _ in range(300):
        child = space.mutate(parent, rng, MutationRates(depth=1, net=0, block=0))
        depths[len(child.num_heads)] += 1
        assert child.num_heads[:3] == parent.num_heads[: len(child.num_heads)]
        assert child.mlp_ratio[:3] == parent.mlp_ratio[: len(child.mlp_ratio)]
    assert set(depths) == {1, 3, 5}


# --- declarations that make no space ---


@dataclass(frozen=True)
class Named(Architecture):
    depth: int
    skip: tuple[int, ...]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Choice("a", ()), "a has no options"),
        (lambda: Choice("a", (4, 4.0)), "repeats an option"),
        (lambda: Choice("two words", (1,)), "not an identifier"),
        (lambda: Choice("a", ((1,), (2,))), "options per stage, but the choice is taken once per net"),
        (lambda: MutationRates(depth=1.5), r"depth=1.5 is not a probability"),
        (lambda: SearchSpace(Net, [Choice("embed_dim", (1,))]), "are not the fields"),
        (
            lambda: SearchSpace(Named, [Choice("depth", (1,)), Choice("skip", (1,), per="block")], depth=(2,)),
            "no choice's name",
        ),
    ],
)
def test_mistakes_in_a_declaration_are_named(make: Any, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_blocks_and_depth_go_together():
    blocks = [Choice("embed_dim", (1,)), Choice("num_heads", (1,), per="block"), Choice("mlp_ratio", (1,), per="block")]
    for depth, message in ((None, "depth and per-block choices"), ((), "depth has no options"), ((-1,), "whole numbers")):
        with pytest.raises(ValueError, match=message):
            SearchSpace(Net, blocks, depth=depth)
    with pytest.raises(ValueError, match="not all within depth 3"):
        SearchSpace(Net, blocks, depth=(2, 3), skippable=(3,))
    with pytest.raises(ValueError, match="3 stages, but depth is given for 2"):
        SearchSpace(Net, blocks, depth=((1,), (2,)), stages=3)
