import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_space import Toy

from raysearch.search import Candidate, Failure, Proposal, Result, champion, hypervolume, pareto_front
from raysearch.space.cost import Cost

Row = tuple[float, float | None, int]


def candidates(rows: list[Row | None]) -> list[Candidate]:
    """One candidate per (score, loss, params), None for a failure."""
    made: list[Candidate] = []
    for index, row in enumerate(rows):
        proposal = Proposal(Toy(index, (1,), (2,)), index, 0, "random")
        score, loss, params = row or (0.0, None, 0)
        outcome = Result(score, 10, params, params, loss) if row else Failure("lost")
        made.append(Candidate(proposal, Cost(params, params), outcome))
    return made


rows = st.lists(
    st.none() | st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.none() | st.sampled_from([0.1, 0.2]), st.integers(1, 6)),
    max_size=12,
)


@given(rows, st.randoms(use_true_random=False))
def test_front_holds_every_point_that_no_other_beats(rows, rng):
    made = candidates(rows)
    points = {(c.result.score, -c.result.params) for c in made if c.result}
    best = {p for p in points if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points)}
    shuffled = list(made)
    rng.shuffle(shuffled)
    front = pareto_front(shuffled)
    assert [(c.result.score, -c.result.params) for c in front] == sorted(best, key=lambda p: -p[1])
    for chosen in front:
        alike = [c for c in made if c.result and (c.result.score, c.cost) == (chosen.result.score, chosen.cost)]
        losses = [(c.result.loss if c.result.loss is not None else float("inf"), c.proposal.index) for c in alike]
        assert alike[losses.index(min(losses))] is chosen


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(0.5, 0.1, 1), (0.9, 0.3, 9), None], 1),
        ([(0.9, 0.3, 1), (0.9, 0.2, 9)], 1),
        ([(0.9, None, 1), (0.9, 5.0, 9)], 1),
        ([(0.9, 0.2, 9), (0.9, 0.2, 8)], 1),
        ([(0.9, 0.2, 9), (0.9, 0.2, 9)], 0),
    ],
)
def test_champion_by_score_then_loss_then_size_then_order(rows, expected):
    assert champion(reversed(candidates(rows))).proposal.index == expected


def test_no_champion_among_failures():
    with pytest.raises(ValueError, match="no candidate competes"):
        champion(candidates([None, None]))
    assert pareto_front(candidates([None])) == []


points = st.lists(st.tuples(*[st.integers(0, 4)] * 4), max_size=14)


def measured(points: list[tuple[int, ...]]) -> list[Candidate]:
    """One candidate per (score, params, macs, latency); the latency is measured or predicted in turn."""
    made: list[Candidate] = []
    for index, (score, params, macs, latency) in enumerate(points):
        told = Result(score, 10, params, macs, latency_ms=latency if index % 2 else None)
        cost = Cost(params, macs, latency_ms=None if index % 2 else latency)
        made.append(Candidate(Proposal(Toy(index, (1,), (2,)), index, 0, "random"), cost, told))
    return made


@given(points, st.permutations(["score", "params", "macs", "latency"]), st.integers(2, 4))
def test_front_of_any_objectives(points, names, count):
    objectives = names[:count]
    column = {"score": 0, "params": 1, "macs": 2, "latency": 3}
    signs = [-1 if name == "score" else 1 for name in objectives]
    values = [tuple(sign * p[column[name]] for sign, name in zip(signs, objectives, strict=True)) for p in points]
    best = {v for v in values if not any(w != v and all(a <= b for a, b in zip(w, v, strict=True)) for w in values)}
    found = [values[c.proposal.index] for c in pareto_front(measured(points), objectives=objectives)]
    assert len(found) == len(best)
    assert set(found) == best
    assert [v[1:] for v in found] == sorted(v[1:] for v in found)


@given(points)
def test_hypervolume_counts_the_cells_that_the_front_covers(points):
    cells = 0
    for x, y, z in itertools.product(range(4), range(4), range(3)):
        cells += any(s > x and p <= y and m <= z for s, p, m, _ in points)
    volume = hypervolume(measured(points), (0, 4, 3), objectives=("score", "params", "macs"))
    assert volume == pytest.approx(cells)


def test_odd_objectives_are_refused():
    made = candidates([(0.5, None, 1)])
    with pytest.raises(ValueError, match="latency: neither measured nor predicted"):
        pareto_front(made, objectives=("score", "latency"))
    with pytest.raises(ValueError, match="objectives are score; name two or more"):
        pareto_front(made, objectives=("score",))
    with pytest.raises(ValueError, match="does not have one value for each of score params"):
        hypervolume(made, (0.5,))
