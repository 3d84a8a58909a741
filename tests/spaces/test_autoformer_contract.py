"""AutoFormer passes what every family passes, with relative position and without."""

from dataclasses import replace
from typing import Any

from contract import FamilyContract
from torch import nn

from raysearch.spaces.autoformer import (
    FAMILY,
    AutoFormerArchitecture,
    AutoFormerConfig,
    AutoFormerGeometry,
    AutoFormerSubnet,
    SpaceConfig,
    SupernetSizes,
)
from raysearch.tasks import Ends

SPACE = SpaceConfig(embed_dim=(12, 16, 24), num_heads=(1, 2, 3), mlp_ratio=(1.0, 2.5), depth=(1, 2, 3))
SIZES = SupernetSizes(
    patch_size=4,
    embed_dim=24,
    depth=3,
    num_heads=3,
    mlp_ratio=2.5,
    head_dim=8,
    max_relative_position=1,
    relative_position=False,
)


class TestWithoutRelativePosition(FamilyContract):
    FAMILY = FAMILY
    CONFIG = AutoFormerConfig(SPACE, SIZES)
    ENDS = Ends((1, 12, 12), 7)


class TestWithRelativePosition(FamilyContract):
    FAMILY = FAMILY
    CONFIG = AutoFormerConfig(SPACE, replace(SIZES, relative_position=True))
    ENDS = Ends((3, 12, 12), 7)

    def macs(self, arch: AutoFormerArchitecture, subnet: nn.Module) -> int:
        """Its products are counted as the published formula reads, once per pair of tokens, and computed with fewer."""
        settings: dict[str, Any] = {**self.geometry.settings, "relative_position": False}
        geometry = AutoFormerGeometry(**settings)
        widths = sum(heads * geometry.head_dim for heads in arch.num_heads)
        return super().macs(arch, AutoFormerSubnet(geometry, arch).eval()) + 2 * geometry.tokens**2 * widths
