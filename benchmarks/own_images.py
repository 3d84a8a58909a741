"""A folder of own pictures: ``raysearch search images`` with no flag but the budget, beside a plain loop over timm models.

Builds a folder of colour pictures (``emoji_folder.py``), searches it with several seeds, and trains each timm model as long as
the search took, with the same division, batches and augmentation (``plain_loop.py``). Every network is judged on the same test
images. What is done is kept in the output folder: the same command goes on where it was interrupted.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import emoji_folder
import numpy as np
import plain_loop
import tyro
from jaxtyping import Bool
from rich.console import Console
from shared import console, print_heading, table

from raysearch.statistics import Interval, paired_difference, share_interval
from raysearch.store.files import write_whole
from raysearch.store.folder import read_json
from raysearch.store.predictions import PREDICTIONS, read_predictions

SCRIPT = Path(__file__).parent.parent / "experiments" / "search.py"
CHAMPION = "champion as deployed"
Right = Bool[np.ndarray, " images"]
"""Of each test image, whether it was classified rightly."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where pictures come from, what is searched and trained."""

    packages: Path | None = None
    """Folder with the unpacked npm packages (``emoji_folder.py``); not needed where ``data`` is a folder of pictures."""
    data: Path | None = None
    """A folder of pictures of your own, one sub-folder per class, instead of the emoji."""
    output: Path = Path("runs/own-images")
    """Holds the pictures, a search's folder and the loops' results for each seed."""
    max_params: float = 1e6
    """The budget."""
    seeds: int = 3
    """How many, from 0 on; they divide the images alike."""
    models: tuple[str, ...] = plain_loop.MODELS
    """timm models of the loop."""
    seconds: float | None = None
    """For each loop. Default: what the search with its seed took."""
    quick: bool = False
    """Next to no training: shows that the script works."""


QUICK = (
    *("--train.epochs", "1", "--dataset.img-size", "16", "--algorithm", "random", "--search.population", "4"),
    *("--search.generations", "1", "--report.random-subnets", "2"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One network of one seed."""

    name: str
    params: int
    right: Right


def searched(settings: Settings, data: Path, seed: int) -> Path:
    """The folder of one seed's search, which is run or continued where it is not finished. Raises CalledProcessError."""
    folder = settings.output / f"search-{seed}"
    if not (folder / ".finished").exists():
        command = [
            sys.executable,
            str(SCRIPT),
            "images",
            "--data",
            str(data),
            "--constraint.max-params",
            str(settings.max_params),
        ]
        command += ["--seed", str(seed), "--output", str(folder), "--resume", "--report.no-register"]
        subprocess.run([*command, *(QUICK if settings.quick else ())], check=True, stdout=subprocess.DEVNULL)
    return folder


def entries(settings: Settings, run: Path, seed: int) -> list[Entry]:
    """Champion and loops of one seed, on the same test images."""
    predictions = read_predictions(run / PREDICTIONS)
    found = [Entry(CHAMPION, read_json(run / "champion.json")["params"], predictions.labels == predictions.predicted)]
    for model in settings.models[: 1 if settings.quick else None]:
        kept = settings.output / f"loop-{model}-{seed}.json"
        if not kept.exists():
            loop = plain_loop.trained_beside(run, model, seconds=1.0 if settings.quick else settings.seconds, seed=seed)
            record = {"params": loop.params, "rate": loop.rate, "epochs": loop.epochs, "right": loop.right.tolist()}
            write_whole(kept, json.dumps(record))
        record = json.loads(kept.read_text())
        found.append(Entry(model, record["params"], np.array(record["right"], dtype=bool)))
    return found


def rows(settings: Settings, by_seed: Sequence[Sequence[Entry]]) -> list[tuple[str, ...]]:
    """A line for each network: its accuracy over the seeds, and the champion's lead over it, paired by image."""
    found: list[tuple[str, ...]] = []
    champion = [next(entry.right for entry in of_seed if entry.name == CHAMPION) for of_seed in by_seed]
    for name in (entry.name for entry in by_seed[0]):
        of_name = [next(entry for entry in of_seed if entry.name == name) for of_seed in by_seed]
        right = [entry.right for entry in of_name]
        accuracies = [float(part.mean()) for part in right]
        pooled = share_interval(int(statistics.mean(int(part.sum()) for part in right)), len(right[0]))
        params = sorted({entry.params for entry in of_name})
        lead = paired_difference(_mean(champion), [_mean(right)])
        found.append(
            (
                name,
                " to ".join(f"{count:,}" for count in dict.fromkeys((params[0], params[-1]))),
                "yes" if params[-1] <= settings.max_params else "no",
                " ".join(f"{100 * accuracy:.1f}" for accuracy in accuracies),
                f"{100 * statistics.mean(accuracies):.1f} ({100 * pooled.low:.1f} to {100 * pooled.high:.1f})",
                "" if name == CHAMPION else _lead(lead),
            )
        )
    return found


def _mean(parts: Sequence[Right]) -> np.ndarray:
    """Per image, the share of the seeds that were right."""
    return np.mean(parts, axis=0, dtype=np.float32)


def _lead(found: Interval | None) -> str:
    return "" if found is None else f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def main(settings: Settings, screen: Console) -> None:
    """Make the folder, search it, train the loops, print the table."""
    print_heading(screen, "Own pictures: a search with no flag but the budget, beside a plain loop")
    settings.output.mkdir(parents=True, exist_ok=True)
    data = settings.data or settings.output / "pictures"
    if settings.data is None and not data.exists():
        if settings.packages is None:
            raise SystemExit("give --packages FOLDER of the npm packages, or --data FOLDER of your own pictures")
        emoji_folder.main(emoji_folder.Settings(settings.packages, data))
    by_seed: list[list[Entry]] = []
    spent: list[float] = []
    for seed in range(1 if settings.quick else settings.seeds):
        run = searched(settings, data, seed)
        by_seed.append(entries(settings, run, seed))
        spent.append(sum(read_json(run / "summary.json")["seconds"].values()))
    columns = ("network", "parameters", "in budget", "test accuracy by seed, %", "mean (95 %)", "champion's lead (95 %)")
    caption = (
        f"{len(by_seed)} seeds, {len(by_seed[0][0].right):,} test images, the same for all. A search took "
        f"{statistics.mean(spent):.0f} s on this machine, and so long\neach model was trained, a third for each of three "
        "learning rates. Intervals are of the test images; leads are paired by image."
    )
    screen.print(table("Own pictures", columns, rows(settings, by_seed), caption=caption))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__), console())
