"""How sure an accuracy is, in the words of a page."""

from __future__ import annotations

from raysearch.store.scores import Scale


def share_interval(right: int, of: int, *, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson 1934) from its number of right answers, at least one asked."""
    from scipy.special import betaincinv  # half a second to import

    tail = (1 - level) / 2
    low = 0.0 if right == 0 else float(betaincinv(right, of - right + 1, tail))
    high = 1.0 if right == of else float(betaincinv(right + 1, of - right, 1 - tail))
    return low, high


def share_words(right: int, of: int) -> str:
    """The 95 % interval of a share, as ``97.1 to 99.5``."""
    low, high = share_interval(right, of)
    return f"{100 * low:.1f} to {100 * high:.1f}"


def score_words(score: float | None, items: int | None, scale: Scale) -> str:
    """The 95 % interval of a score over so many items; empty where it is no share, or where there is none."""
    if score is None or not items or not scale.is_share:
        return ""
    return share_words(round(score * items), items)
