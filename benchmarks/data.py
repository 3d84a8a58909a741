"""How fast training images come: from the loader and its processes, and from tasks on free processors (``dataset.stream``).

JPEG photographs made of smooth noise are read as a training with 224 pixels reads them: decoded anew each time, as of sets that
do not fit into memory, and from the file of decoded pixels. Then a network is trained on them, and the share of each step is
measured that waits for images. Everything is on this machine: what other nodes would add is not shown.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import timm
import torch
import tyro
from PIL import Image
from shared import console, interleaved, median_ratio, print_heading, table

from raysearch.distributed.cluster import connected
from raysearch.distributed.streaming import StreamedBatches
from raysearch.tasks.images import IMAGES, AugmentConfig, EncodedImages, ImageClassification
from raysearch.tasks.images.decoded import ShrunkImages
from raysearch.tasks.images.loader import ImageStream, TrainLoader

AUGMENT = AugmentConfig(crop_scale=(0.35, 1.0), hflip=0.5, rand_augment="rand-m9-mstd0.5-inc1", random_erasing=0.25)


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of the measurements."""

    images: int = 1_536
    """JPEG files of 500 x 375 pixels."""
    batch_size: int = 64
    processes: int = 1
    """Loader processes; tasks are as many as the machine has cores."""
    repetitions: int = 3
    model: str = "vit_tiny_patch16_224"
    """A model of timm's, trained for the share of waiting."""
    steps: int = 6
    """Of that training, timed, after two that are not."""
    img_size: int = 224
    quick: bool = False
    """A few small images: shows that the script works."""


def write_photographs(folder: Path, count: int) -> Path:
    """Two classes of smooth noise, whose JPEG files are as large as photographs of their size."""
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
        pixels = np.asarray(coarse, dtype=np.int16) + rng.integers(-12, 13, (375, 500, 3))
        path = folder / ("reef" if i % 2 else "kelp") / f"{i:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return folder


def ways(task: ImageClassification, images: EncodedImages, settings: Settings) -> dict[str, Callable[[], Any]]:
    """Batches by how they come; each is built once, as a training does."""
    sizes = {"batch_size": settings.batch_size, "seed": 0}
    sources = {"decoded anew": ShrunkImages(images, task.dataset.training_side), "decoded once": images}
    made: dict[str, Callable[[], Any]] = {}
    for kept, source in sources.items():
        loader = TrainLoader(source, task.dataset, task.augment, workers=settings.processes, **sizes)
        streamed = StreamedBatches(ImageStream(source, task.dataset, task.augment, **sizes), epochs=1_000)
        made[f"loader, {kept}"] = lambda loader=loader: loader.epoch(0)
        made[f"streamed, {kept}"] = lambda streamed=streamed: streamed.epoch(0)
    return made


def images_per_second(batches: Iterable[Any], size: int) -> float:
    """Of an epoch, from its second batch on: starting costs once."""
    coming = iter(batches)
    next(coming)
    began = time.perf_counter()
    batches_seen = sum(1 for _ in coming)
    return batches_seen * size / (time.perf_counter() - began)


def waiting_share(make: Callable[[], Iterable[Any]], settings: Settings) -> float:
    """Of the time of a step, while a network is trained by one thread."""
    network = timm.create_model(settings.model, num_classes=2, img_size=settings.img_size)
    optimizer = torch.optim.AdamW(network.parameters())
    waited = total = 0.0
    coming = chain.from_iterable(make() for _ in count())  # as many epochs as it takes
    for step in range(settings.steps + 2):
        began = time.perf_counter()
        inputs, targets = next(coming)
        came = time.perf_counter()
        torch.nn.functional.cross_entropy(network(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step >= 2:
            waited += came - began
            total += time.perf_counter() - began
    return waited / total


def main(settings: Settings) -> None:
    """Measure in turns, and print a table."""
    if settings.quick:
        settings = replace(settings, images=120, batch_size=8, repetitions=1, steps=1, img_size=32)
    screen = console()
    print_heading(screen, f"Training images, {settings.processes} loader process(es)")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, connected("local"):
        task = ImageClassification(IMAGES, AUGMENT).reading(write_photographs(Path(folder) / "photos", settings.images))
        task = replace(task, dataset=replace(task.dataset, img_size=settings.img_size))
        images = task.splits().train
        made = ways(task, images, settings)
        speeds = interleaved(
            {name: lambda make=make: images_per_second(make(), settings.batch_size) for name, make in made.items()},
            repetitions=settings.repetitions,
        )
        waits = {name: waiting_share(make, settings) for name, make in made.items()}
    rows = [
        [
            name,
            f"{median(speeds[name]):,.0f}",
            ""
            if name.startswith("loader")
            else f"{median_ratio(speeds[name], speeds[name.replace('streamed', 'loader')]):.2f}",
            f"{100 * waits[name]:.1f} %",
        ]
        for name in made
    ]
    columns = ["way", "images/s", "of the loader's", f"of a step of {settings.model} waits"]
    screen.print(table(f"{len(images)} images of {settings.img_size} pixels", columns, rows))


if __name__ == "__main__":
    main(tyro.cli(Settings))
