"""Compiled blocks: the same numbers, one compilation for each kind of block."""

import warnings

import torch
from torch._dynamo.utils import counters

from raysearch.nn.compiled import compile_blocks
from raysearch.spaces.autoformer import AutoFormerArchitecture, AutoFormerSupernet


def test_compiled_subnets_are_the_same_networks_and_share_their_kinds_of_blocks() -> None:
    torch.manual_seed(0)
    sizes = {"img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 3, "embed_dim": 8, "depth": 3, "num_heads": 2}
    supernet = AutoFormerSupernet(**sizes, mlp_ratio=2.0, head_dim=4, max_relative_position=1).eval()  # pyright: ignore
    images = torch.randn(4, 1, 8, 8)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own, of the libraries that it brings
        for depth in (2, 3):
            subnet = supernet.extract(AutoFormerArchitecture(8, num_heads=(2,) * depth, mlp_ratio=(2.0,) * depth))
            expected = subnet(images)
            before = counters["stats"]["unique_graphs"]
            compile_blocks(subnet)
            torch.testing.assert_close(subnet(images), expected, atol=1e-6, rtol=1e-5)
            # The checks of shapes in tests cut a block into several graphs; the second subnet brings no further one.
            assert (counters["stats"]["unique_graphs"] > before) == (depth == 2)
