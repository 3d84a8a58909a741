"""The supernet and the subnets that it gives."""

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from raysearch.spaces.autoformer import AutoFormerArchitecture, AutoFormerSubnet, AutoFormerSupernet

SIZES: dict[str, Any] = {
    "img_size": 12,
    "patch_size": 4,
    "in_chans": 1,
    "num_classes": 7,
    "embed_dim": 26,
    "depth": 4,
    "num_heads": 3,
    "mlp_ratio": 4.0,
    "head_dim": 8,
    "max_relative_position": 2,
    "drop_path_rate": 0.0,
}
ARCH = AutoFormerArchitecture(embed_dim=19, num_heads=(2, 3, 1), mlp_ratio=(3.5, 4, 0.3))

architectures = st.integers(1, 4).flatmap(
    lambda depth: st.builds(
        AutoFormerArchitecture,
        embed_dim=st.integers(5, 26),
        num_heads=st.tuples(*[st.integers(1, 3)] * depth),
        mlp_ratio=st.tuples(*[st.sampled_from([0.3, 1.0, 2.7, 3.5, 4.0])] * depth),
    )
)


def supernet(**sizes: Any) -> AutoFormerSupernet:
    """A small supernet of which every parameter matters."""
    net = AutoFormerSupernet(**(SIZES | sizes))
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.3, generator=generator)
    return net.eval()


def images(batch: int = 3) -> Tensor:
    return torch.randn(batch, 1, 12, 12, generator=torch.Generator().manual_seed(1))


@given(
    arch=architectures,
    relative_position=st.booleans(),
    abs_pos=st.booleans(),
    qkv_bias=st.booleans(),
    global_pool=st.sampled_from(["avg", "token"]),
)
@settings(max_examples=25, deadline=None)
def test_extracted_subnet_is_the_same_network(arch: AutoFormerArchitecture, **sizes: Any) -> None:
    net = supernet(**sizes)
    subnet = net.extract(arch)
    with torch.no_grad():
        torch.testing.assert_close(subnet(images()), net(images(), arch), atol=1e-5, rtol=1e-5)
    assert sum(p.numel() for p in subnet.parameters()) == net.cost(arch).params
    shared = {p.untyped_storage().data_ptr() for p in net.parameters()}
    for parameter in subnet.parameters():
        assert parameter.is_contiguous()
        assert parameter.untyped_storage().nbytes() == parameter.numel() * 4
        assert parameter.untyped_storage().data_ptr() not in shared


def test_no_architecture_leaves_a_trace() -> None:
    net = supernet()
    with torch.no_grad():
        before = net(images(), ARCH)
        net(images(), AutoFormerArchitecture(embed_dim=26, num_heads=(3,) * 4, mlp_ratio=(4,) * 4))
        net.extract(AutoFormerArchitecture(embed_dim=5, num_heads=(1,), mlp_ratio=(1,)))
        twin = copy.deepcopy(net)
        assert torch.equal(net(images(), ARCH), before)
        assert torch.equal(twin(images(), ARCH), before)


def test_training_moves_only_the_prefix_in_use() -> None:
    net = supernet().train()
    net(images(), ARCH).square().sum().backward()
    grads = {name: p.grad for name, p in net.named_parameters()}
    assert all(grad is None for name, grad in grads.items() if name.startswith("blocks.3."))
    used = {
        "patch_embed_super.proj.weight": (19,),
        "pos_embed": (1, 10, 19),
        "blocks.0.attn.qkv.weight": (3 * 2 * 8, 19),
        "blocks.0.attn.qkv.bias": (3 * 2 * 8,),
        "blocks.2.attn.proj.weight": (19, 8),
        "blocks.0.fc1.weight": (66, 19),
        "blocks.2.fc2.weight": (19, 5),
        "blocks.1.ffn_layer_norm.weight": (19,),
        "head.weight": (7, 19),
    }
    for name, shape in used.items():
        grad = grads[name]
        assert grad is not None
        prefix = tuple(slice(n) for n in shape)
        assert torch.count_nonzero(grad[prefix]) == torch.count_nonzero(grad) > 0, name
        assert torch.count_nonzero(grad[prefix]) > 0.9 * grad[prefix].numel(), name


def test_subnet_goes_through_copy_pickle_and_file() -> None:
    net = supernet()
    subnet = net.extract(ARCH)
    expected = subnet(images())
    fresh = AutoFormerSubnet(net.geometry, ARCH).eval()
    fresh.load_state_dict(subnet.state_dict())
    gone = weakref.ref(net)
    del net
    gc.collect()
    assert gone() is None, "the subnet holds on to its supernet"
    for other in (copy.deepcopy(subnet), pickle.loads(pickle.dumps(subnet)), fresh):
        assert torch.equal(other(images()), expected)


@pytest.mark.parametrize("relative_position", [True, False])
def test_subnet_exports_with_any_batch_size(relative_position: bool) -> None:
    subnet = supernet(relative_position=relative_position).extract(ARCH)
    program = torch.export.export(subnet, (images(2),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with torch.no_grad():
        for batch in (1, 5):
            torch.testing.assert_close(program.module()(images(batch)), subnet(images(batch)))


def test_bfloat16_agrees() -> None:
    net = supernet()
    with torch.no_grad():
        exact = net(images(), ARCH)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = net(images(), ARCH)
            assert torch.equal(net.extract(ARCH)(images()), mixed)
        pure = net.bfloat16().extract(ARCH)(images().bfloat16())
    for rough in (mixed.float(), pure.float()):
        assert (rough - exact).norm() < 0.03 * exact.norm()


def test_drop_path_rises_over_the_super_depth_in_training_only() -> None:
    net = supernet(drop_path_rate=0.3)
    subnet = net.extract(ARCH)
    assert [block.drop_path_rate for block in subnet.blocks] == pytest.approx([0.0, 0.1, 0.2])
    with torch.no_grad():
        assert torch.equal(subnet(images()), subnet(images()))
        torch.manual_seed(0)
        from_supernet = net.train()(images(64), ARCH)
        torch.manual_seed(0)
        from_subnet = subnet.train()(images(64))
        torch.testing.assert_close(from_subnet, from_supernet)
        assert not torch.allclose(from_subnet, subnet.eval()(images(64)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embed_dim": 27}, "embed_dim 27 does not fit into the supernet's 26"),
        ({"num_heads": (2, 4, 1)}, r"num_heads\[1\]=4 does not fit into the supernet's 3"),
        ({"num_heads": (1,) * 5, "mlp_ratio": (1,) * 5}, "depth 5 does not fit into the supernet's 4"),
        ({"mlp_ratio": (1, 6, 1)}, r"mlp_ratio\[1\]=6 asks for 114 hidden features at embed_dim 19, the supernet has 104"),
    ],
)
def test_architecture_that_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    net = supernet()
    arch = AutoFormerArchitecture.from_dict(ARCH.to_dict() | change)
    for use in (lambda: net(images(), arch), lambda: net.extract(arch), lambda: net.cost(arch)):
        with pytest.raises(ValueError, match=message):
            use()


def test_images_of_another_size_are_named() -> None:
    net = supernet()
    for use in (net.extract(ARCH), lambda x: net(x, ARCH)):
        with pytest.raises(ValueError, match=r"\(2, 1, 16, 16\), this network takes \(batch, 1, 12, 12\)"):
            use(torch.zeros(2, 1, 16, 16))


def test_settings_build_an_equal_supernet() -> None:
    net = supernet(relative_position=False, global_pool="token", drop_path_rate=0.2)
    twin = AutoFormerSupernet(**net.settings()).eval()
    twin.load_state_dict(net.state_dict())
    assert twin.settings() == net.settings()
    assert torch.equal(twin(images(), ARCH), net(images(), ARCH))


@pytest.mark.parametrize("weight_init", ["trunc_normal", "xavier"])
def test_weights_are_drawn_from_the_generator(weight_init: Any) -> None:
    nets = [supernet(), supernet()]
    for net in nets:
        torch.rand(1)  # the global generator does not matter
        generator = torch.Generator().manual_seed(3)
        net.reset_parameters(weight_init=weight_init, pos_embed_std=0.2, generator=generator)
    first, second = (net.state_dict() for net in nets)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first["pos_embed"].std() == pytest.approx(0.2, rel=0.2)
    assert first["blocks.0.attn.rel_pos_embed_k.embeddings_table_v"].std() == pytest.approx(0.02, rel=0.3)
    bound = (6 / (26 + 104)) ** 0.5
    expected = bound / 3**0.5 if weight_init == "xavier" else 0.02
    assert first["blocks.0.fc1.weight"].std() == pytest.approx(expected, rel=0.1)
    assert torch.equal(first["blocks.0.attn_layer_norm.weight"], torch.ones(26))
    assert torch.equal(first["head.bias"], torch.zeros(7))
