"""Who is judged again when a search ends, and who of them is its champion.

The best of hundreds of scores is partly the luckiest, so finalists are judged on fresh items, on which nobody was chosen. The
champion is the cheapest of them that the best one does not beat there beyond chance (docs/champion.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raysearch.errors import UserError
from raysearch.search.candidate import Candidate
from raysearch.search.front import objective_values, pareto_front, ranked, spread
from raysearch.search.informative import Sample
from raysearch.search.protocol import Result
from raysearch.space.cost import Quantity
from raysearch.statistics import Gap, Outcomes, lead_p_value, paired_gap

CHANCE = 0.05
"""Probability that a search claims anything of its finalists that is not so."""


def cost_of(candidate: Candidate, quantity: Quantity) -> float:
    """What a scored candidate costs: parameters, MACs, or milliseconds (measured, or else predicted)."""
    assert candidate.result is not None, f"{candidate.proposal.arch.id} was not scored"
    return float(objective_values(candidate.result, candidate.cost, (quantity,))[0])


def finalists(
    candidates: Sequence[Candidate],
    *,
    count: int,
    cheaper: int,
    quantity: Quantity,
    samples: Mapping[str, Sample] | None = None,
) -> list[Candidate]:
    """The best of a search, and the cheaper ones that its items did not tell from the best: at most ``count``, best first.

    The best by score are often all as large as the budget allows, and then none of them is a cheaper equal. So up to
    ``cheaper`` places are for networks along the front of score and cost, evenly from the cheapest up to the best. Of the front
    those take part whose score is within one standard error of the best one's, on the same items: the rule of Breiman,
    Friedman, Olshen and Stone (Classification and Regression Trees, 1984, section 3.4.3) for the simplest of many models.
    Without it the champion would be whatever is too cheap for the fresh items to tell, however bad (benchmarks/champions.py).

    Args:
        candidates: all of a search, with outcomes by item.
        count: most finalists.
        cheaper: most of them that are cheaper than the best one.
        quantity: what counts as cost.
        samples: by their ids, where candidates were scored on some items.

    Raises:
        UserError: no candidate competes.

    """
    order = ranked(candidates)
    if not order:
        raise UserError("no candidate competes, so there is no champion: the reasons stand in the candidate table")
    best = order[0]
    front = [
        c
        for c in pareto_front(candidates, objectives=("score", quantity))
        if cost_of(c, quantity) < cost_of(best, quantity) and _within_one_error(c, best, samples or {})
    ]
    places = min(cheaper, count - 1)
    taken = {c.proposal.index for c in (best, *spread(front, places))}
    for candidate in order:
        if len(taken) < count:
            taken.add(candidate.proposal.index)
    return [c for c in order if c.proposal.index in taken]


def _within_one_error(candidate: Candidate, best: Candidate, samples: Mapping[str, Sample]) -> bool:
    assert candidate.result is not None
    assert best.result is not None
    gap = gap_of(best.result, candidate.result, samples)
    return gap is None or not gap.value > gap.standard_error


def gap_of(first: Result, second: Result, samples: Mapping[str, Sample]) -> Gap | None:
    """Score of ``first`` minus that of ``second`` on the items that both were scored on.

    None where that says nothing of all items: they were scored on two samples. ``samples`` holds both.
    """
    of = {result.sample for result in (first, second)} - {None}
    if not of:
        return paired_gap(first.by_item(first.items_seen), second.by_item(first.items_seen))
    if len(of) > 1:
        return None
    sample = samples[str(of.pop())]
    drawn = [result.by_item(sample.items)[sample.index] for result in (first, second)]
    return sample.gap(*drawn)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What fresh items say of finalists, in the order in which these were given."""

    champion: int
    """Index of the cheapest finalist that the best one does not beat."""
    p_values: tuple[float, ...]
    """How often chance alone gives the best one such a lead over an equal network, and over all that were tested before it: at
    most :data:`CHANCE` for those who are beaten, and for no others."""
    beaten: tuple[bool, ...]
    """Whom the best one beats beyond chance. The probability that any of this is wrong is at most :data:`CHANCE`."""


def judged(fresh: Sequence[Outcomes], costs: Sequence[float]) -> Verdict:
    """The champion among finalists, of which the first is the best: the yardstick of all others.

    Tested is whether the best one beats the cheapest finalist, then the next cheapest, and so on, each at the whole level and
    no further than to the first that it does not beat: that one is the champion. This needs no correction for the number of
    comparisons, as order and yardstick were decided before a fresh item was seen: a first wrong claim needs the first true
    equality of the sequence to be rejected, which happens with a probability of at most :data:`CHANCE` whatever stands before
    it (the fixed-sequence procedure; Maurer, Hothorn and Lehmacher 1995; Westfall and Krishen 2001). Each test is exact. Holm's
    procedure over the same tests, and a comparison of all pairs by the largest difference, hold the level too, but pay for
    claims that the rule never makes. A yardstick chosen by the fresh items themselves would have to pay for that as well;
    in simulations on scored digits it found nothing better (benchmarks/champions.py).

    Args:
        fresh: outcomes of each finalist on items that chose nobody, the same for all; the best of the search first.
        costs: of each finalist.

    """
    p_values = [1.0] * len(fresh)
    before = 0.0
    order = sorted(range(len(fresh)), key=lambda i: (costs[i], i))
    for i in order:
        before = p_values[i] = 1.0 if i == 0 else max(before, lead_p_value(fresh[0], fresh[i]))
    champion = next(i for i in order if p_values[i] > CHANCE)
    return Verdict(champion, tuple(p_values), tuple(p <= CHANCE for p in p_values))


def best_of(results: Sequence[Result]) -> int:
    """Index of the highest score; of equal ones the one that the search placed first. Losses of few items decide nothing."""
    return max(range(len(results)), key=lambda i: (results[i].score, -i))
