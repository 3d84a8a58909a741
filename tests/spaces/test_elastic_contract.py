"""Elastic vision transformers pass what every family passes: every layout between them, and uniform blocks."""

from dataclasses import replace

from contract import FamilyContract

from raysearch.spaces.elastic_vit import FAMILY, ElasticConfig, NetConfig, SpaceConfig
from raysearch.tasks import Ends

SPACE = SpaceConfig(embed_dim=(12, 16, 24), num_heads=(1, 2, 3), hidden_features=(8, 20, 48), depth=(1, 2, 3))
NET = NetConfig(patch_size=(4, 4), embed_dim=24, depth=3, num_heads=3, head_dim=8, hidden_features=48)


class TestPlain(FamilyContract):
    FAMILY = FAMILY
    CONFIG = ElasticConfig(SPACE, NET)
    ENDS = Ends((3, 12, 12), 7)
    LACKS = frozenset({"reg_token"})


class TestWithEverything(FamilyContract):
    """Registers, LayerScale, norms at other places, images that are not square, and blocks of another order."""

    FAMILY = FAMILY
    CONFIG = ElasticConfig(
        SPACE,
        replace(
            NET,
            patch_size=(4, 2),
            registers=2,
            positions="patches",
            patch_bias=False,
            query_bias=False,
            layer_scale=True,
            first_norm=True,
            final_norm="after-pool",
            pool="avgmax",
            activation="quick_gelu",
            order=(2, 0, 1),
        ),
    )
    ENDS = Ends((1, 12, 8), 7)
    LACKS = frozenset({"q_bias"})


class TestUniform(FamilyContract):
    """As plain networks of timm's."""

    FAMILY = FAMILY
    CONFIG = ElasticConfig(SpaceConfig(uniform=True), replace(NET, class_token=False, pool="avg"))
    ENDS = Ends((3, 12, 12), 7)
    LACKS = frozenset({"reg_token", "cls_token"})

    def test_all_blocks_are_alike(self):
        for arch in self.networks():
            assert len({*arch.num_heads}) == len({*arch.hidden_features}) == 1
        # 4 hidden widths, 3 numbers of heads, 2 of channels, depths 2 and 3.
        assert self.space.size() == 4 * 3 * 2 * 2 == len({arch.id for arch in self.space})
