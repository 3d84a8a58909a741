"""All architectures that a declaration allows, and everything that a search asks of them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Any, Generic, TypeVar, cast

from raysearch.errors import UserError
from raysearch.space.architecture import Architecture, field_types
from raysearch.space.choice import Choice, MutationRates, Option, depth_options, last

A = TypeVar("A", bound=Architecture)
T = TypeVar("T")


@dataclass(slots=True)
class _Genes:
    """An architecture taken apart: what mutation and crossover work on. Absent blocks hold no values."""

    net: dict[str, Option] = field(default_factory=dict[str, Option])
    stage: dict[str, list[Option]] = field(default_factory=dict[str, list[Option]])
    blocks: list[list[dict[str, Option] | None]] = field(default_factory=list[list[dict[str, Option] | None]])


class SearchSpace(Generic[A]):
    """All architectures that a declaration allows.

    Args:
        architecture: the dataclass to build; its fields are the names of the choices. Depth is not a field: it is the length of
            the per-block values.
        choices: the decisions, in the order in which they are drawn.
        depth: options for the number of blocks, as ``(12, 13, 14)``; one tuple per stage for a staged net. Per-block values are
            then one tuple, or one tuple per stage.
        stages: number of stages of a net that has per-stage choices but no depth.
        skippable: positions (0-based) of blocks that may be left out, whatever the stage; the values of a block that is
            left out are None.

    """

    def __init__(
        self,
        architecture: type[A],
        choices: Sequence[Choice],
        *,
        depth: Sequence[int] | Sequence[Sequence[int]] | None = None,
        stages: int | None = None,
        skippable: Sequence[int] = (),
    ) -> None:
        self.architecture = architecture
        self.choices = tuple(choices)
        self.staged = stages is not None or (depth is not None and isinstance(depth[0] if len(depth) else 0, Sequence))
        self._depths = depth_options(depth, staged=self.staged)
        if stages is not None and depth is not None and stages != len(self._depths):
            raise UserError(f"{stages} stages, but depth is given for {len(self._depths)}")
        self.stages = len(self._depths) if depth is not None else (stages or 1)
        self.skippable = frozenset(skippable)
        # A tied choice is decided as one of the whole net; only in an architecture it stands at each block.
        self._net = [c for c in self.choices if c.per == "net" or c.tied]
        self._stage = [c for c in self.choices if c.per == "stage"]
        self._block = [c for c in self.choices if c.per == "block" and not c.tied]
        self._at_blocks = [c for c in self.choices if c.per == "block"]
        self._check()

    def _check(self) -> None:
        names = [c.name for c in self.choices]
        expected = list(field_types(self.architecture))
        if sorted(names) != sorted(expected):
            raise UserError(f"choices {sorted(names)} are not the fields {sorted(expected)} of {self.architecture.__name__}")
        if bool(self._depths) != bool(self._at_blocks):
            raise UserError("a depth and per-block choices go together: one is declared without the other")
        if self._stage and not self.staged:
            raise UserError(f"{self._stage[0].name} is taken per stage, but the space has no stages")
        for choice in self.choices:
            if choice.by_stage and len(choice.options) != self.stages:
                raise UserError(f"{choice.name} has options for {len(choice.options)} stages, the space has {self.stages}")
        if self._at_blocks and "depth" in names:
            raise UserError("depth is the number of blocks here and no choice's name; choose another")
        if self.skippable and "skip" in names:
            raise UserError("skip tells of skippable blocks here and is no choice's name; choose another")
        deepest = max((d[-1] for d in self._depths), default=0)
        if any(not 0 <= position < deepest for position in self.skippable):
            raise UserError(f"skippable blocks {sorted(self.skippable)} are not all within depth {deepest}")

    @property
    def depth(self) -> tuple[int, ...] | tuple[tuple[int, ...], ...]:
        """The depth options as declared: one tuple, or one per stage; empty when the space has no blocks."""
        return self._depths if self.staged else (self._depths[0] if self._depths else ())

    def __eq__(self, other: object) -> bool:
        """Equal declarations are equal spaces."""
        return isinstance(other, SearchSpace) and self.to_dict() == cast(SearchSpace[Any], other).to_dict()

    def __hash__(self) -> int:
        """Hash of the declaration."""
        return hash(json.dumps(self.to_dict(), sort_keys=True))

    def __repr__(self) -> str:
        """The declaration on one line."""
        return f"{type(self).__name__}({json.dumps(self.to_dict())})"

    def to_dict(self) -> dict[str, Any]:
        """The declaration as JSON values, to be stored beside weights and results."""
        return {
            "architecture": self.architecture.__name__,
            "choices": [
                {"name": c.name, "options": c.options, "per": c.per, **({"tied": True} if c.tied else {})} for c in self.choices
            ],
            "depth": self.depth,
            "stages": self.stages if self.staged else None,
            "skippable": sorted(self.skippable),
        }

    # --- taking apart and putting together ---

    def _build(self, genes: _Genes) -> A:
        values: dict[str, Any] = {**genes.net, **{name: tuple(v) for name, v in genes.stage.items()}}
        for choice in self._at_blocks:
            rows = tuple(
                tuple(None if b is None else (genes.net if choice.tied else b)[choice.name] for b in blocks)
                for blocks in genes.blocks
            )
            values[choice.name] = rows if self.staged else rows[0]
        return self.architecture(**values)

    def _genes(self, arch: A) -> _Genes:
        """Raises UserError when the shape of ``arch`` is not this space's."""
        genes = _Genes()
        for choice in self._net:
            if not choice.tied:
                genes.net[choice.name] = getattr(arch, choice.name)
        for choice in self._stage:
            values = getattr(arch, choice.name)
            if len(values) != self.stages:
                raise UserError(f"{choice.name} has {len(values)} stages, not {self.stages}")
            genes.stage[choice.name] = list(values)
        if not self._at_blocks:
            return genes
        rows = {c.name: getattr(arch, c.name) if self.staged else (getattr(arch, c.name),) for c in self._at_blocks}
        for name, stages in rows.items():
            if len(stages) != self.stages:
                raise UserError(f"{name} has {len(stages)} stages, not {self.stages}")
        for s in range(self.stages):
            lengths = {len(stages[s]) for stages in rows.values()}
            if len(lengths) != 1:
                raise UserError(f"per-block choices disagree about the depth: {sorted(lengths)}")
            blocks: list[dict[str, Option] | None] = []
            for b in range(lengths.pop()):
                block = {name: stages[s][b] for name, stages in rows.items()}
                absent = [v is None for v in block.values()]
                if any(absent) and not all(absent):
                    raise UserError(f"block {b} is left out by some choices only: {block}")
                blocks.append(None if all(absent) else cast(dict[str, Option], block))
            genes.blocks.append(blocks)
        for choice in self._at_blocks:
            if choice.tied:
                self._untie(choice, genes)
        return genes

    def _untie(self, choice: Choice, genes: _Genes) -> None:
        """Take the one value of a tied choice out of all blocks. Raises UserError where there is more than one."""
        found = [block.pop(choice.name) for blocks in genes.blocks for block in blocks if block is not None]
        if len({*found}) > 1:
            raise UserError(f"{choice.name} is {', '.join(map(str, dict.fromkeys(found)))}, but tied: the same in all blocks")
        genes.net[choice.name] = found[0] if found else choice.at(0)[0]

    def _random_block(self, stage: int, position: int, rng: Random) -> dict[str, Option] | None:
        if position in self.skippable and rng.random() < 0.5:
            return None
        return {c.name: rng.choice(c.at(stage)) for c in self._block}

    # --- what a search asks of a space ---

    def sample(self, rng: Random) -> A:
        """A random architecture: every choice uniform over its options (Chen et al., ICCV 2021, section 3.3)."""
        genes = _Genes()
        for choice in self._net:
            genes.net[choice.name] = rng.choice(choice.at(0))
        for choice in self._stage:
            genes.stage[choice.name] = [rng.choice(choice.at(s)) for s in range(self.stages)]
        for s, depths in enumerate(self._depths):
            genes.blocks.append([self._random_block(s, b, rng) for b in range(rng.choice(depths))])
        return self._build(genes)

    def mutate(self, arch: A, rng: Random, rates: MutationRates | None = None) -> A:
        """A neighbour of ``arch``: depth, then each block's choices, then the net's, each redrawn with its rate.

        Published rule (REFERENCE, evolution): a cut keeps the prefix, growth appends random blocks, and a redraw may return the
        old value, so the result can equal ``arch``. A skippable block is left out or put back at the block rate.
        """
        rates = rates or MutationRates()
        genes = self._genes(arch)
        for s, depths in enumerate(self._depths):
            blocks = genes.blocks[s]
            if rng.random() < rates.depth:
                depth = rng.choice(depths)
                blocks[depth:] = []
                blocks.extend(self._random_block(s, b, rng) for b in range(len(blocks), depth))
            for b, block in enumerate(blocks):
                if b in self.skippable and rng.random() < rates.block:
                    blocks[b] = self._random_block(s, b, rng)
                elif block is not None:
                    for choice in self._block:
                        if rng.random() < rates.block:
                            block[choice.name] = rng.choice(choice.at(s))
        for choice in self._stage:
            for s in range(self.stages):
                if rng.random() < rates.net:
                    genes.stage[choice.name][s] = rng.choice(choice.at(s))
        for choice in self._net:
            if rng.random() < rates.net:
                genes.net[choice.name] = rng.choice(choice.at(0))
        return self._build(genes)

    def crossover(self, a: A, b: A, rng: Random) -> A:
        """A child of two architectures: a fair coin decides each value (Chen et al., ICCV 2021, evolution).

        Where depths differ (the published search pairs equal depths), the coin also decides the depth, and a block that one
        parent lacks comes from the other.
        """
        left, right = self._genes(a), self._genes(b)
        child = _Genes()
        child.net = {name: _coin(rng, value, right.net[name]) for name, value in left.net.items()}
        child.stage = {
            name: [_coin(rng, x, y) for x, y in zip(values, right.stage[name], strict=True)]
            for name, values in left.stage.items()
        }
        for one, two in zip(left.blocks, right.blocks, strict=True):
            depth = _coin(rng, len(one), len(two))
            blocks: list[dict[str, Option] | None] = []
            for x, y in itertools.islice(itertools.zip_longest(one, two, fillvalue=...), depth):
                if x is ... or y is ...:
                    only = cast("dict[str, Option] | None", y if x is ... else x)
                    blocks.append(None if only is None else dict(only))
                elif x is None or y is None:
                    picked = _coin(rng, x, y)
                    blocks.append(None if picked is None else dict(picked))
                else:
                    blocks.append({name: _coin(rng, value, y[name]) for name, value in x.items()})
            child.blocks.append(blocks)
        return self._build(child)

    def contains(self, arch: Architecture) -> bool:
        """Whether ``arch`` is one that the declaration allows."""
        if not isinstance(arch, self.architecture):
            return False
        try:
            genes = self._genes(arch)
        except (ValueError, TypeError):
            return False
        return (
            all(genes.net[c.name] in c.at(0) for c in self._net)
            and all(v in c.at(s) for c in self._stage for s, v in enumerate(genes.stage[c.name]))
            and all(len(blocks) in self._depths[s] for s, blocks in enumerate(genes.blocks))
            and all(
                b in self.skippable if block is None else all(block[c.name] in c.at(s) for c in self._block)
                for s, blocks in enumerate(genes.blocks)
                for b, block in enumerate(blocks)
            )
        )

    def smallest(self) -> A:
        """The first option of every choice, the least depth, all skippable blocks left out."""
        return self._extreme(lambda options: options[0], skip=True)

    def largest(self) -> A:
        """The last option of every choice, the greatest depth, no block left out."""
        return self._extreme(lambda options: options[-1], skip=False)

    def widened(self, share: float) -> SearchSpace[A]:
        """The part of the space near :meth:`largest`: of every choice, of depth too, a ``share`` of the options, the last ones.

        Of each at least one, so that 0 leaves the largest alone; 1 leaves nothing out. A block may be skipped, which is its
        other option, from one half on. Training that widens its choices draws from here (as Cai et al. 2020, "Once-for-all",
        which shrinks one kind of choice after the other).
        """
        depths = tuple(last(options, share) for options in self._depths)
        return SearchSpace(
            self.architecture,
            [choice.widened(share) for choice in self.choices],
            depth=None if not depths else depths if self.staged else depths[0],
            stages=self.stages if self.staged and not depths else None,
            skippable=sorted(self.skippable) if len(last((True, False), share)) == 2 else (),
        )

    def _extreme(self, pick: Callable[[tuple[Any, ...]], Any], *, skip: bool) -> A:
        genes = _Genes(
            net={c.name: pick(c.at(0)) for c in self._net},
            stage={c.name: [pick(c.at(s)) for s in range(self.stages)] for c in self._stage},
            blocks=[
                [
                    None if skip and b in self.skippable else {c.name: pick(c.at(s)) for c in self._block}
                    for b in range(pick(depths))
                ]
                for s, depths in enumerate(self._depths)
            ],
        )
        return self._build(genes)

    # --- as a flat list of decisions, for what knows no spaces: Tune's searchers, regressors ---

    @cached_property
    def param_space(self) -> dict[str, tuple[Option, ...]]:
        """Every decision by name with its options: ``depth``, ``width``, ``heads.3`` for block 3.

        Blocks are declared up to the greatest depth, and a staged net's names hold the stage: ``depth.1``, ``heads.1.3``.
        A skippable block has ``skip.3`` with False and True.
        """
        found: dict[str, tuple[Option, ...]] = {c.name: c.at(0) for c in self._net}
        found |= {f"{c.name}.{s}": c.at(s) for c in self._stage for s in range(self.stages)}
        for s, depths in enumerate(self._depths):
            stage = f".{s}" if self.staged else ""
            found[f"depth{stage}"] = depths
            for b in range(depths[-1]):
                if b in self.skippable:
                    found[f"skip{stage}.{b}"] = (False, True)
                found |= {f"{c.name}{stage}.{b}": c.at(s) for c in self._block}
        return found

    def to_params(self, arch: A) -> dict[str, Option]:
        """The decisions of :attr:`param_space` that ``arch`` takes: none for blocks that it lacks."""
        genes = self._genes(arch)
        params: dict[str, Option] = dict(genes.net)
        params |= {f"{name}.{s}": value for name, values in genes.stage.items() for s, value in enumerate(values)}
        for s, blocks in enumerate(genes.blocks):
            stage = f".{s}" if self.staged else ""
            params[f"depth{stage}"] = len(blocks)
            for b, block in enumerate(blocks):
                if b in self.skippable:
                    params[f"skip{stage}.{b}"] = block is None
                params |= {f"{name}{stage}.{b}": value for name, value in (block or {}).items()}
        return params

    def from_params(self, params: Mapping[str, Option]) -> A:
        """The architecture of these decisions. Those for blocks beyond the depth, and for skipped ones, change nothing.

        Raises UserError for a decision that is missing or is none of its options.
        """

        def decided(name: str) -> Option:
            if name not in params or params[name] not in self.param_space[name]:
                given = repr(params[name]) if name in params else "missing"
                raise UserError(f"{name} is {given}; give one of {self.param_space[name]}")
            return params[name]

        genes = _Genes(
            net={c.name: decided(c.name) for c in self._net},
            stage={c.name: [decided(f"{c.name}.{s}") for s in range(self.stages)] for c in self._stage},
        )
        for s in range(len(self._depths)):
            stage = f".{s}" if self.staged else ""
            genes.blocks.append(
                [
                    None
                    if b in self.skippable and decided(f"skip{stage}.{b}")
                    else {c.name: decided(f"{c.name}{stage}.{b}") for c in self._block}
                    for b in range(int(decided(f"depth{stage}")))
                ]
            )
        return self._build(genes)

    def features(self, arch: A) -> tuple[float, ...]:
        """``arch`` as numbers for a regressor: of the same length and meaning throughout the space, different for each member.

        Each decision gives one 0 or 1 per option and, where options are numbers, the value scaled to 0..1. A decision that
        ``arch`` does not take gives zeros; one of a single option gives nothing.
        """
        params, found = self.to_params(arch), list[float]()
        for name, columns in self._columns.items():
            taken = params.get(name)
            found += columns[taken] if taken is not None else [0.0] * len(columns[self.param_space[name][0]])
        return tuple(found)

    @cached_property
    def _columns(self) -> dict[str, dict[Option, list[float]]]:
        """For each decision, and each of its options, the numbers that :meth:`features` gives."""
        columns: dict[str, dict[Option, list[float]]] = {}
        for name, options in self.param_space.items():
            if len(options) == 1:
                continue
            columns[name] = {option: [float(option == other) for other in options] for option in options}
            numbers = [o for o in options if isinstance(o, int | float) and not isinstance(o, bool)]
            if len(numbers) == len(options):
                for number in numbers:
                    columns[name][number].append((number - numbers[0]) / (numbers[-1] - numbers[0]))
        return columns

    def size(self) -> int:
        """The exact number of architectures in the space."""
        total = math.prod(len(c.at(0)) for c in self._net)
        total *= math.prod(len(c.at(s)) for c in self._stage for s in range(self.stages))
        for s, depths in enumerate(self._depths):
            block = math.prod(len(c.at(s)) for c in self._block)
            total *= sum(math.prod(block + (b in self.skippable) for b in range(depth)) for depth in depths)
        return total

    def __iter__(self) -> Iterator[A]:
        """Every architecture once, in a fixed order. Only for spaces small enough to list; see :meth:`size`."""
        nets = itertools.product(*(c.at(0) for c in self._net))
        stages = itertools.product(*(c.at(s) for c in self._stage for s in range(self.stages)))
        bodies = itertools.product(*(tuple(self._bodies(s)) for s in range(len(self._depths))))
        for net, stage, body in itertools.product(nets, stages, bodies):
            genes = _Genes(net={c.name: v for c, v in zip(self._net, net, strict=True)})
            for i, choice in enumerate(self._stage):
                genes.stage[choice.name] = list(stage[i * self.stages : (i + 1) * self.stages])
            genes.blocks = [list(blocks) for blocks in body]
            yield self._build(genes)

    def _bodies(self, stage: int) -> Iterator[tuple[dict[str, Option] | None, ...]]:
        """Every sequence of blocks that ``stage`` can have."""
        names = [c.name for c in self._block]
        present = [dict(zip(names, v, strict=True)) for v in itertools.product(*(c.at(stage) for c in self._block))]
        for depth in self._depths[stage]:
            yield from itertools.product(*([None, *present] if b in self.skippable else present for b in range(depth)))


def _coin(rng: Random, a: T, b: T) -> T:
    return a if rng.random() < 0.5 else b
