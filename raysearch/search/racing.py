"""Racing: a candidate is scored in blocks of items, and no further once it is settled that it cannot become a parent.

The incumbent is the last of the parents (``SearchAlgorithm.threshold``); its outcome is known for every item. A candidate
matters while it may be at least as good as the incumbent *over all items*. That hypothesis is tested as a wager against it on
the items as they come. While it is true, the wager's capital is a nonnegative supermartingale that starts at 1, so by Ville's
inequality (1939) it *ever* reaches 1 / error with a probability of at most error: a look after every block costs nothing, and
a candidate may be stopped at any of them.

What is wagered depends on the kind of outcome. Of bits (right or wrong) everything that remains is bounded, and the test is
exact for whatever the networks answer: :func:`settled_bits`. Of numbers nothing is bounded, and the test assumes that equally
good networks differ evenly to both sides: :func:`settled_numbers`.

Where candidates are scored on some of the items, each of which stands for others (:mod:`raysearch.search.informative`), the
same is tested of the estimates from all of these: :func:`settled_weighted_bits`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from raysearch.bounds import Bounds, Count, check_numbers
from raysearch.search.informative import Sample, chance
from raysearch.search.protocol import ByItem, Kind, unpack

STAKES = np.array([0.08, 0.2, 0.4, 0.6, 0.8])
"""Stakes for bits, as shares of the largest that cannot ruin; the capital is divided equally among them. Chosen by simulation:
small ones find a small gap in many items, large ones a large gap in few."""
RATES = np.array([0.04, 0.08, 0.16])
"""Stakes for numbers, in units of one over the spread of the differences; the capital is divided equally among them. Chosen by
simulation: each is best for a gap of about as many spreads. Larger ones would save a block and trust symmetry more."""


@dataclass(frozen=True, slots=True)
class RacingConfig:
    """Racing: candidates that cannot become parents are not scored to the end."""

    enabled: bool = False
    """Stop a candidate early. Only algorithms with a fixed number of parents race; random search scores everything."""
    error: Annotated[float, Bounds(least=0, below=1)] = 0.02
    """Probability of stopping a true parent, over all looks at it; 0 stops only what is certain and changes no search."""
    block: Count = 100
    """Items (images) between two looks."""

    def __post_init__(self) -> None:
        """Raises UserError for what is no probability and no number of items."""
        check_numbers(self)


@dataclass(frozen=True, slots=True)
class Race:
    """What a candidate runs against."""

    incumbent: str
    """Id of the architecture that it must at least equal."""
    draw: str
    """Decides the order of the items. It names seed, incumbent and candidate: false stops of two candidates have nothing in
    common, and the order does not depend on who scores."""
    error: float
    block: int
    outcomes: bytes = b""
    """The incumbent's, as in :class:`~raysearch.search.Result`."""
    kind: Kind = "bits"
    """What they are."""
    sample: Sample | None = None
    """The items of the race; None: all."""

    def by_item(self, items: int) -> ByItem:
        """The incumbent's outcomes in the order of the split."""
        return unpack(self.outcomes, self.kind, items=items)

    def order(self, items: int) -> Int64[np.ndarray, " raced"]:
        """Indices of the items, or of those of the sample, in the order in which the candidate sees them: random.

        Bits are drawn from two strata, the items that the incumbent has right and those that it has wrong, both spread evenly:
        every block holds its share of both. How many of each a block happens to hold would otherwise be most of the noise of a
        comparison, as a candidate can only lose on the ones and only gain on the others.
        """
        # By a stable sort: the same order on every machine and with every version of numpy.
        shuffled = np.argsort(chance(self.draw, items), kind="stable")
        if self.sample is not None:
            return shuffled[np.isin(shuffled, self.sample.index)].astype(np.int64)
        if self.kind == "float32":
            return shuffled.astype(np.int64)
        right = self.by_item(items)
        parts = [shuffled[right[shuffled]], shuffled[~right[shuffled]]]
        # The k-th of n items of a stratum stands at the (k + 1/2) / n part of the way.
        places = np.concatenate([(np.arange(len(part)) + 0.5) / max(len(part), 1) for part in parts])
        return np.concatenate(parts)[np.argsort(places, kind="stable")].astype(np.int64)

    def weights(self, order: Int64[np.ndarray, " raced"]) -> Float[np.ndarray, " raced"] | None:
        """How many items each of :meth:`order` stands for; None where all are raced on."""
        if self.sample is None:
            return None
        return 1 / self.sample.probability[np.searchsorted(self.sample.index, order)]

    def settled(
        self,
        incumbent: ByItem,
        candidate: Bool[np.ndarray, " seen"] | Float32[np.ndarray, " seen"],
        *,
        weights: Float[np.ndarray, " raced"] | None = None,
    ) -> bool:
        """Whether the candidate is out after the items that it has seen.

        Args:
            incumbent: its outcomes on all items of the race, in the order of :meth:`order`.
            candidate: its outcomes on the first items of that order; finite.
            weights: as :meth:`weights` gives them.

        """
        assert incumbent.dtype == candidate.dtype, f"{incumbent.dtype} and {candidate.dtype} are of two tasks"
        if self.kind == "bits":
            if weights is not None:
                return settled_weighted_bits(incumbent, candidate, weights, error=self.error)
            return settled_bits(incumbent, candidate, error=self.error)
        if weights is not None:  # whose favour a difference is in does not depend on what the item stands for
            incumbent = (incumbent * weights).astype(np.float32)
            candidate = (candidate * weights[: len(candidate)]).astype(np.float32)
        return settled_numbers(incumbent, candidate, error=self.error, block=self.block)


Part = Race | Sample
"""What of a split a candidate is scored on: as much of it as a race takes, or a sample."""


def settled_bits(incumbent: Bool[np.ndarray, " items"], candidate: Bool[np.ndarray, " seen"], *, error: float) -> bool:
    """Whether a candidate is out of a race of right and wrong answers.

    True when not even all remaining items could bring it level with the incumbent, or when the wager against "it has at least
    as many right over all items" has reached ``1 / error`` at any time up to now. If the candidate does have at least as many
    right, the probability that this is ever true, at whatever looks, is at most ``error``, whichever items the two get right:
    nothing but the random order is assumed.

    The wager is that of Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting" (2024), section 5,
    for draws without replacement ("Confidence sequences for sampling without replacement", 2020), from two strata. The items
    are cut into rounds, each with one item of the smaller stratum (those that the incumbent has right, or those that it has
    wrong) and its share of the larger one. Weighted by what remains of its stratum, a round's difference D estimates the sum of
    all remaining differences without bias, so its mean is at least -S, where S is the sum seen before. A round multiplies the
    capital by 1 - g (S + D) / (S + W) with a stake g below 1; W, the incumbent's remaining errors, is the most that D can be,
    so the factor stays positive and its mean at most 1.

    Args:
        incumbent: its correctness on all items, in the order of :meth:`Race.order`.
        candidate: correctness on the first items of that order.
        error: as above; 0 leaves only certainty.

    """
    seen = len(candidate)
    shown = incumbent[:seen]
    wrong = len(incumbent) - int(incumbent.sum())
    difference = int(candidate.sum()) - int(shown.sum())
    # All that the candidate can still gain are the incumbent's errors among the items not seen.
    if difference + wrong - (seen - int(shown.sum())) < 0:
        return True
    if error == 0:
        return False
    # A round ends with each item of the smaller stratum. One that is still open at this look is not wagered on yet.
    smaller = ~shown if 2 * wrong <= len(incumbent) else shown
    ends = np.flatnonzero(smaller) + 1
    starts = np.concatenate([[0], ends[:-1]])

    def until(marks: Bool[np.ndarray, " seen"]) -> Int64[np.ndarray, " more"]:
        return np.concatenate([[0], np.cumsum(marks)])

    losses, gains = until(shown & ~candidate), until(~shown & candidate)
    right_seen, wrong_seen = until(shown), until(~shown)
    right_drawn, wrong_drawn = right_seen[ends] - right_seen[starts], wrong_seen[ends] - wrong_seen[starts]
    right_left, wrong_left = len(incumbent) - wrong - right_seen[starts], wrong - wrong_seen[starts]
    # Everything that sets a stake is known when its round begins: that, and the mean of D, make the capital a supermartingale.
    ahead = gains[starts] - losses[starts]  # S
    estimate = (gains[ends] - gains[starts]) * wrong_left / np.maximum(wrong_drawn, 1)
    estimate -= (losses[ends] - losses[starts]) * right_left / np.maximum(right_drawn, 1)  # D
    # A round that lacks one of the strata estimates nothing, and where the candidate can at best draw level there is nothing
    # left to wager against: neither is played.
    playable = (right_drawn > 0) & (wrong_drawn > 0) & (ahead + wrong_left > 0)
    returns = np.where(playable, (ahead + estimate) / np.maximum(ahead + wrong_left, 1), 0.0)
    # A mean of supermartingales is one: no stake has to be chosen beforehand. In logarithms: products of thousands underflow.
    capital = np.logaddexp.reduce(np.cumsum(np.log1p(-np.outer(STAKES, returns)), axis=1), axis=0) - math.log(len(STAKES))
    return bool((capital >= -math.log(error)).any())


def settled_weighted_bits(
    incumbent: Bool[np.ndarray, " raced"],
    candidate: Bool[np.ndarray, " seen"],
    weights: Float[np.ndarray, " raced"],
    *,
    error: float,
) -> bool:
    """As :func:`settled_bits`, of the sum of right answers in which each item counts its weight.

    If the candidate's sum over all these items is at least the incumbent's, the probability that this is ever true is at most
    ``error``: nothing but the random order is assumed.

    Items are drawn one by one without replacement. The weighted difference on the next one, times the number n of those that
    remain, estimates the sum of all remaining differences without bias, so its mean is at least -S, where S is the sum seen
    before. It is at most n M, where M is the largest weight that remains among the incumbent's errors. The capital is
    multiplied by 1 - g (S + D) / (S + n M), which stays positive with a mean of at most 1 (Waudby-Smith & Ramdas, as there).
    Strata of right and wrong, as without weights, would need an item of each weight in every round.

    Args:
        incumbent: its correctness on all items of the race, in a random order.
        candidate: correctness on the first items of that order.
        weights: of all items, above 0.
        error: as above; 0 leaves only certainty.

    """
    seen = len(candidate)
    differences = np.where(candidate, weights[:seen], 0.0) - np.where(incumbent[:seen], weights[:seen], 0.0)
    ahead = np.concatenate([[0.0], np.cumsum(differences)])
    gain = np.where(incumbent, 0.0, weights)
    if ahead[-1] + gain[seen:].sum() < 0:
        return True
    if error == 0:
        return False
    left = len(incumbent) - np.arange(seen)
    most = left * np.maximum.accumulate(gain[::-1])[::-1][:seen]
    playable = ahead[:-1] + most > 0
    returns = np.where(playable, (ahead[:-1] + left * differences) / np.where(playable, ahead[:-1] + most, 1.0), 0.0)
    capital = np.logaddexp.reduce(np.cumsum(np.log1p(-np.outer(STAKES, returns)), axis=1), axis=0) - math.log(len(STAKES))
    return bool((capital >= -math.log(error)).any())


def settled_numbers(
    incumbent: Float32[np.ndarray, " items"], candidate: Float32[np.ndarray, " seen"], *, error: float, block: int
) -> bool:
    """Whether a candidate is out of a race of numbers of which more is better.

    True when the wager against "it is at least as good" has reached ``1 / error`` at any time up to now. The probability that
    this is ever true of a candidate that is at least as good is at most ``error``, at whatever looks, provided that each
    difference to the incumbent, whatever its size, is at least as often in the candidate's favour as against it: as between
    two networks of which chance decides who is better on an item (symmetric about 0, or of one peak and symmetric about more).
    Neither finite means nor bounds are needed.

    This is weaker than what holds for bits. A candidate of equal mean that loses a little on many items and gains much on few
    violates the assumption and is stopped more often: in simulations with error 0.02 and differences as skewed as a lognormal
    with sigma 1, 3 % of the time with 1,000 items and 7 % with 10,000. And as no number is the largest, nothing is ever
    certain: with ``error`` 0 nothing is stopped.

    With the sizes given, signs are as in tosses of a coin that is fair or favours the candidate. Then, with S the sum of the
    differences and V that of their squares, exp(-r S - r^2 V / 2) is a supermartingale for every rate r > 0, as
    cosh(x) <= exp(x^2 / 2): sums that their own squares normalise, de la Pena, "A general class of exponential inequalities for
    martingales and ratios" (1999). The capital is divided among the :data:`RATES`.

    Args:
        incumbent: its outcomes on all items, in the order of :meth:`Race.order`.
        candidate: outcomes on the first items of that order; finite.
        error: as above.
        block: as many items tell the unit of the differences, before which there is no decision.

    """
    if error == 0:
        return False
    differences = candidate.astype(np.float64) - incumbent[: len(candidate)]
    # The unit must not look at signs, which are what is wagered on, and must not change once it is known: the root mean square
    # of the first block, or of the first blocks in which the two differ at all.
    squares = np.cumsum(differences**2)[block - 1 :: block]
    differing = np.flatnonzero(squares)
    if not len(differing):
        return False
    unit = math.sqrt(squares[differing[0]] / (block * (differing[0] + 1)))
    sums, sizes = np.cumsum(differences / unit), np.cumsum((differences / unit) ** 2)
    capital = np.logaddexp.reduce(-np.outer(RATES, sums) - np.outer(RATES**2 / 2, sizes), axis=0) - math.log(len(RATES))
    return bool((capital >= -math.log(error)).any())
