"""A space with all that a declaration can hold: stages of their own depth, a block that may be left out, words and switches."""

from dataclasses import dataclass

from raysearch.space import Architecture, Choice, SearchSpace


@dataclass(frozen=True)
class Staged(Architecture):
    norm: str
    width: tuple[int, ...]
    downsample: tuple[str, ...]
    gated: tuple[bool, ...]
    kernel: tuple[tuple[int | None, ...], ...]
    mixer: tuple[tuple[str | None, ...], ...]


def staged_space() -> SearchSpace[Staged]:
    """Two stages of one to three blocks; the second block of each may be left out."""
    choices = [
        Choice("norm", ("layer", "batch")),
        Choice("width", ((16, 24), (32, 48, 64)), per="stage"),
        Choice("downsample", ("pool", "conv"), per="stage"),
        Choice("gated", (False, True), per="stage"),
        Choice("kernel", (3, 5, 7), per="block"),
        Choice("mixer", (("conv",), ("conv", "attention")), per="block"),
    ]
    return SearchSpace(Staged, choices, depth=((1, 2), (1, 2, 3)), skippable=(1,))
