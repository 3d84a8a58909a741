"""The order of importance: the same network, and subnets that lose less than in any other order."""

from dataclasses import replace
from functools import cache
from random import Random
from statistics import mean
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from timm.models.vision_transformer import VisionTransformer
from timm_layouts import LAYOUTS, images, vit
from torch import Tensor
from torch.nn.functional import cross_entropy

from raysearch.spaces.elastic_vit import FAMILY, ElasticConfig, NetConfig, SpaceConfig, from_timm
from raysearch.spaces.elastic_vit.importance import Importance, measure, permuted
from raysearch.tasks import Ends


def some(sizes: NetConfig, seed: int = 0) -> Importance:
    drawn = torch.Generator().manual_seed(seed)
    shapes = ((sizes.depth, sizes.num_heads), (sizes.depth, sizes.hidden_features), (sizes.embed_dim,), (sizes.depth,))
    return Importance(*(torch.rand(shape, generator=drawn) for shape in shapes))


def in_order(supernet: Any, importance: Importance) -> Any:
    """The supernet with its parts in that order."""
    sizes = replace(supernet.net.sizes, order=importance.order)
    made = FAMILY.supernet(**sizes.settings())
    made.net.load_state_dict(permuted(supernet.net.state_dict(), importance))
    return made.eval()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_whole_network_is_the_same_in_any_order(layout: str):
    model = vit(**LAYOUTS[layout])
    supernet, space = from_timm(model)
    ordered = in_order(supernet, some(supernet.net.sizes))
    with torch.no_grad():
        torch.testing.assert_close(ordered(images(model), space.largest()), model(images(model)), rtol=1e-5, atol=1e-5)
        smallest = space.smallest()
        assert not torch.allclose(ordered(images(model), smallest), supernet(images(model), smallest), atol=1e-2)


@cache
def digits() -> tuple[Tensor, Tensor]:
    found = load_digits()
    pixels = torch.tensor(found.images, dtype=torch.float32)[:, None] / 8 - 1
    shuffled = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    return pixels[shuffled], torch.tensor(found.target)[shuffled]


@cache
def trained() -> VisionTransformer:
    """A small vision transformer of timm's that knows the first 1,200 digits."""
    torch.manual_seed(0)
    layout: dict[str, Any] = {"img_size": 8, "patch_size": 4, "in_chans": 1, "class_token": False, "global_pool": "avg"}
    model = VisionTransformer(**layout, num_classes=10, embed_dim=64, depth=4, num_heads=4)
    pixels, labels = (part[:1200] for part in digits())
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05, fused=True)
    epochs = 20
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * 12)
    for _ in range(epochs):
        for rows in torch.randperm(1200).split(100):
            optimizer.zero_grad()
            cross_entropy(model(pixels[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def test_subnets_of_a_trained_network_lose_less_in_the_order_of_importance():
    model, (pixels, labels) = trained(), digits()
    with torch.no_grad():
        assert (model(pixels[1200:]).argmax(1) == labels[1200:]).float().mean() > 0.9
    pixels, labels = (part[:1500] for part in (pixels, labels))
    supernet, space = from_timm(model)
    net = supernet.net
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    batches = [(pixels[rows], labels[rows]) for rows in torch.arange(1000).split(250)]
    found = measure(net, batches, cross_entropy)
    assert all(torch.equal(weight, before[name]) for name, weight in net.state_dict().items())
    assert all(values.isfinite().all() for values in found.tensors().values())
    archs = [space.sample(Random(f"order/{i}")) for i in range(100)]

    def loss(importance: Importance) -> float:
        ordered = in_order(supernet, importance)
        with torch.no_grad():
            return mean(float(cross_entropy(ordered(pixels[1200:], arch), labels[1200:])) for arch in archs)

    backwards = Importance(**{name: -values for name, values in found.tensors().items()})
    assert loss(found) < loss(some(net.sizes)) < loss(backwards)


def test_space_of_a_network_follows_from_its_sizes():
    net = NetConfig(embed_dim=384, depth=12, num_heads=6, hidden_features=1536)
    space = FAMILY.build(ElasticConfig(net=net), Ends((3, 224, 224), 1000)).space
    assert space.to_dict()["depth"] == (8, 9, 10, 11, 12)
    options = {choice.name: choice.options for choice in space.choices}
    assert options == {"embed_dim": (256, 320, 384), "num_heads": (3, 4, 5, 6), "hidden_features": (384, 768, 1152, 1536)}
    uniform = FAMILY.build(ElasticConfig(SpaceConfig(uniform=True), net), Ends((3, 224, 224), 1000)).space
    assert uniform.size() == 5 * 3 * 4 * 4
