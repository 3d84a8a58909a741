"""A subnet trained alone is the plain network, trained by the supernet's rules with weights of its own."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch

from raysearch.spaces import build_subnet
from raysearch.spaces.autoformer import FAMILY, AutoFormerArchitecture, AutoFormerSubnet, AutoFormerSupernet
from raysearch.tasks.images.classification import ImageClassification
from raysearch.tasks.images.images import ArrayImages
from raysearch.tasks.task import Splits
from raysearch.training.alone import Alone, Only, phases, shortened, train_alone
from raysearch.training.config import TrainingConfig
from raysearch.training.trainer import SupernetTrainer

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 2, "embed_dim": 24, "depth": 3, "num_heads": 2}
SETTINGS = {**SIZES, "mlp_ratio": 2.0, "head_dim": 8, "max_relative_position": 1, "drop_path_rate": 0.2}
WHOLE = AutoFormerArchitecture(embed_dim=24, num_heads=(2, 2, 2), mlp_ratio=(2.0, 2.0, 2.0))
SMALL = AutoFormerArchitecture(embed_dim=16, num_heads=(2, 1), mlp_ratio=(1.0, 2.0))
TRAIN = TrainingConfig(epochs=4, batch_size=16, lr=1e-2, warmup_lr=1e-3, warmup_epochs=1, weight_init="xavier")


def tones(count: int = 64) -> Splits:
    """Two classes, dark and light."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    pixels = (60 + 100 * labels[:, None, None, None] + rng.integers(-50, 50, (count, 1, 8, 8))).astype(np.uint8)
    images = ArrayImages(pixels, labels)
    return Splits(images, images, images, images, ("dark", "light"))


@pytest.mark.parametrize("weight_init", ["trunc_normal", "xavier"])
def test_the_largest_subnet_starts_as_the_supernet_does(weight_init: str) -> None:
    """One rule draws both: what has the same sizes has the same distribution, tensor by tensor."""
    supernet = AutoFormerSupernet(**SETTINGS)  # pyright: ignore[reportArgumentType]
    subnet = build_subnet(FAMILY, SETTINGS, WHOLE.to_dict())
    for network in (supernet, subnet):
        network.reset_parameters(
            weight_init=weight_init,  # pyright: ignore[reportArgumentType]
            pos_embed_std=0.2,
            generator=torch.Generator().manual_seed(0),
        )
    extracted = dict(supernet.extract(WHOLE).named_parameters())
    own = dict(subnet.named_parameters())
    assert extracted.keys() == own.keys()
    for name, weight in own.items():
        spread = extracted[name].std().item()
        assert weight.std().item() == pytest.approx(spread, rel=0.35, abs=1e-6), name


def test_a_subnet_draws_from_its_own_sizes() -> None:
    subnet = build_subnet(FAMILY, SETTINGS, SMALL.to_dict())
    subnet.reset_parameters(weight_init="xavier", pos_embed_std=0.2)
    assert isinstance(subnet, AutoFormerSubnet)
    weight = dict(subnet.named_parameters())["blocks.1.attn.proj.weight"]
    assert weight.shape == (16, 8)
    assert weight.abs().max() <= (6 / (16 + 8)) ** 0.5
    assert weight.abs().max() > (6 / (24 + 16)) ** 0.5  # the bound of the supernet's tensor


def test_decay_spares_the_same_parameters_as_in_a_supernet() -> None:
    alone = Alone(build_subnet(FAMILY, SETTINGS, SMALL.to_dict()), SMALL)
    trainer = SupernetTrainer(
        alone,
        Only(SMALL),
        None,
        TRAIN,
        task=ImageClassification(),
        outputs=2,
        undecayed=FAMILY.undecayed,
        seed=0,
        device=torch.device("cpu"),
    )  # pyright: ignore[reportArgumentType]
    names = {parameter: name for name, parameter in alone.named_parameters()}
    decayed, spared = ({names[p] for p in group["params"]} for group in trainer.optimizer.param_groups)
    assert {"subnet.cls_token", "subnet.pos_embed", "subnet.norm.weight", "subnet.head.bias"} <= spared
    assert {"subnet.head.weight", "subnet.patch_embed.proj.weight", "subnet.blocks.0.attn.qkv.weight"} <= decayed
    assert Only(SMALL).sample(Random(0)) == SMALL


def test_training_learns_and_repeats_itself() -> None:
    def trained(seed: int) -> tuple[list[float], dict[str, torch.Tensor]]:
        losses: list[float] = []
        subnet = train_alone(
            FAMILY,
            SETTINGS,
            SMALL,
            tones(),
            train=TRAIN,
            task=ImageClassification(),
            seed=seed,
            device=torch.device("cpu"),
            on_epoch=lambda record: losses.append(record.loss),
        )
        return losses, subnet.state_dict()

    (losses, weights), (again, same), (others, _) = trained(1), trained(1), trained(2)
    assert losses == again
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert losses != others
    assert len(losses) == 4
    assert losses[-1] < 0.7 * losses[0]


def test_the_blocks_of_a_network_alone_are_compiled_and_its_weights_keep_their_names() -> None:
    """Run without the compiler, which takes a minute for a backward pass; with it, losses were equal to a rate of 1e-4."""

    def trained(**how: bool) -> AutoFormerSubnet:
        train = replace(TRAIN, epochs=1, **how)
        return train_alone(
            *(FAMILY, SETTINGS, SMALL, tones()), train=train, task=ImageClassification(), seed=0, device=torch.device("cpu")
        )

    with torch.compiler.set_stance("force_eager"):
        eager, compiled = trained(), trained(compile=True)
    assert not any(block._compiled_call_impl for block in eager.blocks)  # pyright: ignore[reportPrivateUsage]
    assert all(block._compiled_call_impl for block in compiled.blocks)  # pyright: ignore[reportPrivateUsage]
    weights = compiled.state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in eager.state_dict().items())


def test_a_shorter_schedule_keeps_its_shape() -> None:
    config = replace(TRAIN, epochs=300, warmup_epochs=30)
    short = shortened(config, 100)
    assert (short.epochs, short.warmup_epochs) == (100, 10)
    assert shortened(config, 300) == config
    assert shortened(config, 1).learning_rate(9, steps_per_epoch=10) == pytest.approx(config.min_lr)


def test_the_schedule_of_a_pretrained_supernet_is_two():
    """The whole network first, for its share of the epochs, then all: choices widen over as many epochs as they would."""
    config = TrainingConfig(
        epochs=20, warmup_epochs=2, largest_first=0.25, widen=0.3, strategy="sandwich", archs_per_step=2, draw_from="band"
    )
    first, then = phases(config)
    assert first is not None
    assert (first.epochs, then.epochs) == (5, 15)
    assert (first.strategy, first.largest_first, first.widen) == ("single-path", 0, 0)
    assert (then.strategy, then.archs_per_step, then.draw_from, then.largest_first) == ("sandwich", 2, "band", 0)
    assert then.widen * then.epochs == pytest.approx(config.widen * config.epochs)
    assert first.warmup_epochs + then.warmup_epochs == pytest.approx(2)
    assert phases(replace(config, epochs=1, warmup_epochs=0)) == (None, replace(config, epochs=1, warmup_epochs=0))
