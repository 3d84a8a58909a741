"""A search in one process: what Ray does for a cluster, for tests, benchmarks and scores that take no time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from raysearch.search.protocol import Failure, Result, SearchAlgorithm
from raysearch.space import Architecture


def run(
    algorithm: SearchAlgorithm, score: Callable[[Any], Result | Failure]
) -> Iterator[tuple[Architecture, Result | Failure]]:
    """Ask, score and tell, one candidate after the other, until the algorithm has finished.

    Lazily: a candidate is asked when the one before is told and taken, so a caller may stop at any of them and go on later.

    Args:
        algorithm: proposes; it may have been told of candidates before.
        score: of an architecture of the algorithm's space.

    Yields:
        Each candidate with its outcome, when it is told.

    """
    while (arch := algorithm.ask()) is not None:
        outcome = score(arch)
        algorithm.tell(arch, outcome)
        yield arch, outcome
    assert algorithm.finished, "candidates that were asked before were never told"
