"""How many images rank candidates as all do, drawn evenly and where the first candidates disagree.

Nothing is trained or scored: the candidates of a finished search are read from its journal, which knows what each of them
answered on every search image. The first are the pilots; the others' scores on all images are the truth that estimates from
some images should rank alike.

    python benchmarks/informative.py OUTPUT_FOLDER
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import median
from typing import Annotated, Any

import numpy as np
import tyro
from scipy.stats import kendalltau
from shared import console, print_heading, table

from raysearch.search import Result, Sample
from raysearch.search.informative import spread_of
from raysearch.search.protocol import ByItem, outcome_from_dict

TOP = 10


@dataclass(frozen=True, slots=True)
class Settings:
    """What is read, and how."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Output folder of a search that scored its candidates on all images."""
    sizes: tuple[int, ...] = (125, 250, 500, 1_000)
    pilots: int = 20
    draws: int = 50
    quick: bool = False
    """Few draws: shows that the script works."""


def candidates(folder: Path) -> list[ByItem]:
    """What each candidate answered, in the order in which they were scored."""
    rows = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()[1:]]
    results = [outcome_from_dict(row["outcome"]) for row in rows if row["split"] == "search"]
    return [r.by_item(r.items_seen) for r in results if isinstance(r, Result) and not r.partial]


def main(settings: Settings) -> None:
    """Print a table."""
    if settings.quick:
        settings = replace(settings, draws=5)
    screen = console()
    print_heading(screen, "Images that tell networks apart")
    networks = candidates(settings.folder)
    pilots, others = networks[: settings.pilots], networks[settings.pilots :]
    items = len(pilots[0])
    whole = np.array([network.mean(dtype=np.float64) for network in others])
    best = set(np.argsort(-whole, kind="stable")[:TOP].tolist())

    def judged(scores: list[float]) -> tuple[float, float, float]:
        """Tau, share of the best kept, and how much worse the best by estimate is than the best."""
        found = np.argsort(-np.array(scores), kind="stable")
        regret = float(whole.max() - whole[found[0]])
        tau: Any = kendalltau(whole, scores)[0]
        return float(tau), len(best & set(found[:TOP].tolist())) / TOP, 100 * regret

    rows: list[list[str]] = []
    for size in (size for size in settings.sizes if size < items):
        ways: dict[str, list[tuple[float, float, float]]] = {"even": [], "informative": []}
        for draw in range(settings.draws):
            even = np.array(Random(f"even/{draw}").sample(range(items), size))
            ways["even"].append(judged([float(network[even].mean()) for network in others]))
            sample = Sample.draw(pilots, size=size, stream=f"informative/{draw}")
            ways["informative"].append(judged([sample.score(network[sample.index]) for network in others]))
        cells = [" / ".join(f"{median(result[i] for result in ways[way]):.2f}" for way in ways) for i in range(3)]
        rows.append([f"{size:,}", *cells])
    screen.print(
        f"pilots answer {np.mean(spread_of(pilots) > 0):.1%} of the images differently; the others' scores are "
        f"{whole.min():.2%} to {whole.max():.2%}, with a standard deviation of {100 * whole.std():.2f} points",
        highlight=False,
        soft_wrap=True,
    )
    screen.print(
        table(
            f"{len(others)} candidates after {len(pilots)} pilots, {items:,} images",
            ["images", "Kendall's tau", f"of the best {TOP}", "regret, points"],
            rows,
            caption=f"even / informative; medians of {settings.draws} draws",
        )
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
