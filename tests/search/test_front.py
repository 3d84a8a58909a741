import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_space import Toy

from raysearch.cost import Cost
from raysearch.search import Candidate, Failure, Proposal, Result, champion, pareto_front

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


@given(rows, st.sampled_from(["max", "min"]), st.randoms(use_true_random=False))
def test_front_holds_every_point_that_no_other_beats(rows, direction, rng):
    sign = 1 if direction == "max" else -1
    made = candidates(rows)
    points = {(sign * c.result.score, -c.result.params) for c in made if c.result}
    best = {p for p in points if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points)}
    shuffled = list(made)
    rng.shuffle(shuffled)
    front = pareto_front(shuffled, direction)
    assert [(sign * c.result.score, -c.result.params) for c in front] == sorted(best, key=lambda p: -p[1])
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


def test_champion_of_errors_is_the_least():
    assert champion(candidates([(0.9, None, 1), (0.1, None, 9)]), "min").proposal.index == 1


def test_no_champion_among_failures():
    with pytest.raises(ValueError, match="no candidate competes"):
        champion(candidates([None, None]))
    assert pareto_front(candidates([None])) == []
