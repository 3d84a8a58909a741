"""AutoFormer spaces made for a budget and an image size."""

from __future__ import annotations

import pytest

from raysearch.errors import UserError
from raysearch.space import Constraint, SearchProblem
from raysearch.spaces.autoformer import FAMILY, AutoFormerConfig, AutoFormerSpace, SpaceConfig, SupernetSizes
from raysearch.spaces.autoformer.fitted import fitted
from raysearch.tasks import Ends


def ends(size: int) -> Ends:
    return Ends((3, size, size), 9)


@pytest.mark.parametrize(
    ("size", "budget"),
    [
        (28, Constraint(max_params=1e5)),
        (32, Constraint(max_macs=20e6)),
        (48, Constraint(max_params=2e5)),
        (64, Constraint(max_params=1e6)),
        (64, Constraint(min_params=0.5e6, max_params=1e6)),
        (96, Constraint(max_params=3e6, max_macs=50e6)),
        (224, Constraint(max_params=1e6)),
        (224, Constraint(max_params=50e6, max_macs=10e9)),
    ],
)
def test_a_space_lies_around_its_budget(size: int, budget: Constraint) -> None:
    config = fitted(AutoFormerConfig(), ends(size), budget, ())
    geometry = FAMILY.build(config, ends(size))  # raises where supernet and space do not fit together
    assert not budget.admits(geometry.cost(geometry.space.largest()))  # the budget decides something
    assert not budget.exceeded_by(geometry.cost(geometry.space.smallest()))
    problem = SearchProblem(geometry.space, geometry.cost, budget)
    problem.check()
    assert size % config.net.patch_size == 0
    assert 6 <= size // config.net.patch_size <= 14


def test_a_lower_limit_alone_is_reached() -> None:
    config = fitted(AutoFormerConfig(), ends(64), Constraint(min_params=1e6), ())
    geometry = FAMILY.build(config, ends(64))
    assert geometry.cost(geometry.space.largest()).params > 1.5e6


@pytest.mark.parametrize(
    ("limit", "space"), [(6e6, AutoFormerSpace.tiny()), (23e6, AutoFormerSpace.small()), (54e6, AutoFormerSpace.base())]
)
def test_published_spaces_serve_the_budgets_that_they_hold(limit: float, space: AutoFormerSpace) -> None:
    config = fitted(AutoFormerConfig(), ends(224), Constraint(max_params=limit), ())
    assert config.space.build().to_dict() == space.to_dict()


def test_what_is_given_stays_and_the_supernet_grows_to_hold_it() -> None:
    asked = AutoFormerConfig(SpaceConfig(depth=(9, 10), embed_dim=(256, 300)), SupernetSizes(patch_size=4))
    given = ("space.depth", "space.embed_dim", "net.patch_size")
    config = fitted(asked, ends(64), Constraint(max_params=1e6), given)
    assert config.space.depth == (9, 10)
    assert config.space.embed_dim == (256, 300)
    assert config.net.patch_size == 4
    assert (config.net.depth, config.net.embed_dim) == (10, 300)
    FAMILY.build(config, ends(64))


def test_a_size_that_no_patch_divides_is_refused_with_one_that_does() -> None:
    with pytest.raises(UserError, match=r"--dataset.img-size is 61.*take 60"):
        fitted(AutoFormerConfig(), ends(61), Constraint(max_params=1e6), ())
