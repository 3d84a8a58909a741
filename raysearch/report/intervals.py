"""How sure an accuracy is, in the words of a page."""

from __future__ import annotations

from raysearch.statistics import share_interval
from raysearch.store.scores import Scale


def share_words(right: int, of: int) -> str:
    """The 95 % interval of a share, as ``97.1 to 99.5``."""
    found = share_interval(right, of)
    return f"{100 * found.low:.1f} to {100 * found.high:.1f}"


def score_words(score: float | None, items: int | None, scale: Scale) -> str:
    """The 95 % interval of a score over so many items; empty where it is no share, or where there is none."""
    if score is None or not items or not scale.is_share:
        return ""
    return share_words(round(score * items), items)
