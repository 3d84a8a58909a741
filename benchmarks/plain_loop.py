"""What a search is worth beside a plain loop: timm models trained on the same images, with the search's own batches.

The search's division, augmentation, image size and test images; AdamW with a short warm-up and a cosine; as many epochs as end
in the seconds that the whole search took. The learning rate is one of three, chosen on the search images; each has a
third of the time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
import tyro
from jaxtyping import Bool
from rich.console import Console
from shared import console, print_heading, table
from torch import Tensor, nn
from torch.nn import functional as F

from raysearch.recipes.stored import stored_search
from raysearch.statistics import share_interval
from raysearch.store.folder import CONFIG, read_json
from raysearch.tasks.images import open_cache
from raysearch.tasks.task import Batches, Task

RATES = (5e-4, 1e-3, 2e-3)
MODELS = ("resnet10t", "mobilenetv3_small_050", "vit_tiny_patch16_224")


@dataclass(frozen=True, slots=True)
class Settings:
    """Which search, and what is trained beside it."""

    run: tyro.conf.Positional[Path]
    """Output folder of a finished search of images."""
    models: tuple[str, ...] = MODELS
    """timm models, without pretrained weights."""
    seconds: float | None = None
    """For each model. Default: what the whole search took."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Loop:
    """One model after its loop."""

    model: str
    rate: float
    """Learning rate that was best on the search images."""
    params: int
    epochs: int
    """Of the chosen rate."""
    right: Bool[np.ndarray, " images"]
    """Of each test image, whether it was classified rightly."""


def trained_beside(run: Path, model: str, *, seconds: float | None, seed: int) -> Loop:
    """Train one timm model on the images of the search in ``run`` and judge it on that search's test images.

    Its head has the search's classes, its images the search's size; a vision transformer has patches of the search's size.
    """
    recipe = stored_search(read_json(run / CONFIG)["recipe"], run / CONFIG).recipe
    task = recipe.task
    splits = task.splits()
    seconds = seconds or sum(read_json(run / "summary.json")["seconds"].values())
    sizes = {"img_size": task.dataset.img_size, "patch_size": recipe.config.net.patch_size} if model.startswith("vit") else {}
    found: dict[float, tuple[float, nn.Module, int]] = {}
    for rate in RATES:
        torch.manual_seed(seed)
        network = timm.create_model(model, num_classes=len(splits.classes), in_chans=task.dataset.in_chans, **sizes)
        batches = task.batches(splits.train, batch_size=recipe.train.batch_size, seed=seed)
        epochs = _train(network, batches, rate=rate, seconds=seconds / len(RATES))
        found[rate] = float(_right(network, *_cached(run, "search", task)).mean()), network, epochs
    rate = max(found, key=lambda rate: found[rate][0])
    _, network, epochs = found[rate]
    right = _right(network, *_cached(run, "test", task))
    return Loop(model, rate, sum(p.numel() for p in network.parameters()), epochs, right)


def _cached(run: Path, split: str, task: Task) -> tuple[Tensor, Tensor]:
    """Normalised images and labels of a split, as the search's evaluators read them."""
    part = open_cache(run / "cache" / f"{split}.arrow")
    return task.normalise(torch.from_numpy(part.images.copy())), torch.from_numpy(part.labels.copy())


def _train(network: nn.Module, batches: Batches, *, rate: float, seconds: float) -> int:
    """AdamW under a short warm-up and a cosine, by the share of the time that is spent. Returns the epochs."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.05)
    begun, epoch = time.monotonic(), 0
    while (spent := time.monotonic() - begun) < seconds:
        share = spent / seconds
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, share / 0.05 + 0.05) * 0.5 * (1 + torch.cos(torch.tensor(share * torch.pi)).item())
        for images, labels in batches.epoch(epoch):
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels, label_smoothing=0.1).backward()
            optimizer.step()
        epoch += 1
    return epoch


def _right(network: nn.Module, images: Tensor, labels: Tensor) -> Bool[np.ndarray, " images"]:
    network.eval()
    with torch.inference_mode():
        pairs = zip(images.split(256), labels.split(256), strict=True)
        return torch.cat([network(part).argmax(dim=1) == whole for part, whole in pairs]).numpy()


def main(settings: Settings, screen: Console) -> None:
    """Print the test accuracy of each model beside those of the search."""
    print_heading(screen, "A plain loop over timm models, on the images of a search")
    summary = read_json(settings.run / "summary.json")
    seconds = settings.seconds or sum(summary["seconds"].values())
    rows: list[tuple[str, ...]] = []
    for name in ("champion", "largest", "random"):
        network = summary["networks"][name]
        low, high = (100 * network["test_interval"][end] for end in ("low", "high"))
        score = f"{100 * network['test_score']:.1f}"
        rows.append((f"search: {name}", f"{network['params']:,}", score, f"{low:.1f} to {high:.1f}"))
    for model in settings.models:
        loop = trained_beside(settings.run, model, seconds=seconds, seed=settings.seed)
        interval = share_interval(int(loop.right.sum()), len(loop.right))
        low, high = 100 * interval.low, 100 * interval.high
        name = f"{model}, lr {loop.rate:g}, {loop.epochs} epochs"
        rows.append((name, f"{loop.params:,}", f"{100 * loop.right.mean():.1f}", f"{low:.1f} to {high:.1f}"))
    caption = f"{seconds:.0f} s of training for each line of the loop, a third for each learning rate, on this machine"
    screen.print(table("Test accuracy, %", ("network", "parameters", "test", "95 %"), rows, caption=caption))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__), console())
