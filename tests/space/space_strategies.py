"""Random declarations of search spaces, with an Architecture dataclass built for each."""

from dataclasses import make_dataclass
from random import Random
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from raysearch.space import Architecture, Choice, SearchSpace

ints = st.lists(st.integers(-4, 64), min_size=1, max_size=3, unique=True)
floats = st.lists(st.sampled_from([0.5, 1, 1.5, 2, 3.5, 4]), min_size=1, max_size=3, unique=True)
words = st.lists(st.sampled_from(["conv", "attention", "pool", "gelu"]), min_size=1, max_size=3, unique=True)
flags = st.lists(st.booleans(), min_size=1, max_size=2, unique=True)
kinds = st.sampled_from([(int, ints), (float, floats), (str, words), (bool, flags)])


@st.composite
def spaces(draw: st.DrawFn, *, largest: int | None = None) -> SearchSpace[Any]:
    """Any declaration, of at most ``largest`` members if given."""
    staged = draw(st.booleans())
    with_blocks = draw(st.booleans())
    stages = draw(st.integers(1, 2 if largest else 3)) if staged else 1
    deepest = 2 if largest else 5
    depths = st.lists(st.integers(0, deepest), min_size=1, max_size=3, unique=True)
    depth: Any = None
    skippable: list[int] = []
    if with_blocks:
        depth = [draw(depths) for _ in range(stages)] if staged else draw(depths)
        reach = max(map(max, depth)) if staged else max(depth)
        if reach:
            skippable = draw(st.lists(st.integers(0, reach - 1), max_size=2, unique=True))
    pers = ["net", *(["stage"] if staged else []), *(["block"] if with_blocks else [])]
    choices: list[Choice] = []
    hints: list[tuple[str, Any]] = []
    # A space with blocks has at least one choice per block.
    wanted = ["block"] * with_blocks + draw(st.lists(st.sampled_from(pers), min_size=1, max_size=2 if largest else 4))
    for i, per in enumerate(wanted):
        kind, options = draw(kinds)
        by_stage = staged and per != "net" and draw(st.booleans())
        drawn: Any = tuple(tuple(draw(options)) for _ in range(stages)) if by_stage else tuple(draw(options))
        choices.append(Choice(f"choice_{i}", drawn, per=per))
        value: Any = kind
        if per == "stage":
            value = tuple[kind, ...]
        elif per == "block":
            blocks = tuple[kind | None if skippable else kind, ...]
            value = tuple[blocks, ...] if staged else blocks
        hints.append((f"choice_{i}", value))
    order = draw(st.permutations(range(len(choices))))
    architecture = make_dataclass("Drawn", hints, bases=(Architecture,), frozen=True)
    space = SearchSpace(
        architecture,
        [choices[i] for i in order],
        depth=depth,
        stages=stages if staged and depth is None else None,
        skippable=skippable,
    )
    if largest:
        assume(space.size() <= largest)
    return space


seeds = st.integers(0, 2**32).map(Random)
