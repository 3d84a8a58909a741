"""How well the latency table predicts: fitted to few measured subnets, judged by others, beside multiply-accumulates alone.

Runs in one process with as many threads as an evaluator has; nothing else should compute on the machine meanwhile.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import tyro
from rich.console import Console
from scipy.stats import kendalltau
from shared import console, print_heading, table

from raysearch.jobs.progress import phase
from raysearch.recipes.autoformer import DIGITS_RECIPE, IMAGENET_TINY, Search
from raysearch.scoring.latency import (
    LatencyConfig,
    architectures_to_measure,
    device_name,
    fit_coefficients,
    measure,
    undisturbed,
)
from raysearch.search import SearchProblem
from raysearch.space.cost import Constraint
from raysearch.spaces.autoformer import AutoFormerArchitecture, AutoFormerSubnet
from raysearch.tasks import Ends


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of the measurements."""

    fitted: tuple[int, ...] = (8, 24)
    """Numbers of subnets to fit tables to; the smaller ones are the beginning of the largest."""
    held_out: int = 24
    """Subnets that judge the tables."""
    batch_size: int = 1
    """Images per forward pass."""
    warmup: int = 2
    """Passes before those that count, in each round."""
    repetitions: int = 5
    """Passes that count, in each round; the least of the rounds' medians is the latency."""
    threads: int = 1
    """Threads of the process on a CPU."""
    seed: int = 0
    """Decides which subnets are measured."""
    quick: bool = False
    """Few subnets of the small space only: shows that the script works."""


def judged(predicted: Sequence[float], measured: Sequence[float]) -> list[str]:
    """Median, 90 % and largest relative error, and the rank correlation."""
    p, m = np.array(predicted), np.array(measured)
    errors = np.abs(p / m - 1)
    shown = [f"{value:.1%}" for value in (np.median(errors), np.quantile(errors, 0.9), errors.max())]
    return [*shown, f"{kendalltau(p, m).statistic:.2f}"]


def compare(screen: Console, name: str, recipe: Search, settings: Settings, *, num_classes: int) -> None:
    """Measure subnets of a recipe's whole space, whatever its budget; print the predictors' errors and the table."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    geometry, space = recipe.config.geometry(Ends(recipe.task.input_shape, num_classes)), recipe.config.space.build()
    config = LatencyConfig(
        batch_size=settings.batch_size,
        warmup=settings.warmup,
        repetitions=settings.repetitions,
        fitted=max(settings.fitted),
        held_out=settings.held_out,
    )
    problem = SearchProblem(space, geometry.cost, Constraint())
    to_fit, held_out = architectures_to_measure(problem, config, seed=settings.seed)
    shape = (geometry.in_chans, geometry.img_size, geometry.img_size)
    rounds: defaultdict[AutoFormerArchitecture, list[float]] = defaultdict(list)
    with phase(screen, name, 2 * len([*to_fit, *held_out])) as shown:  # two rounds at least

        def one(arch: AutoFormerArchitecture) -> float:
            subnet = AutoFormerSubnet(geometry, arch)
            rounds[arch].append(measure(subnet, shape, device=device, precision="float32", config=config))
            if (done := sum(map(len, rounds.values()))) <= 2 * len([*to_fit, *held_out]):
                shown.show(done, step="measured")
            return rounds[arch][-1]

        milliseconds = undisturbed(one, [*to_fit, *held_out])

    measured = [milliseconds[arch] for arch in held_out]
    first, second = zip(*(rounds[arch][:2] for arch in held_out), strict=True)
    rows = [["measured once, then again", "", *judged(first, second)]]
    for count in settings.fitted:
        pairs = [(geometry.latency_features(arch), milliseconds[arch]) for arch in to_fit[:count]]
        coefficients = fit_coefficients(pairs)
        predicted = [sum(coefficients[k] * v for k, v in geometry.latency_features(arch).items()) for arch in held_out]
        rows.append(["latency table", str(count), *judged(predicted, measured)])
    scaled = fit_coefficients([({"macs": float(geometry.cost(a).macs)}, milliseconds[a]) for a in to_fit])["macs"]
    predicted = [scaled * geometry.cost(arch).macs for arch in held_out]
    rows.append(["MACs, scaled", str(len(to_fit)), *judged(predicted, measured)])
    screen.print(
        table(
            f"{name}: {settings.held_out} subnets of {space.size():,}, {min(measured):.3g} to {max(measured):.3g} ms "
            f"(median {statistics.median(measured):.3g}), batch of {config.batch_size}, float32, {device_name(device)}",
            ["predictor", "fitted to", "median error", "90 %", "largest", "Kendall tau"],
            rows,
        )
    )
    coefficients = fit_coefficients([(geometry.latency_features(arch), milliseconds[arch]) for arch in to_fit])
    milliseconds_of = {
        (choices["embed_dim"], choices.get("num_heads"), choices.get("mlp_ratio")): sum(
            coefficients[k] * v for k, v in features.items()
        )
        for choices, features in geometry.latency_parts(space)
    }
    widths, heads, ratios = recipe.config.space.embed_dim, recipe.config.space.num_heads, recipe.config.space.mlp_ratio
    screen.print(
        table(
            f"{name}: milliseconds of each part",
            ["embed_dim", "all but blocks", "num_heads", *(f"block of ratio {ratio:g}" for ratio in ratios)],
            [
                [
                    *(("", "") if i else (str(width), f"{milliseconds_of[width, None, None]:.3g}")),
                    str(number),
                    *(f"{milliseconds_of[width, number, ratio]:.3g}" for ratio in ratios),
                ]
                for width in widths
                for i, number in enumerate(heads)
            ],
        )
    )


def main(settings: Settings) -> None:
    """Print the tables."""
    torch.set_num_threads(settings.threads)
    screen = console()
    print_heading(screen, "Latency")
    if settings.quick:
        settings = replace(settings, fitted=(4,), held_out=4, repetitions=1, warmup=0)
    else:
        compare(screen, "AutoFormer-T, 224 px", IMAGENET_TINY, settings, num_classes=1000)
    compare(screen, "digits, 8 px", DIGITS_RECIPE, settings, num_classes=10)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
