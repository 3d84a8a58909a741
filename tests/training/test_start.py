"""A training begins with the weights that it is given, on every process the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from raysearch.spaces.autoformer import FAMILY, AutoFormerArchitecture, AutoFormerSupernet
from raysearch.training.alone import Alone, network_to_train
from raysearch.training.config import TrainingConfig

SIZES: dict[str, Any] = {"img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 2, "embed_dim": 24, "depth": 3}
SETTINGS = {**SIZES, "num_heads": 2, "mlp_ratio": 2.0, "head_dim": 8, "max_relative_position": 1, "drop_path_rate": 0.0}
SMALL = AutoFormerArchitecture(embed_dim=16, num_heads=(2, 1), mlp_ratio=(1.0, 2.0))


def test_a_supernet_or_a_subnet_begins_with_given_or_fresh_weights() -> None:
    train, images = TrainingConfig(), torch.randn(2, 1, 8, 8)
    supernet = AutoFormerSupernet(**SETTINGS).eval()
    fresh = [network_to_train(FAMILY, SETTINGS, SMALL, train=train, seed=seed).state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(weight, fresh[1][name]) for name, weight in fresh[0].items())
    assert any(not torch.equal(weight, fresh[2][name]) for name, weight in fresh[0].items())

    inherited = supernet.extract(SMALL)
    alone = network_to_train(FAMILY, SETTINGS, SMALL, train=train, seed=1, start=inherited.state_dict())
    assert isinstance(alone, Alone)
    whole = network_to_train(FAMILY, SETTINGS, None, train=train, seed=1, start=supernet.state_dict())
    with torch.no_grad():
        assert torch.equal(alone.eval()(images, SMALL), inherited(images))
        assert torch.equal(whole.eval()(images, SMALL), supernet(images, SMALL))
    with pytest.raises(RuntimeError, match="Missing key"):
        network_to_train(FAMILY, SETTINGS, SMALL, train=train, seed=1, start={})
