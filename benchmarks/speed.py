"""A subnet with relative position against timm's plain vision transformer of the same width, depth, heads and ratio.

Training steps and inference, float32 and bfloat16 autocast, both forms of attention, in turns within one process; then whether
bfloat16 names the same classes as float32, with a supernet that is trained here on digits for about a minute.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import torch
import tyro
from rich.console import Console
from shared import console, interleaved, median_ratio, print_heading, seconds, table
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F

from raysearch.nn import attention
from raysearch.nn.precision import Precision, autocast
from raysearch.recipes.autoformer import DIGITS_RECIPE
from raysearch.spaces.autoformer import FAMILY, AutoFormerArchitecture, AutoFormerGeometry, AutoFormerSubnet
from raysearch.tasks import Ends
from raysearch.tasks.images.cache import open_cache
from raysearch.tasks.images.datasets import load_splits
from raysearch.training.supernets import build_supernet
from raysearch.training.trainer import SupernetTrainer


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of the measurements."""

    embed_dim: int = 192
    """Width of the tokens."""
    depth: int = 12
    """Blocks."""
    num_heads: int = 3
    """Heads of each block."""
    mlp_ratio: float = 4.0
    """Feed-forward width relative to embed_dim."""
    img_size: int = 224
    """Side of the images, in pixels; patches have 16."""
    batch_size: int = 16
    """Images per pass."""
    repetitions: int = 7
    """Turns that count."""
    threads: int = len(os.sched_getaffinity(0))
    """Threads on a CPU."""
    epochs: int = 150
    """Of the supernet whose answers are compared."""
    subnets: int = 20
    """Random subnets of it."""
    quick: bool = False
    """Small images and networks, one turn: shows that the script works."""


def networks(settings: Settings, device: torch.device) -> tuple[nn.Module, nn.Module]:
    """The subnet with relative position, and timm's transformer without."""
    arch = AutoFormerArchitecture(
        embed_dim=settings.embed_dim,
        num_heads=(settings.num_heads,) * settings.depth,
        mlp_ratio=(settings.mlp_ratio,) * settings.depth,
    )
    head_dim = settings.embed_dim // settings.num_heads
    geometry = AutoFormerGeometry(
        img_size=settings.img_size,
        embed_dim=settings.embed_dim,
        depth=settings.depth,
        num_heads=settings.num_heads,
        head_dim=head_dim,
    )
    subnet = AutoFormerSubnet(geometry, arch)
    for name, weight in subnet.named_parameters():
        if "embeddings_table" in name:
            nn.init.trunc_normal_(weight, std=0.02)
    plain = VisionTransformer(
        img_size=settings.img_size,
        embed_dim=settings.embed_dim,
        depth=settings.depth,
        num_heads=settings.num_heads,
        mlp_ratio=settings.mlp_ratio,
    )
    return subnet.to(device), plain.to(device)


def speed_table(settings: Settings, device: torch.device, screen: Console) -> None:
    """Throughput relative to timm's transformer, for each form of attention."""
    subnet, plain = networks(settings, device)
    images = torch.randn(settings.batch_size, 3, settings.img_size, settings.img_size, device=device)
    labels = torch.randint(0, 1000, (settings.batch_size,), device=device)
    choose = attention.attention_form

    def train(network: nn.Module, precision: Precision) -> None:
        network.zero_grad()
        with autocast(device, precision):
            loss = F.cross_entropy(network(images).float(), labels)
        loss.backward()

    def infer(network: nn.Module, precision: Precision) -> None:
        with torch.inference_mode(), autocast(device, precision):
            network(images)

    def timed(run: Callable[[nn.Module, Precision], None], network: nn.Module, precision: Precision, form: str | None) -> float:
        attention.attention_form = choose if form is None else lambda *_: form
        value = seconds(lambda: (run(network, precision), torch.cuda.synchronize() if device.type == "cuda" else None))
        attention.attention_form = choose
        return value

    rows: list[list[str]] = []
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for name, run in (("training step", train), ("inference", infer)):
        subnet.train(run is train)
        plain.train(run is train)
        for precision in precisions:
            measured = interleaved(
                {
                    "timm": lambda run=run, p=precision: timed(run, plain, p, None),
                    "fused": lambda run=run, p=precision: timed(run, subnet, p, "fused"),
                    "matmul": lambda run=run, p=precision: timed(run, subnet, p, "matmul"),
                },
                repetitions=settings.repetitions,
            )
            chosen = choose(device.type, torch.bfloat16 if precision == "bfloat16" else torch.float32)
            ratios = [f"{median_ratio(measured['timm'], measured[form]):.2f}" for form in ("fused", "matmul")]
            rows.append([f"{name}, {precision}", f"{statistics.median(measured['timm']) * 1e3:.0f} ms", *ratios, chosen])
    columns = ["", "timm", "fused", "matmul", "chosen here"]
    caption = f"throughput relative to timm; batch {settings.batch_size}, {settings.img_size} px, {settings.threads} threads"
    screen.print(table("Subnet with relative position against timm without", columns, rows, caption=caption))


def agreement_table(settings: Settings, device: torch.device, screen: Console) -> None:
    """How often bfloat16 and float32 name the same class, over subnets of a supernet trained on digits."""
    recipe = DIGITS_RECIPE
    splits = load_splits(recipe.task.dataset)
    config = replace(recipe.train, epochs=settings.epochs, warmup_epochs=settings.epochs / 10)
    sizes = recipe.config.geometry(Ends(recipe.task.input_shape, len(splits.classes))).settings()
    supernet = build_supernet(FAMILY, sizes, weight_init="xavier", pos_embed_std=0.2, seed=0).to(device)
    space = recipe.config.space.build()
    trainer = SupernetTrainer(
        supernet,
        space,
        recipe.task.batches(splits.train, batch_size=config.batch_size, seed=0),
        config,
        task=recipe.task,
        outputs=len(splits.classes),
        seed=0,
        device=device,
        undecayed=FAMILY.undecayed,
    )
    for epoch in range(config.epochs):
        trainer.train_epoch(epoch)
    with tempfile.TemporaryDirectory(prefix="raysearch-benchmark-") as folder:
        path = Path(folder) / "search.arrow"
        recipe.task.write_cache(splits.search, path)
        cached = open_cache(path)
        pixels, labels = torch.tensor(cached.images, device=device), torch.tensor(cached.labels, device=device)
    images = recipe.task.normalise(pixels)
    same: list[float] = []
    right: list[float] = []
    for i in range(settings.subnets):
        subnet = supernet.extract(space.sample(Random(f"speed/{i}"))).eval()
        named: dict[Precision, torch.Tensor] = {}
        for precision in ("float32", "bfloat16"):
            with torch.inference_mode(), autocast(device, precision):
                named[precision] = subnet(images).argmax(dim=1)
        same.append(float((named["float32"] == named["bfloat16"]).double().mean()))
        right.append(float((named["float32"] == labels).double().mean()))
    rows = [["median", f"{statistics.median(same):.2%}", f"{statistics.median(right):.2%}"]]
    rows.append(["least", f"{min(same):.2%}", f"{min(right):.2%}"])
    caption = f"{settings.subnets} random subnets, {len(images)} search images of digits, supernet of {config.epochs} epochs"
    screen.print(table("bfloat16 beside float32", ["subnets", "same top-1", "float32 accuracy"], rows, caption=caption))


def main(settings: Settings) -> None:
    """Measure speed against timm, and how much bfloat16 changes."""
    if settings.quick:
        settings = replace(settings, depth=2, img_size=32, batch_size=2, repetitions=1, epochs=2, subnets=2)
    screen = console()
    print_heading(screen, "Speed: forward and backward beside a plain vision transformer")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    speed_table(settings, device, screen)
    agreement_table(settings, device, screen)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
