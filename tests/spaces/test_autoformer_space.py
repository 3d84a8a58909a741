"""Published spaces, subnets and their costs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from raysearch.spaces.autoformer import (
    PUBLISHED_BASE,
    PUBLISHED_SMALL,
    PUBLISHED_TINY,
    AutoFormerArchitecture,
    AutoFormerGeometry,
    AutoFormerSpace,
    AutoFormerSupernet,
)

TINY, SMALL, BASE = AutoFormerGeometry.tiny(), AutoFormerGeometry.small(), AutoFormerGeometry.base()


@pytest.mark.parametrize(
    ("space", "geometry", "size", "smallest", "largest"),
    [
        (AutoFormerSpace.tiny(), TINY, 3 * (4**12 + 4**13 + 4**14), 5_366_056, 10_517_272),
        (AutoFormerSpace.small(), SMALL, 3 * (9**12 + 9**13 + 9**14), 13_057_320, 34_790_440),
        (AutoFormerSpace.base(), BASE, 3 * (9**14 + 9**15 + 9**16), 39_792_856, 76_882_264),
    ],
)
def test_published_spaces(space: AutoFormerSpace, geometry: AutoFormerGeometry, size: int, smallest: int, largest: int) -> None:
    assert space.size() == size
    assert geometry.cost(space.smallest()).params == smallest
    assert geometry.cost(space.largest()).params == largest


def test_few_tokens_are_remarked() -> None:
    (words,) = AutoFormerGeometry.tiny(img_size=64).remarks()
    assert "64 pixels in patches of 16 are 4 x 4 tokens" in words
    assert not [*TINY.remarks(), *AutoFormerGeometry.tiny(img_size=8, patch_size=2).remarks()]


def test_preset_takes_other_options() -> None:
    space = AutoFormerSpace.tiny(mlp_ratio=(3, 3.5, 4))
    assert space.contains(PUBLISHED_TINY)
    assert not AutoFormerSpace.tiny().contains(PUBLISHED_TINY)
    assert AutoFormerSpace.small().contains(PUBLISHED_SMALL)
    assert AutoFormerSpace.base().contains(PUBLISHED_BASE)
    assert space == AutoFormerSpace.tiny(mlp_ratio=(4.0, 3.0, 3.5))


@pytest.mark.parametrize(
    ("geometry", "arch", "params", "gmacs", "gmacs_without"),
    [
        (AutoFormerGeometry.tiny, PUBLISHED_TINY, 5_867_944, 1.482, 1.283),
        (AutoFormerGeometry.small, PUBLISHED_SMALL, 22_891_432, 5.161, 4.774),
        (AutoFormerGeometry.base, PUBLISHED_BASE, 53_691_688, 11.691, 11.045),
    ],
    ids=["tiny", "small", "base"],
)
def test_published_subnets(geometry, arch: AutoFormerArchitecture, params: int, gmacs: float, gmacs_without: float) -> None:
    cost = geometry().cost(arch)
    assert cost.params == params
    assert round(cost.macs / 1e9, 3) == gmacs
    plain = geometry(relative_position=False)
    assert round(plain.cost(arch).macs / 1e9, 3) == gmacs_without
    # torch counts the same products on the extracted subnet, two operations each; shapes alone matter.
    with torch.device("meta"):
        subnet = AutoFormerSupernet(**plain.settings()).extract(arch)
        images = torch.empty(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter:
        subnet(images)
    assert counter.get_total_flops() == 2 * plain.cost(arch).macs


def test_architecture_is_a_value() -> None:
    arch = AutoFormerArchitecture(embed_dim=192, num_heads=(3, 4), mlp_ratio=(4, 3.5))
    same = AutoFormerArchitecture.from_json('{"embed_dim": 192.0, "num_heads": [3, 4.0], "mlp_ratio": [4.0, 3.5]}')
    assert arch == same
    assert (hash(arch), arch.id, arch.depth) == (hash(same), same.id, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": (3,)}, "1 num_heads but 2 mlp_ratio"),
        ({"num_heads": (), "mlp_ratio": ()}, "at least one block"),
        ({"embed_dim": 0}, "embed_dim is 0"),
        ({"num_heads": (3, 0)}, r"num_heads\[1\] is 0"),
        ({"mlp_ratio": (4, -1)}, r"mlp_ratio\[1\] is -1"),
        ({"embed_dim": 192.5}, "embed_dim is 192.5, not int"),
    ],
)
def test_impossible_architecture_is_refused(change: dict[str, object], message: str) -> None:
    values = {"embed_dim": 192, "num_heads": (3, 3), "mlp_ratio": (4, 4)} | change
    with pytest.raises(ValueError, match=message):
        AutoFormerArchitecture(**values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"img_size": 30}, "img_size 30 is not a multiple of patch_size 16"),
        ({"depth": 0}, "depth is 0"),
        ({"global_pool": "max"}, "global_pool is 'max'"),
        ({"max_relative_position": -1}, "max_relative_position is -1"),
        ({"mlp_ratio": 0.001}, "mlp_ratio is 0.001"),
    ],
)
def test_impossible_geometry_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AutoFormerGeometry(**change)
