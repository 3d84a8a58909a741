"""Racing: a candidate is scored in blocks of images, and no further once it is settled that it cannot become a parent.

The incumbent is the last of the parents (``SearchAlgorithm.threshold``); which images it has right is known for all of them.
A candidate matters while it may have at least as many right as the incumbent *over all images*. That hypothesis is tested as a
wager on the images not yet seen, drawn without replacement: Waudby-Smith & Ramdas, "Estimating means of bounded random
variables by betting" (2024), section 5, and "Confidence sequences for sampling without replacement" (2020). Under the
hypothesis the wager's capital is a nonnegative supermartingale that starts at 1, so by Ville's inequality it *ever* reaches
1 / error with a probability of at most error: a look after every block costs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import numpy as np
from jaxtyping import Bool, Int64

from raysearch.search.protocol import ByItem, Kind, unpack

STAKES = np.array([0.08, 0.2, 0.4, 0.6, 0.8])
"""Shares of the largest stake that cannot ruin; the capital is divided equally among them. Chosen by simulation: small ones
find a small gap in many images, large ones a large gap in few."""


@dataclass(frozen=True, slots=True)
class RacingConfig:
    """Racing: candidates that cannot become parents are not scored to the end."""

    enabled: bool = False
    """Stop a candidate early. Only algorithms with a fixed number of parents race; random search scores everything."""
    error: float = 0.02
    """Probability of stopping a true parent, over all looks at it; 0 stops only what is certain and changes no search."""
    block: int = 100
    """Images between two looks."""

    def __post_init__(self) -> None:
        """Raises ValueError for what is no probability and no number of images."""
        if not 0 <= self.error < 1:
            raise ValueError(f"racing.error is {self.error}, must be at least 0 and below 1; 0.02 is usual")
        if self.block < 1:
            raise ValueError(f"racing.block is {self.block}, must be at least 1")


@dataclass(frozen=True, slots=True)
class Race:
    """What a candidate runs against."""

    incumbent: str
    """Id of the architecture that it must at least equal."""
    draw: str
    """Decides the order of the images. It names seed, incumbent and candidate: false stops of two candidates have nothing in
    common, and the order does not depend on who scores."""
    error: float
    block: int
    outcomes: bytes = b""
    """The incumbent's, as in :class:`~raysearch.search.Result`."""
    kind: Kind = "bits"
    """What they are."""

    def by_item(self, items: int) -> ByItem:
        """The incumbent's outcomes in the order of the split."""
        return unpack(self.outcomes, self.kind, items=items)

    def order(self, images: int) -> Int64[np.ndarray, " images"]:
        """Indices of the images in the order in which the candidate sees them.

        Random among the images that the incumbent has right and among those that it has wrong, both spread evenly: every
        block holds its share of both, which takes their number out of the comparison's noise.
        """
        right = self.by_item(images)
        # Bytes of Random and a stable sort: the same order on every machine and with every version of numpy.
        shuffled = np.argsort(np.frombuffer(Random(self.draw).randbytes(8 * images), "<u8"), kind="stable")
        parts = [shuffled[right[shuffled]], shuffled[~right[shuffled]]]
        places = np.concatenate([(np.arange(len(part)) + 0.5) / max(len(part), 1) for part in parts])
        return np.concatenate(parts)[np.argsort(places, kind="stable")].astype(np.int64)


def settled(incumbent: Bool[np.ndarray, " images"], candidate: Bool[np.ndarray, " seen"], *, error: float) -> bool:
    """Whether a candidate is out of the race after the images seen so far.

    True when not even all remaining images could bring it level with the incumbent, or when the wager against "it has at least
    as many right over all images" has reached ``1 / error`` at any time up to now. If the candidate does have at least as many
    right, the probability that this is ever true, at whatever looks, is at most ``error``.

    The images are cut into rounds, each with one image of the smaller of two groups (those that the incumbent has right, those
    that it has wrong) and its share of the larger one. Weighted by what remains of its group, a round's difference D estimates
    the sum of all remaining differences without bias, so its mean is at least -S, where S is the sum seen before. A round
    multiplies the capital by 1 - g (S + D) / (S + W) with a stake g below 1; W, the incumbent's remaining errors, is the most
    that D can be, so the factor stays positive and its mean at most 1.

    Args:
        incumbent: its correctness on all images, in the order of :meth:`Race.order`.
        candidate: correctness on the first images of that order.
        error: as above; 0 leaves only certainty.

    """
    seen = len(candidate)
    shown = incumbent[:seen]
    wrong = len(incumbent) - int(incumbent.sum())
    difference = int(candidate.sum()) - int(shown.sum())
    if difference + wrong - (seen - int(shown.sum())) < 0:
        return True
    if error == 0:
        return False
    smaller = ~shown if 2 * wrong <= len(incumbent) else shown
    ends = np.flatnonzero(smaller) + 1
    starts = np.concatenate([[0], ends[:-1]])

    def until(marks: Bool[np.ndarray, " seen"]) -> Int64[np.ndarray, " more"]:
        return np.concatenate([[0], np.cumsum(marks)])

    losses, gains = until(shown & ~candidate), until(~shown & candidate)
    right_seen, wrong_seen = until(shown), until(~shown)
    right_drawn, wrong_drawn = right_seen[ends] - right_seen[starts], wrong_seen[ends] - wrong_seen[starts]
    right_left, wrong_left = len(incumbent) - wrong - right_seen[starts], wrong - wrong_seen[starts]
    ahead = gains[starts] - losses[starts]  # S
    estimate = (gains[ends] - gains[starts]) * wrong_left / np.maximum(wrong_drawn, 1)
    estimate -= (losses[ends] - losses[starts]) * right_left / np.maximum(right_drawn, 1)  # D
    # A round that lacks one of the groups, or in which the candidate can at best draw level, is not wagered on.
    playable = (right_drawn > 0) & (wrong_drawn > 0) & (ahead + wrong_left > 0)
    returns = np.where(playable, (ahead + estimate) / np.maximum(ahead + wrong_left, 1), 0.0)
    capital = np.logaddexp.reduce(np.cumsum(np.log1p(-np.outer(STAKES, returns)), axis=1), axis=0) - math.log(len(STAKES))
    return bool((capital >= -math.log(error)).any())
