"""Where the champion stands among all candidates, in words: on the front or off it, and who is as good within the error."""

from __future__ import annotations

from collections.abc import Sequence

from raysearch.report.pictures import SIZES, front_rows, size_text
from raysearch.report.tables import WORDS
from raysearch.statistics import share_interval
from raysearch.store.candidates import CandidateRow
from raysearch.store.scores import Scale
from raysearch.store.summary import Finalists


def choice_words(finalists: Finalists) -> str:
    """By what the champion was chosen, where it was not by the scores of the search."""
    if not finalists.images or finalists.best is None:
        return ""
    unit = WORDS[finalists.quantity]
    rule = {
        "cheapest": f"has the fewest {unit} of all finalists that the best of the search does not beat",
        "best": "has the highest score of all finalists",
    }[finalists.choose]
    return (
        f"It was not chosen by this picture's scores: it {rule} on {finalists.images:,} images on which nobody had been chosen."
    )


def standing_lines(
    champion: CandidateRow, scored: Sequence[CandidateRow], scale: Scale, *, size: str, chosen: str | None = None
) -> list[str]:
    """Sentences about the champion's place in the picture of score against this one of :data:`SIZES`.

    ``chosen``: the sentence that says how it was chosen; it explains a place off the front.
    """
    unit, value = SIZES[size]
    own, score = value(champion), champion.score
    if own is None or score is None:
        return []
    known = [(row, row.score, v) for row in scored if row.score is not None and (v := value(row)) is not None]
    smaller = sorted((v, -s, row.id) for row, s, v in known if v < own and s >= score and row.id != champion.id)
    fewer = "less" if size == "latency" else "fewer"
    front = front_rows(scored, size)
    # Of networks equal in both the front names one, which need not be the champion.
    on_front = any(row.id == champion.id or (value(row), row.score) == (own, score) for row in front)
    lines: list[str] = []
    if on_front:
        lines.append(f"The champion (star) is on the front: nothing has a higher search score with as few {unit}.")
    elif smaller:
        least, negative, arch = smaller[0]
        times = f", {own / least:.1f} times {fewer}" if own >= 1.1 * least else ""
        lines.append(
            f"The champion (star) is not on the front: it has {size_text(own, size)}, and {_networks(len(smaller))} at least "
            f"its search score ({scale.text(score)}) with {fewer}; the smallest of them, {arch}, has "
            f"{size_text(least, size)}{times} at {scale.text(-negative)}."
        )
    else:
        lines.append(f"The champion (star) is not on the front: another network has a higher search score with as few {unit}.")
    if chosen and not on_front:
        lines.append(chosen)
    if scale.is_share:
        sure = share_interval(round(score * champion.images_seen), champion.images_seen)
        inside = sum(
            v < own and sure.low <= row.score <= sure.high
            for row in front
            if row.id != champion.id and row.score is not None and (v := value(row)) is not None
        )
        interval = f"{100 * sure.low:.1f} to {100 * sure.high:.1f} % on {champion.images_seen:,} images"
        if inside:
            lines.append(
                f"{_networks(inside, of='on the front')} {fewer} {unit} and a search score within the champion's 95 % interval "
                f"({interval}): these images alone do not tell such networks from the champion."
            )
        else:
            lines.append(
                f"No network on the front has {fewer} {unit} and a search score within the champion's 95 % interval "
                f"({interval})."
            )
    return lines


def _networks(count: int, *, of: str = "") -> str:
    named = f"{count:,} network{'s' * (count != 1)}{f' {of}' if of else ''}"
    return f"{named} {'has' if count == 1 else 'have'}"
