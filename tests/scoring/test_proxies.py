"""Zero-cost proxies of subnets, and the architectures that they propose."""

import copy
from random import Random

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raysearch.scoring.proxies import PROXIES, grad_norm, proxy_best, snip
from raysearch.search import SearchProblem
from raysearch.space.cost import Constraint
from raysearch.spaces.autoformer import AutoFormerGeometry, AutoFormerSpace, AutoFormerSupernet

GEOMETRY = AutoFormerGeometry(
    img_size=8, patch_size=4, in_chans=1, num_classes=3, embed_dim=16, depth=3, num_heads=2, mlp_ratio=2.0, head_dim=8
)
SPACE = AutoFormerSpace(embed_dim=(8, 12, 16), num_heads=(1, 2), mlp_ratio=(1.0, 2.0), depth=(1, 2, 3))


@pytest.fixture(scope="module")
def supernet() -> AutoFormerSupernet:
    net = AutoFormerSupernet(**GEOMETRY.settings())
    net.reset_parameters(weight_init="xavier", pos_embed_std=0.2, generator=torch.Generator().manual_seed(0))
    return net.eval()


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 1, 8, 8, generator=generator), torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_judges_and_changes_nothing(name: str, supernet: AutoFormerSupernet, batch: tuple[Tensor, Tensor]):
    subnet = supernet.extract(SPACE.sample(Random(0)))
    before = copy.deepcopy(subnet.state_dict())
    value = PROXIES[name](subnet, *batch)
    assert value > 0
    assert value == PROXIES[name](subnet, *batch)
    assert all(torch.equal(tensor, before[key]) for key, tensor in subnet.state_dict().items())
    assert all(p.grad is None for p in subnet.parameters())
    values = {PROXIES[name](supernet.extract(SPACE.sample(Random(i))), *batch) for i in range(4)}
    assert len(values) > 2


def test_grad_norm_and_snip_are_those_of_autograd(supernet: AutoFormerSupernet, batch: tuple[Tensor, Tensor]):
    subnet: nn.Module = supernet.extract(SPACE.sample(Random(3)))
    again = copy.deepcopy(subnet)
    F.cross_entropy(again(batch[0]), batch[1]).backward()
    pairs = [(p, p.grad) for p in again.parameters() if p.grad is not None]
    assert grad_norm(subnet, *batch) == pytest.approx(float(torch.cat([g.flatten() for _, g in pairs]).norm()), rel=1e-5)
    assert snip(subnet, *batch) == pytest.approx(sum(float((p.detach() * g).abs().sum()) for p, g in pairs), rel=1e-5)


def test_the_best_by_proxy_open_a_search(supernet: AutoFormerSupernet, batch: tuple[Tensor, Tensor]):
    problem = SearchProblem(SPACE, GEOMETRY.cost, Constraint(max_params=6_000))
    best = proxy_best(problem, supernet, *batch, count=4, draws=12, seed=0)
    assert best == proxy_best(problem, supernet, *batch, count=12, draws=12, seed=0)[:4]
    assert len(set(best)) == 4
    assert all(problem.admits(arch) for arch in best)
    values = [snip(supernet.extract(arch), *batch) for arch in best]
    assert values == sorted(values, reverse=True)
    with pytest.raises(ValueError, match="count is 13, but only 12"):
        proxy_best(problem, supernet, *batch, count=13, draws=12, seed=0)
