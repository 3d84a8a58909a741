"""The table and the picture of ``benchmarks/validation.py``, from its results as far as they go.

python benchmarks/validation_table.py
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib as mpl
import tyro
from matplotlib import pyplot as plt  # comes with MLflow
from rich.console import Console

from raysearch.statistics import Agreement, Interval, kendall_intervals, measured_noise, rank_agreement, regret


@dataclass(frozen=True, slots=True)
class Settings:
    """Which files."""

    results: Path = Path("benchmarks/validation.jsonl")
    """What the experiment left."""
    picture: Path = Path("docs/validation-training.png")
    """Written anew."""


class Results:
    """Lines of the experiment by the name of the work.

    Args:
        path: of the results.

    """

    def __init__(self, path: Path) -> None:
        header, *rows = map(json.loads, path.read_text().splitlines())
        self.header: dict[str, Any] = header
        self.rows: dict[str, dict[str, Any]] = {row["work"]: row for row in rows}

    @cached_property
    def subnets(self) -> list[dict[str, Any]]:
        """Those that were retrained, in the order of the draw."""
        return [row for row in self.rows["draw"]["drawn"] if f"retrained/{row['id']}/0" in self.rows]

    @cached_property
    def retrained(self) -> list[list[float]]:
        """Scores of each of them after each training, on the finalist images."""
        names = [[f"retrained/{row['id']}/{seed}" for seed in range(2)] for row in self.subnets]
        return [[self.rows[name]["score"] for name in each if name in self.rows] for each in names]

    @cached_property
    def truth(self) -> list[float]:
        """Their means."""
        return [statistics.fmean(scores) for scores in self.retrained]

    @property
    def strategies(self) -> list[str]:
        """Whose supernets are trained and scored."""
        return [name.removeprefix("inherited/") for name in self.rows if name.startswith("inherited/")]

    def inherited(self, strategy: str) -> list[float]:
        """Scores of the retrained subnets with the weights of a supernet, on the search images."""
        scores: Mapping[str, float] = self.rows[f"inherited/{strategy}"]["scores"]
        return [scores[row["id"]] for row in self.subnets]

    def finetuned(self, strategy: str) -> list[float] | None:
        """The same after one epoch of fine-tuning; None where that is not done for all of them."""
        names = [f"finetuned/{strategy}/{row['id']}" for row in self.subnets]
        return [self.rows[name]["score"] for name in names] if all(name in self.rows for name in names) else None

    def agreements(self, rankings: Mapping[str, Sequence[float]]) -> dict[str, Agreement]:
        """Of rankings with the truth; partial taus are given parameters."""
        params = [row["params"] for row in self.subnets]
        return rank_agreement({"parameters": params, **rankings}, self.truth, given="parameters")


def text(interval: Interval | None, *, points: bool = False) -> str:
    """A number with the ends of its interval."""
    if interval is None:
        return ""
    times, digits = (100, 2) if points else (1, 2)
    value, low, high = (f"{times * end:.{digits}f}" for end in (interval.value, interval.low, interval.high))
    return f"{value} ({low} to {high})"


def lines(found: Results) -> list[str]:
    """The tables of docs/validation.md and the sentences below them."""
    noise = measured_noise(found.retrained)
    counts = [len(scores) for scores in found.retrained]
    result = [
        f"{len(counts)} subnets from scratch, {sum(count > 1 for count in counts)} of them with two seeds: "
        f"{100 * min(found.truth):.2f} to {100 * max(found.truth):.2f} %, mean {100 * statistics.fmean(found.truth):.2f}",
    ]
    if noise is not None:
        result += [
            f"standard deviation of one training {100 * noise.noise:.2f} points, of the subnets {100 * noise.spread:.2f}",
            f"tau between two seeds {text(noise.between)}; highest to be expected {text(noise.highest)}",
        ]
    rankings = {name: found.inherited(name) for name in found.strategies}
    agreements = found.agreements(rankings)
    columns = ("supernet", "1e12 MACs", "steps", "CPU s", "largest", "inherited median", "tau", "given parameters")
    result += ["", *_table((*columns, "lead over single-path", "regret of its best"))]
    for name, values in rankings.items():
        trained, agreement = found.rows[f"supernet/{name}"], agreements[name]
        lead = None
        if name != "single-path":
            lead = kendall_intervals({name: values, "single-path": rankings["single-path"]}, found.truth)[1]
        best = max(range(len(values)), key=values.__getitem__)
        others = [scores for i, scores in enumerate(found.retrained) if i != best]
        result.append(
            _row(
                name,
                f"{trained['macs'] / 1e12:.2f}",
                f"{trained['steps']:,}",
                f"{trained['training_cpu_seconds']:.0f}",
                f"{100 * found.rows[f'inherited/{name}']['largest']:.1f}",
                f"{100 * statistics.median(values):.1f}",
                text(agreement.tau),
                text(agreement.partial),
                text(lead),
                text(regret(others, found.retrained[best]), points=True),
            )
        )
    result += ["", *_table(("ranking without a trained supernet", "tau", "given parameters"))]
    proxies: Mapping[str, Mapping[str, float]] = found.rows["proxies"]["values"]
    costs = {"MACs": [row["macs"] for row in found.subnets]}
    costs |= {f"proxy {name}": [values[row["id"]] for row in found.subnets] for name, values in proxies.items()}
    for name, agreement in found.agreements(costs).items():
        result.append(_row(name, text(agreement.tau), text(agreement.partial)))
    tuned = {name: values for name in found.strategies if (values := found.finetuned(name)) is not None}
    if tuned:
        result += ["", *_table(("after one epoch of fine-tuning", "median", "tau", "given parameters"))]
        agreements = found.agreements(tuned)
        for name, values in tuned.items():
            agreement = agreements[name]
            result.append(_row(name, f"{100 * statistics.median(values):.1f}", text(agreement.tau), text(agreement.partial)))
    spent = sum(max(row["cpu_seconds"], row.get("training_cpu_seconds", 0)) for row in found.rows.values())
    return [*result, "", f"{spent:,.0f} CPU seconds so far; {found.header['machine']}; {found.header['versions']}"]


def _table(columns: Sequence[str]) -> list[str]:
    return [_row(*columns), _row(*("-" for _ in columns)).replace(" ", "")]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def draw(found: Results, path: Path) -> None:
    """One panel for each supernet, and one for the number of parameters: retrained scores, both where there are two."""
    mpl.use("Agg")
    names = found.strategies
    params = [row["params"] / 1e3 for row in found.subnets]
    panels = [(f"inherited, {name} (%)", [100 * v for v in found.inherited(name)]) for name in names]
    panels.append(("thousand parameters", params))
    columns = min(3, len(panels))
    count = -(-len(panels) // columns)
    figure, axes = plt.subplots(count, columns, figsize=(4.2 * columns, 3.4 * count), sharey=True, squeeze=False)
    truth = [100 * value for value in found.truth]
    bars = [[100 * (t - min(scores)), 100 * (max(scores) - t)] for t, scores in zip(found.truth, found.retrained, strict=True)]
    for axis, (title, values) in zip(axes.flat, panels, strict=False):
        axis.errorbar(values, truth, yerr=[*zip(*bars, strict=True)], fmt="none", ecolor="#98a2ae", elinewidth=1.2)
        shown = axis.scatter(
            values, truth, c=params, cmap="Blues", vmin=0, edgecolors="#33475b", linewidths=0.6, s=34, zorder=3
        )
        axis.set_xlabel(title)
        axis.grid(color="#e4e7eb")
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    for row in axes:
        row[0].set_ylabel("trained from scratch (%)")
    figure.colorbar(shown, ax=axes, label="thousand parameters", fraction=0.03)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def main(settings: Settings) -> None:
    """Print and draw."""
    found, screen = Results(settings.results), Console(width=240)
    for line in lines(found):
        screen.print(line, highlight=False, soft_wrap=True, markup=False)
    draw(found, settings.picture)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
