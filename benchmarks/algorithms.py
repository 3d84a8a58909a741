"""Search algorithms replayed on a table of scored subnets: how many evaluations each needs.

The table (benchmarks/make_score_table.py) holds subnets of one supernet trained on Fashion-MNIST, scored on real images. A
search that asks for one of them gets that score: exact. Any other gets a prediction of gradient-boosted trees that learned the
table, with the error that one held-out row had (rugged landscape) or without (smooth landscape). What is reported is how many
evaluations an algorithm needs to reach the best score that the published evolution finds with its 1,000, and to find a
champion not worse than its own: of equal scores, the one of lower loss.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.console import Console
from score_tables import ScoreTable, Surrogate
from shared import console, print_heading, table

from raysearch.jobs.progress import phase
from raysearch.recipes.autoformer import FASHION_MNIST_RECIPE
from raysearch.search import (
    AgeingConfig,
    AlgorithmConfig,
    EvolutionConfig,
    NSGA2Config,
    PredictorConfig,
    RandomConfig,
    Result,
    SearchProblem,
    make_algorithm,
    run,
)
from raysearch.space.cost import Constraint
from raysearch.spaces.autoformer import AutoFormerArchitecture, AutoFormerConfig, SpaceConfig, SupernetSizes
from raysearch.statistics import Interval, kendall_intervals, mean_interval, over_seeds
from raysearch.tasks import Ends

EVALUATIONS = 1_000
"""Of every search: those of the published evolution, 20 generations of 50."""

PUBLISHED = "evolution, code's rates"
"""The algorithm whose best score is the target."""

ALGORITHMS: dict[str, AlgorithmConfig] = {
    "random": RandomConfig(EVALUATIONS, 50),
    PUBLISHED: EvolutionConfig(),
    "evolution, paper's rates": EvolutionConfig(rates="paper"),
    "evolution, 40 x 25": EvolutionConfig(population=25, generations=40),
    "ageing": AgeingConfig(),
    "ageing, population 50": AgeingConfig(population=50, sample=12, look_ahead=25),
    "nsga2": NSGA2Config(),
    "predictor, gp": PredictorConfig(),
    "predictor, gp, one generation ahead": PredictorConfig(ahead=1),
    "predictor, ridge": PredictorConfig(regressor="ridge"),
}
"""What is compared; where nothing is said, with its default settings."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of the measurements."""

    table: Path = Path(__file__).parent / "fashion_table.parquet"
    """Scored subnets."""
    seeds: int = 20
    """Searches with each algorithm."""
    first_seed: int = 1_000
    """Of the reported searches; settings were tried with seeds below 100."""
    algorithms: tuple[str, ...] = tuple(ALGORITHMS)
    """Those that run, besides the published evolution."""
    landscapes: tuple[float, ...] = (1.0,)
    """Ruggedness of the surrogates: 1 adds the errors of held-out rows to predictions, 0 does not."""
    processes: int = 2
    """Searches at a time."""
    quick: bool = False
    """Few seeds and algorithms: shows that the script works."""


# --- replays ----------------------------------------------------------------------------------------------------------


SURROGATES: dict[float, Surrogate[AutoFormerArchitecture]] = {}
"""By ruggedness; each process has its own copy."""


def start(surrogates: dict[float, Surrogate[AutoFormerArchitecture]]) -> None:
    """Give a process what it replays on: fitting the surrogates takes half a minute, copying them none."""
    torch.set_num_threads(1)
    SURROGATES.update(surrogates)


Best = tuple[float, float]
"""Score and negative loss: a champion is the best of both, in this order."""


def replay(job: tuple[str, float, int]) -> tuple[list[Best], int]:
    """One search: the best after each evaluation, and how many candidates were exact."""
    name, ruggedness, seed = job
    surrogate = SURROGATES[ruggedness]
    exact = set(surrogate.table.archs)
    algorithm = make_algorithm(ALGORITHMS[name], surrogate.problem, seed=seed)
    best: list[Best] = []
    hits = 0
    for arch, result in run(algorithm, lambda arch: surrogate.results([arch])[0]):
        assert isinstance(result, Result)
        assert result.loss is not None
        best.append(max([(result.score, -result.loss), *best[-1:]]))
        hits += arch in exact
    return best, hits


# --- statistics over seeds --------------------------------------------------------------------------------------------


def needed(best: Sequence[Best], target: Best) -> float:
    """Evaluations until ``target`` is reached; infinite where it is not."""
    return next((i + 1 for i, found in enumerate(best) if found >= target), math.inf)


def interval(values: Sequence[float], statistic: Literal["median", "mean"]) -> Interval:
    """A statistic of the seeds and its 95 % interval; a median's values may be infinite."""
    result = over_seeds(values) if statistic == "median" else mean_interval(values)
    assert result is not None, f"{len(values)} seeds have no interval"
    return result


def count(value: float) -> str:
    """Evaluations as text."""
    return f">{EVALUATIONS:,}" if math.isinf(value) else f"{value:,.0f}"


# --- tables -----------------------------------------------------------------------------------------------------------


def show_table(surrogate: Surrogate[AutoFormerArchitecture], screen: Console) -> None:
    """What the table holds, how well it predicts, and what zero-cost proxies know of it."""
    known = surrogate.table
    scores = [r.score for r in known.results]
    rows: list[tuple[str, ...]] = []
    for origin in dict.fromkeys(known.origins):
        which = [i for i, o in enumerate(known.origins) if o == origin]
        part = sorted(scores[i] for i in which)
        tau, _ = kendall_intervals({"held out": surrogate.held_out[which, 0].tolist()}, [scores[i] for i in which])
        found = tau["held out"]
        assert found is not None, "all scores are equal"
        error = statistics.fmean(abs(surrogate.held_out[i, 0] - scores[i]) for i in which)
        rows.append(
            (
                origin,
                f"{len(part):,}",
                *(f"{part[int(q * (len(part) - 1))]:.1%}" for q in (0, 0.5, 0.9, 1)),
                f"{statistics.pstdev(part):.2%}",
                f"{error:.2%}",
                f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})",
            )
        )
    screen.print(
        table(
            f"The table: {len(scores):,} subnets scored on {known.results[0].items_seen:,} images of Fashion-MNIST",
            ("origin", "subnets", "worst", "median", "90 %", "best", "spread", "error held out", "Kendall tau held out"),
            rows,
            caption="Held out: each fifth of the table predicted from the other four.",
        )
    )
    columns = known.proxies.values()
    which = [i for i, o in enumerate(known.origins) if o == "random" and all(column[i] is not None for column in columns)]
    rankings = {name: [float(column[i] or 0) for i in which] for name, column in known.proxies.items()}
    rankings |= {"parameters": [known.results[i].params for i in which], "MACs": [known.results[i].macs for i in which]}
    taus, _ = kendall_intervals(rankings, [scores[i] for i in which])
    screen.print(
        table(
            "Zero-cost proxies and plain counts",
            ("proxy", "Kendall tau with the score", "95 % interval"),
            [(n, f"{t.value:+.2f}", f"{t.low:+.2f} to {t.high:+.2f}") for n, t in taus.items() if t is not None],
            caption=f"Of {len(which):,} random subnets; proxies with the weights of the trained supernet, and with fresh ones.",
        )
    )


def show_landscape(
    runs: dict[str, list[tuple[list[Best], int]]], ruggedness: float, settings: Settings, screen: Console
) -> None:
    """Evaluations needed, and best scores on the way."""
    target = statistics.median_low(best[-1] for best, _ in runs[PUBLISHED])
    rows: list[tuple[str, ...]] = []
    for name, searches in runs.items():
        bests = [best for best, _ in searches]
        shown: list[str] = []
        for wanted in ((target[0], -math.inf), target):
            reached = [needed(best, wanted) for best in bests]
            middle = interval(reached, "median")
            ends = "" if math.isinf(middle.low) else f" ({count(middle.low)} to {count(middle.high)})"
            shown.append(count(middle.value) + ends)
        at = [[best[min(n, len(best)) - 1][0] for best in bests] for n in (250, 500, EVALUATIONS)]
        found = [interval(scores, "mean") for scores in at]
        rows.append(
            (
                name,
                *shown,
                f"{statistics.fmean(math.isfinite(needed(best, target)) for best in bests):.0%}",
                *(f"{100 * mean.value:.2f} ± {50 * (mean.high - mean.low):.2f}" for mean in found),
                f"{statistics.fmean(hits / len(best) for best, hits in searches):.0%}",
            )
        )
    kind = "rugged: predictions carry the error of a held-out row" if ruggedness else "smooth: predictions as they are"
    screen.print(
        table(
            f"Searches of the surrogate ({kind}), {settings.seeds} seeds, target {target[0]:.1%} with loss {-target[1]:.4f}",
            ("algorithm", "score", "and loss", "reach", "best at 250, %", "at 500", "at 1,000", "exact"),
            rows,
            caption=(
                "Target: the champion of the published evolution's 1,000 evaluations, median by score, then loss.\n"
                "Score: median evaluations (95 %) to its score; and loss: a champion not worse (reach: who does); goal 500.\n"
                "Best: mean score of the seeds ± half of its 95 % interval. Exact: candidates that the table holds."
            ),
        )
    )


def main(settings: Settings) -> None:
    """Replay every algorithm on every landscape."""
    screen = console()
    if settings.quick:
        settings = replace(settings, seeds=2, algorithms=("random", "ageing"), processes=1)
    print_heading(screen, "Search algorithms on a table of scored subnets")
    known = ScoreTable.read(settings.table, AutoFormerArchitecture)
    recipe = known.about["recipe"]
    geometry = AutoFormerConfig(net=SupernetSizes(**recipe["net"])).geometry(Ends(FASHION_MNIST_RECIPE.task.input_shape, 10))
    problem = SearchProblem(SpaceConfig(**recipe["space"]).build(), geometry.cost, Constraint(**recipe["constraint"]))
    screen.print(f"{settings.table.name}: {problem.size:,} subnets, {problem.constraint}", highlight=False)
    if settings.quick:
        known = replace(known, archs=known.archs[::20], origins=known.origins[::20], results=known.results[::20])
        known = replace(known, proxies={name: values[::20] for name, values in known.proxies.items()})
    surrogates = {r: Surrogate(known, problem, ruggedness=r) for r in settings.landscapes}
    show_table(surrogates[settings.landscapes[0]], screen)
    names = list(dict.fromkeys([*settings.algorithms, PUBLISHED]))
    seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
    jobs = [(name, r, seed) for r in settings.landscapes for name in names for seed in seeds]
    done: list[tuple[list[Best], int]] = []
    processes = ProcessPoolExecutor(settings.processes, get_context("spawn"), start, (surrogates,))
    with processes as pool, phase(screen, "replay", len(jobs)) as shown:
        for job, outcome in zip(jobs, pool.map(replay, jobs), strict=True):
            done.append(outcome)
            shown.show(len(done), step=job[0])
    outcomes = iter(done)
    for ruggedness in settings.landscapes:
        runs = {name: [next(outcomes) for _ in seeds] for name in names}
        show_landscape(runs, ruggedness, settings, screen)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
