"""How a score is called and written: the one place where a number becomes "98.75 %" or "-0.01234"."""

from __future__ import annotations

from dataclasses import dataclass

from raysearch.search.protocol import Kind

NONE = "–"  # noqa: RUF001  # a dash in a table
"""What stands for a score that nobody took."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A task's score as people read it: a share of right answers in per cent, the mean of float outcomes with four digits."""

    name: str = "accuracy"
    """What the score is called."""
    kind: Kind = "bits"
    """Of the outcomes whose mean it is."""

    @property
    def is_share(self) -> bool:
        """Whether scores are shares of 1; else any numbers, as a negative error."""
        return self.kind == "bits"

    def text(self, score: float | None, *, unit: str = " %") -> str:
        """A score; :data:`NONE` where there is none. ``unit``: how per cent is written."""
        if score is None:
            return NONE
        return f"{100 * score:.2f}{unit}" if self.is_share else f"{score:.4g}"

    def difference(self, value: float, *, sign: str = "") -> str:
        """A difference of two scores, in points of a per cent for shares. ``sign`` "+": with its sign."""
        return f"{100 * value:{sign}.2f}" if self.is_share else f"{value:{sign}.4g}"

    @property
    def points(self) -> str:
        """The unit that follows a difference, with its space; none for scores that are no shares."""
        return " points" if self.is_share else ""

    def titled(self, words: str) -> str:
        """``words``, as "search score", with the score's name where per cent do not tell what is meant."""
        return words if self.is_share else f"{words} ({self.name})"
