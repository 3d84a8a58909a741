"""Families that only the tests have pass the suite too: running statistics, and stages with skipped blocks and words."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from contract import FamilyContract
from torch import nn

from raysearch.spaces import find_family
from raysearch.tasks import Ends

SHARED = Path(__file__).parents[1] / "shared"
BATCHNORM = find_family(str(SHARED / "batchnorm_family.py"))
STAGED = find_family(str(SHARED / "staged_family.py"))


class TestStaged(FamilyContract):
    FAMILY = STAGED
    CONFIG = STAGED.config()
    ENDS = Ends((3, 8, 8), 4)

    def test_the_tests_see_a_block_left_out(self):
        assert any(None in blocks for arch in self.networks() for blocks in arch.hidden)


class TestBatchNorm(FamilyContract):
    FAMILY = BATCHNORM
    CONFIG = BATCHNORM.config()

    def supernet(self, drop_path_rate: float = 0.0) -> Any:
        """One that has seen some batches, each with another subnet: its statistics are a mixture."""
        built = super().supernet(drop_path_rate).train()
        with torch.no_grad():
            for i in range(4):
                built(2 * self.inputs(16) + 1, self.space.sample(Random(i)))
        return built.eval()

    def calibration(self) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(2)
        return [torch.randn(8, *self.ENDS.input_shape, generator=generator) for _ in range(3)]

    def test_statistics_are_those_of_the_calibration_inputs(self):
        supernet, batches = self.supernet(), self.calibration()
        before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
        for arch in self.networks():
            plain, calibrated = supernet.extract(arch), supernet.extract(arch, batches)
            assert not calibrated.training
            for name, (mean, variance) in reference(plain, batches).items():
                layer = calibrated.get_submodule(name)
                torch.testing.assert_close(layer.running_mean, mean, rtol=1e-5, atol=1e-6)
                torch.testing.assert_close(layer.running_var, variance, rtol=1e-5, atol=1e-6)
            with torch.no_grad():
                assert not torch.allclose(plain(self.inputs()), calibrated(self.inputs()), atol=1e-2)
            weights = dict(plain.named_parameters())
            assert all(torch.equal(weight, weights[name]) for name, weight in calibrated.named_parameters())
        assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items()), "it is shared memory"

    def test_calibration_again_changes_nothing(self):
        """An estimate of its own, not a step of a moving average from what was there."""
        supernet, batches, arch = self.supernet(), self.calibration(), self.space.largest()
        first = supernet.extract(arch, batches).state_dict()
        with torch.no_grad():
            for name, buffer in supernet.named_buffers():
                if "running" in name:
                    buffer.fill_(100.0)
        second = supernet.extract(arch, batches).state_dict()
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def reference(subnet: nn.Module, batches: list[torch.Tensor]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Mean and unbiased variance of what reaches each normalisation, by layer: means over the batches.

    While they are estimated each layer normalises a batch by the batch's own statistics.
    """
    seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def watch(name: str) -> Any:
        def keep(layer: nn.Module, inputs: tuple[torch.Tensor]) -> None:
            variance, mean = torch.var_mean(inputs[0].double(), dim=(0, 2, 3))
            seen.setdefault(name, []).append((mean.float(), variance.float()))

        return keep

    layers = {name: layer for name, layer in subnet.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    for layer in layers.values():
        layer.train()
        layer.momentum = 0.0  # its own statistics stay as they are
    with torch.no_grad():
        for batch in batches:
            subnet(batch)
    subnet.eval()
    for hook in hooks:
        hook.remove()
    assert layers.keys() == seen.keys()
    return {
        name: (torch.stack([m for m, _ in found]).mean(0), torch.stack([v for _, v in found]).mean(0))
        for name, found in seen.items()
    }


@pytest.mark.parametrize("family", [BATCHNORM, STAGED], ids=lambda family: family.name)
def test_it_is_the_users_own(family: Any):
    assert family.source.parent == SHARED
