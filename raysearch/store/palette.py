"""Colours with a meaning, the same in the report, in the comparison's page and in MLflow's charts.

Chosen so that they stay apart for people who do not tell red from green: blue against orange, and dark against pale.
"""

from __future__ import annotations

CHAMPION, FRONT = "#b3260b", "#d08700"
"""The champion, and the candidates that no other beats in score and size."""
EARLY, MIDDLE, LATE = "#c9dcf0", "#5b8fc7", "#12365e"
"""Candidates, from the first generation to the last: pale to dark. Dark enough at the pale end to stay visible on white."""


def between(share: float) -> str:
    """The colour of a candidate so far on the way from the first generation (0) to the last (1)."""
    first, second, part = (EARLY, MIDDLE, 2 * share) if share < 0.5 else (MIDDLE, LATE, 2 * share - 1)
    mixed = [round((1 - part) * int(first[i : i + 2], 16) + part * int(second[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{value:02x}" for value in mixed)
