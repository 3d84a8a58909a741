"""Whether the demo's champion is worth having: searches of the digits with several seeds, each on a division of its own.

Each seed trains a supernet, searches, chooses a champion and compares it on test images, which differ from seed to seed as the
division of the 1,797 images does. A seed whose folder holds a finished search is read, one that was interrupted goes on.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from shared import console, print_heading, table

from raysearch.statistics import Interval, mean_interval
from raysearch.store.folder import read_record
from raysearch.store.summary import Networks, Summary

SCRIPT = Path(__file__).parent.parent / "experiments" / "search.py"


@dataclass(frozen=True, slots=True)
class Settings:
    """Which seeds, and where files are."""

    output: Path = Path("runs/digits-seeds")
    """Holds a search's folder for each seed."""
    seeds: int = 10
    """How many, from 0 on."""
    quick: bool = False
    """Next to no training and few candidates: shows that the script works."""


QUICK = (
    *("--train.epochs", "2", "--train.warmup-epochs", "0", "--algorithm", "random", "--search.population", "6"),
    *("--search.generations", "1", "--report.random-subnets", "3"),
)


def searched(settings: Settings, seed: int) -> Summary:
    """The summary of one seed's search, which is run or continued where it is not finished. Raises CalledProcessError."""
    folder = settings.output / f"seed-{seed}"
    if not (folder / "summary.json").exists():
        command = [sys.executable, str(SCRIPT), "digits", "--output", str(folder), "--resume", "--report.no-register"]
        command += ["--seed", str(seed), "--dataset.split-seed", str(seed), *(QUICK if settings.quick else ())]
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return read_record(folder / "summary.json", Summary)


def points(values: Sequence[float]) -> str:
    """The mean of differences in points of a per cent, with its 95 % interval over the seeds."""
    found = mean_interval(values)
    if found is None:
        return f"{100 * values[0]:+.2f}"
    return f"{100 * found.value:+.2f} (95 %: {100 * found.low:+.2f} to {100 * found.high:+.2f})"


def interval(found: Interval | None) -> str:
    """A paired difference of one seed."""
    return "" if found is None else f"{100 * found.value:+.2f} ± {100 * found.half:.2f}"


def compared(summary: Summary) -> tuple[Networks, float, float]:
    """What a search compared; the champion's test score minus the median random one's, and minus the largest network's."""
    networks = summary.networks
    assert networks is not None, "the search is not finished"
    assert networks.random is not None, "no random networks were asked for"
    scores = networks.champion.test_score, networks.largest.test_score
    assert None not in scores, "a network could not be scored"
    champion, largest = (float(score or 0) for score in scores)
    return networks, champion - networks.random.test_score, champion - largest


def show(summaries: Sequence[Summary], screen: Console) -> None:
    """A row for each seed, and the means."""
    rows: list[tuple[str, ...]] = []
    over_median: list[float] = []
    over_largest: list[float] = []
    over_mean: list[float] = []
    ratios: list[float] = []
    for summary in summaries:
        networks, median, largest = compared(summary)
        over_median.append(median)
        over_largest.append(largest)
        over_mean += [] if networks.over_random is None else [networks.over_random.value]
        ratios.append(networks.largest.params / networks.champion.params)
        drawn = networks.random
        tests = (networks.champion, networks.largest, networks.smallest)
        rows.append(
            (
                str(summary.seed),
                f"{networks.champion.params:,}",
                f"{ratios[-1]:.1f}",
                *(summary.scale.text(n.test_score, unit="") for n in tests[:2]),
                summary.scale.text(None if drawn is None else drawn.test_score, unit=""),
                summary.scale.text(tests[2].test_score, unit=""),
                f"{100 * median:+.2f}",
                interval(networks.over_random),
                interval(networks.over_largest),
                f"{sum(summary.seconds.values()):.0f}",
            )
        )
    screen.print(
        table(
            f"Digits: test accuracy in per cent, {len(rows)} seeds",
            (
                *("seed", "parameters", "times fewer", "champion", "largest", "median random", "smallest"),
                *("over median random", "over mean random", "over largest", "seconds"),
            ),
            rows,
            caption=(
                "Random networks have as many parameters as the champion within 5 %. Differences in points; ± half of the 95 % "
                "interval\nfrom the test images of one seed. Times fewer: parameters of the largest network by the champion's."
            ),
        )
    )
    screen.print(
        f"champion minus median random network of equal cost, mean of {len(rows)} seeds: {points(over_median)} points\n"
        f"champion minus mean of the random networks of equal cost: {points(over_mean)} points\n"
        f"champion minus largest network: {points(over_largest)} points, with {statistics.median(ratios):.1f} times fewer "
        "parameters (median)\nIntervals are Student's over the seeds, which divide the same 1,797 images in other ways.",
        highlight=False,
        soft_wrap=True,
    )


def main(settings: Settings) -> None:
    """Search with each seed, then print the table."""
    screen = console()
    print_heading(screen, "The champion of the digits over seeds")
    seeds = range(min(settings.seeds, 2) if settings.quick else settings.seeds)
    summaries: list[Summary] = []
    for seed in seeds:
        summaries.append(searched(settings, seed))
        networks, median, _ = compared(summaries[-1])
        screen.print(
            f"seed {seed}: champion {networks.champion.id} with {networks.champion.params:,} parameters, {100 * median:+.2f} "
            "points over the median random network",
            highlight=False,
            soft_wrap=True,
        )
    show(summaries, screen)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
