"""What a search is worth beside a plain loop: a timm model trained on the same images, with the search's own batches.

The search's division, augmentation, image size and test images; AdamW with a cosine; as many epochs as end in
the seconds that the supernet's training took. The learning rate is one of three, chosen on the search images.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
import tyro
from rich.console import Console
from shared import console, print_heading, table
from torch import Tensor, nn
from torch.nn import functional as F

from raysearch.recipes.stored import stored_search
from raysearch.statistics import share_interval
from raysearch.store.folder import CONFIG, read_json
from raysearch.tasks.images import open_cache
from raysearch.tasks.task import Batches

RATES = (5e-4, 1e-3, 2e-3)


@dataclass(frozen=True, slots=True)
class Settings:
    """Which search, and what is trained beside it."""

    run: tyro.conf.Positional[Path]
    """Output folder of a finished search of images."""
    models: tuple[str, ...] = ("resnet10t", "mobilenetv3_small_050", "vit_tiny_patch16_224")
    """timm models, without pretrained weights."""
    seconds: float | None = None
    """For each training. Default: what the search's training took."""
    seed: int = 0


def main(settings: Settings, screen: Console) -> None:
    """Print the test accuracy of each model beside those of the search."""
    print_heading(screen, "A plain loop over timm models, on the images of a search")
    config, summary = read_json(settings.run / CONFIG), read_json(settings.run / "summary.json")
    recipe = stored_search(config["recipe"], settings.run / CONFIG).recipe
    task, batch = recipe.task, recipe.train.batch_size
    splits = task.splits()
    size, chans = task.dataset.img_size, task.dataset.in_chans
    seconds = settings.seconds or summary["seconds"]["train"]
    judged = {name: open_cache(settings.run / "cache" / f"{name}.arrow") for name in ("search", "test")}
    held = {
        name: (task.normalise(torch.from_numpy(part.images.copy())), torch.from_numpy(part.labels.copy()))
        for name, part in judged.items()
    }
    rows: list[tuple[str, ...]] = []
    for name in ("champion", "largest", "random"):
        network = summary["networks"][name]
        low, high = (100 * network["test_interval"][end] for end in ("low", "high"))
        score = f"{100 * network['test_score']:.1f}"
        rows.append((f"search: {name}", f"{network['params']:,}", score, f"{low:.1f} to {high:.1f}"))
    for model in settings.models:
        sizes = {"img_size": size, "patch_size": recipe.config.net.patch_size} if model.startswith("vit") else {}
        found: dict[float, tuple[float, nn.Module]] = {}
        for rate in RATES:
            torch.manual_seed(settings.seed)
            network = timm.create_model(model, num_classes=len(splits.classes), in_chans=chans, **sizes)
            batches = task.batches(splits.train, batch_size=batch, seed=settings.seed)
            _train(network, batches, rate=rate, seconds=seconds / len(RATES))
            found[rate] = _right(network, *held["search"]) / len(held["search"][1]), network
        rate = max(found, key=lambda rate: found[rate][0])
        network = found[rate][1]
        right, of = _right(network, *held["test"]), len(held["test"][1])
        interval = share_interval(right, of)
        params = sum(p.numel() for p in network.parameters())
        low, high = 100 * interval.low, 100 * interval.high
        rows.append((f"{model}, lr {rate:g}", f"{params:,}", f"{100 * right / of:.1f}", f"{low:.1f} to {high:.1f}"))
    caption = f"{seconds:.0f} s of training for each line of the loop, a third for each learning rate, on this machine"
    screen.print(table("Test accuracy, %", ("network", "parameters", "test", "95 %"), rows, caption=caption))


def _train(network: nn.Module, batches: Batches, *, rate: float, seconds: float) -> None:
    """AdamW under a short warm-up and a cosine, by the share of the time that is spent."""
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


def _right(network: nn.Module, images: Tensor, labels: Tensor) -> int:
    network.eval()
    with torch.inference_mode():
        pairs = zip(images.split(256), labels.split(256), strict=True)
        return sum(int((network(part).argmax(dim=1) == whole).sum()) for part, whole in pairs)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__), console())
