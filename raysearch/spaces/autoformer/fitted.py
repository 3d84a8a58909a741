"""AutoFormer spaces that fit a budget: choices, supernet and patch size for images of any size."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np

from raysearch.errors import UserError
from raysearch.space import Constraint, Cost
from raysearch.spaces.autoformer.config import AutoFormerConfig, SpaceConfig
from raysearch.spaces.autoformer.geometry import AutoFormerGeometry, SupernetSizes
from raysearch.spaces.autoformer.space import AutoFormerSpace
from raysearch.tasks.task import Ends

T = TypeVar("T")

ABOVE = 1.25
"""How far the largest subnet lies above the budget: the budget then cuts off the top of the space, not its middle."""
LARGE_IMAGE = 160
"""From this side on (pixels), images are cut into the published 14 x 14 patches; smaller ones into about 6 x 6."""
_PUBLISHED = (
    (AutoFormerSpace.tiny, AutoFormerGeometry.tiny),
    (AutoFormerSpace.small, AutoFormerGeometry.small),
    (AutoFormerSpace.base, AutoFormerGeometry.base),
)


def fitted(config: AutoFormerConfig, ends: Ends, budget: Constraint, given: Collection[str]) -> AutoFormerConfig:
    """The configuration whose subnets lie around ``budget``, for square images (chans, size, size).

    A published space is taken where it holds the budget; else widths, heads, ratios and depths are scaled until the largest
    subnet lies :data:`ABOVE` times the upper limits (or twice the lower ones, where only these are given). Settings named in
    ``given``, as ``space.depth``, stay as they are in ``config``, and the supernet grows to hold them.
    """
    size = ends.input_shape[-1]
    patch = config.net.patch_size if "net.patch_size" in given else _patch_size(size)
    scaled = _published(ends, budget, patch) if size >= LARGE_IMAGE else None
    if scaled is None:
        candidates = [_scaled(params, patch=patch, size=size) for params in np.geomspace(2e4, 2e8, 120)]
        scaled = min(candidates, key=lambda c: abs(math.log(_relative_size(c, ends, budget) / ABOVE)))
    space = _with_given(scaled.space, config.space, "space", given)
    needed = replace(
        scaled.net,
        embed_dim=max(space.embed_dim),
        depth=max(space.depth),
        num_heads=max(space.num_heads),
        mlp_ratio=max(space.mlp_ratio),
    )
    roomy = scaled.net if space == scaled.space else needed  # the published supernets are wider than their spaces
    return AutoFormerConfig(space, _with_given(roomy, config.net, "net", given))


def _patch_size(size: int) -> int:
    """The divisor of ``size`` that gives a grid nearest to the usual one. Raises UserError where none comes near."""
    grid = 14 if size >= LARGE_IMAGE else 6
    divisors = [patch for patch in range(1, size + 1) if size % patch == 0]
    patch = min(divisors, key=lambda patch: abs(math.log(size / patch / grid)))
    if not 0.5 <= size / patch / grid <= 2 and size > grid:
        near = max(grid, round(size / grid) * grid)
        raise UserError(
            f"--dataset.img-size is {size}, which no patch size divides well; take {near}, or give --net.patch-size"
        )
    return patch


def _published(ends: Ends, budget: Constraint, patch: int) -> AutoFormerConfig | None:
    """The smallest published space whose own range of sizes holds the upper limit on parameters."""
    limit = budget.max_params
    for space_of, net_of in _PUBLISHED:
        space, net = space_of(), net_of(patch_size=patch)
        config = AutoFormerConfig.published(space, net)
        geometry = config.geometry(ends)
        low, high = (geometry.cost(arch).params for arch in (space.smallest(), space.largest()))
        if limit is not None and low <= limit <= high:
            return config
    return None


def _scaled(params: float, *, patch: int, size: int) -> AutoFormerConfig:
    """A space whose largest subnet has about so many parameters: deeper and wider together, as the published ones are."""
    depth = round(float(np.interp(math.log10(params), (4.5, 5, 6, 6.75, 8), (3, 4, 6, 12, 15))))
    width = max(16, round(math.sqrt(params / (10.5 * depth)) / 8) * 8)
    head_dim = 32 if width < 192 else 64
    heads = max(1, round(width / head_dim))
    return AutoFormerConfig(
        SpaceConfig(
            embed_dim=_rising(max(8, round(width * share / 8) * 8) for share in (2 / 3, 5 / 6, 1)),
            num_heads=_rising(max(1, heads - less) for less in (2, 1, 0)),
            mlp_ratio=(2.0, 3.0, 4.0),
            depth=_rising(max(1, depth - less) for less in (2, 1, 0)),
        ),
        SupernetSizes(
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            mlp_ratio=4.0,
            head_dim=head_dim,
            max_relative_position=min(14, max(1, size // patch - 1)),
        ),
    )


def _rising(options: Any) -> tuple[int, ...]:
    return tuple(sorted(set(options)))


def _relative_size(config: AutoFormerConfig, ends: Ends, budget: Constraint) -> float:
    """The largest subnet against the budget: 1 where it just keeps the limit that it comes nearest to breaking."""
    geometry = config.geometry(ends)
    cost: Cost = geometry.cost(config.space.build().largest())
    pairs = ((cost.params, budget.max_params), (cost.macs, budget.max_macs))
    upper = [value / max(limit, 1) for value, limit in pairs if limit is not None]
    if upper:
        return max(upper)
    pairs = ((cost.params, budget.min_params), (cost.macs, budget.min_macs))
    lower = [value / max(limit, 1) / 2 for value, limit in pairs if limit is not None]
    return min(lower, default=1.0)


def _with_given(part: T, asked: T, group: str, given: Collection[str]) -> T:
    """``part`` with the fields of ``asked`` that are named in ``given`` as ``group.field``."""
    names = [f.name for f in fields(part) if f"{group}.{f.name}" in given]  # pyright: ignore[reportArgumentType]
    return replace(part, **{name: getattr(asked, name) for name in names})  # pyright: ignore[reportArgumentType, reportCallIssue]
