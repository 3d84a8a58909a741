"""What a candidate costs besides its score: Tune, the pool, the journal and MLflow, with scores that cost nothing.

Real Tune, a real pool of evaluators, a real MLflow store (SQLite), the published evolution over AutoFormer-T's space.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from shared import console, print_heading, table

from raysearch.distributed.cluster import connected
from raysearch.distributed.evaluators import EvaluatorConfig, Scorer
from raysearch.distributed.files import NodeFile, serve, share
from raysearch.distributed.growth import share_of
from raysearch.distributed.scoring import ScoringService
from raysearch.distributed.search_run import SEARCH_SPLIT, SearchRun, run_search
from raysearch.distributed.supernet_scorer import SupernetScorer
from raysearch.jobs.progress import phase
from raysearch.recipes.autoformer import IMAGENET_TINY
from raysearch.search import Candidate, Evolution, EvolutionConfig, Failure, Result, SearchProblem
from raysearch.space import Architecture
from raysearch.spaces.autoformer import FAMILY, AutoFormerArchitecture
from raysearch.tasks import Ends
from raysearch.tasks.images import ArrayImages
from raysearch.tasks.images.cache import write_cache
from raysearch.tracking import Tracker
from raysearch.training.supernets import SupernetFile, build_supernet


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of the measurements."""

    candidates: int = 2_000
    """Candidates with free scores, on 2 evaluators."""
    sleeping: int = 400
    """Candidates whose score sleeps, on 4 evaluators."""
    populations: tuple[int, ...] = (48, 50)
    """Their generations: a multiple of the evaluators, and the published one."""
    sleep: float = 0.3
    """Seconds of such a score."""
    starts: int = 3
    """How often the start-up is measured; the median start is shown."""
    parts: tuple[Literal["start", "free", "sleeping"], ...] = ("start", "free", "sleeping")
    """Which measurements."""
    quick: bool = False
    """A few candidates only: shows that the script works."""


# --- scorers ----------------------------------------------------------------------------------------------------------


class SleepingScorer:
    """Knows every score without looking: a hash of the architecture, after a nap."""

    def __init__(self, sleep: float) -> None:
        self.sleep = sleep
        self.outcomes = bytes(1_250)  # as many bits as AutoFormer's 10,000 search images

    def score(self, arch: Architecture, images: NodeFile, *_: Any) -> Result | Failure:
        """A score between 0 and 1."""
        if self.sleep:
            time.sleep(self.sleep)
        return Result(int(arch.id, 16) / 16**12, 10_000, 0, 0, loss=1.0, outcomes=self.outcomes)


class WatchedScorer:
    """The real scorer, that writes down when it came to be and when it first scored."""

    def __init__(self, make_scorer: Callable[[], Scorer], folder: Path) -> None:
        self.path = folder / f"{os.getpid()}.json"
        self.times = {"process": _process_start(), "imported": time.time()}
        self.scorer = make_scorer()
        self.times["loaded"] = time.time()

    def score(self, arch: Architecture, images: NodeFile, *more: Any) -> Result | Failure:
        """What the real scorer says."""
        asked = time.time()
        outcome = self.scorer.score(arch, images, *more)
        if "scored" not in self.times:
            self.times |= {"asked": asked, "scored": time.time()}
            self.path.write_text(json.dumps(self.times))
        return outcome


def _process_start() -> float:
    """When this process was started, in seconds since the epoch."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


# --- one search -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measured:
    """Clocks of the driver at every candidate, and at the end when MLflow has everything."""

    wall: list[float]
    cpu: list[float]
    """CPU seconds of the driver's process, all threads."""

    def per_candidate(self, start: int, stop: int) -> tuple[float, float]:
        """Milliseconds of wall and of CPU per candidate, between two clock readings."""
        n = stop - start
        return 1e3 * (self.wall[stop] - self.wall[start]) / n, 1e3 * (self.cpu[stop] - self.cpu[start]) / n


def measured_search(
    folder: Path, make_scorer: Callable[[], Scorer], config: EvaluatorConfig, *, population: int, generations: int, mlflow: bool
) -> Measured:
    """One search; the first clock reading is taken at its first candidate: what happens before is start-up."""
    name = f"pool-{uuid.uuid4().hex[:8]}"
    problem = _problem()
    evolution = EvolutionConfig(population=population, generations=generations)
    algorithm = Evolution(problem, evolution, seed=0)
    wall: list[float] = []
    cpu: list[float] = []
    images = folder / "images"
    images.write_bytes(b"pixels")
    tracker = _tracker(folder, name) if mlflow else None
    with (
        ScoringService(make_scorer, config, name=name, journal=folder / f"{name}.jsonl", weights="none") as service,
        (folder / "progress").open("w") as progress,
        phase(Console(file=progress), "search", algorithm.total) as shown,
    ):
        service.add_images(SEARCH_SPLIT, share(images, server=serve()))

        def on_candidate(candidate: Candidate) -> None:
            wall.append(time.perf_counter())
            cpu.append(time.process_time())
            if tracker is not None:
                tracker.log_candidate(candidate)
            shown.show(len(wall), step=f"generation {candidate.proposal.generation}")

        run = SearchRun(algorithm, cost=problem.cost, known={}, on_candidate=on_candidate)
        run_search(run, service)
    if tracker is not None:
        tracker.close()
    wall.append(time.perf_counter())
    cpu.append(time.process_time())
    return Measured(wall, cpu)


def _problem() -> SearchProblem[AutoFormerArchitecture]:
    """AutoFormer-T, 5 to 6 million parameters."""
    geometry = IMAGENET_TINY.config.geometry(Ends(IMAGENET_TINY.task.input_shape, 1000))
    return SearchProblem(IMAGENET_TINY.config.space.build(), geometry.cost, IMAGENET_TINY.constraint)


def _tracker(folder: Path, name: str) -> Tracker:
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    return Tracker(uri=uri, experiment="benchmark", search_id=name, run_name=name, params={"seed": 0})


# --- the measurements -------------------------------------------------------------------------------------------------


def free_scores(folder: Path, settings: Settings, screen: Console) -> None:
    """What a candidate costs, and whether that grows with history."""
    population = min(50, settings.candidates // 2)
    generations = settings.candidates // population
    config = EvaluatorConfig(cpus=_cpus() / 2, max_evaluators=2)
    rows: list[list[str]] = []
    measured = {}
    for label, mlflow in (("whole", True),) if settings.quick else (("without MLflow", False), ("whole", True)):
        fewer = generations if mlflow else max(2, generations // 5)
        measured[label] = measured_search(
            folder, partial(SleepingScorer, 0.0), config, population=population, generations=fewer, mlflow=mlflow
        )
        count = len(measured[label].wall) - 1
        wall, cpu = measured[label].per_candidate(0, count)
        rows.append([label, f"{count:,}", f"{cpu:.1f}", f"{wall:.1f}"])
    rows.append(["goal", "", "20", "40"])
    caption = "CPU of the driver's process, all threads, MLflow's writer included; until everything is in MLflow"
    screen.print(
        table("Free scores, 2 evaluators", ["", "candidates", "driver CPU, ms each", "wall, ms each"], rows, caption=caption)
    )

    whole = measured["whole"]
    count = len(whole.wall) - 1
    part = max(1, count // 4)
    parts = [whole.per_candidate(start, start + part) for start in range(0, part * 4, part)]
    rows = [[f"{i * part + 1:,} to {(i + 1) * part:,}", f"{cpu:.1f}", f"{wall:.1f}"] for i, (wall, cpu) in enumerate(parts)]
    rows.append(["last / first", f"{parts[-1][1] / parts[0][1]:.2f}", f"{parts[-1][0] / parts[0][0]:.2f}"])
    screen.print(table("Growth with history", ["candidates", "driver CPU, ms each", "wall, ms each"], rows))


def sleeping_scores(folder: Path, settings: Settings, screen: Console) -> None:
    """How much of the time evaluators work, when a score takes a while."""
    evaluators = 4
    config = EvaluatorConfig(cpus=_cpus() / evaluators, max_evaluators=evaluators)
    rows: list[list[str]] = []
    for population in settings.populations:
        population = min(population, settings.sleeping // 2)
        generations = settings.sleeping // population
        make_scorer = partial(SleepingScorer, settings.sleep)
        measured = measured_search(folder, make_scorer, config, population=population, generations=generations, mlflow=True)
        # From the end of the first generation: until then Tune's first trial starts while evaluators work already.
        count = population * (generations - 1)
        took = measured.wall[population + count - 1] - measured.wall[population - 1]
        ideal = settings.sleep * count / evaluators
        rounds = settings.sleep * math.ceil(population / evaluators) * (generations - 1)
        rows.append([f"{population}", f"{count}", f"{took:.2f}", f"{ideal:.2f}", f"{ideal / took:.3f}", f"{rounds / took:.3f}"])
    rows.append(["goal", "", "", "", "0.95", ""])
    caption = (
        "Ideal: no evaluator ever idle. A generation that is no multiple of the evaluators leaves some idle at its end, "
        "whatever runs it; the last column takes that as given."
    )
    columns = ["population", "candidates", "wall, s", "ideal, s", "share of ideal", "of what the generations allow"]
    screen.print(table(f"Scores of {settings.sleep} s, {evaluators} evaluators", columns, rows, caption=caption))


def start_up(folder: Path, settings: Settings, screen: Console, *, imported: float, connected_in: float) -> None:
    """From the command to the first score, in parts, with an AutoFormer-T supernet and 64 images of 224 pixels."""
    problem = _problem()
    geometry = IMAGENET_TINY.config.geometry(Ends(IMAGENET_TINY.task.input_shape, 1000))
    weights = folder / "supernet.safetensors"
    supernet = build_supernet(FAMILY, geometry.settings(), weight_init="trunc_normal", pos_embed_std=0.02, seed=0)
    SupernetFile(FAMILY, supernet.settings(), dict(supernet.state_dict())).write(weights)
    count = 64
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 224, 224), dtype=np.uint8)
    write_cache(ArrayImages(pixels, np.zeros(count, np.int64)), folder / "search.arrow", IMAGENET_TINY.task.dataset)

    config = EvaluatorConfig(batch_size=32)
    starts: list[dict[str, float]] = []
    for i in range(settings.starts):
        times = folder / f"start-{i}"
        times.mkdir()
        began = time.time()
        server = serve()
        weights_file = share(weights, server=server)
        images_file = share(folder / "search.arrow", server=server)
        make_scorer = partial(
            WatchedScorer,
            partial(SupernetScorer, weights_file, family=FAMILY, task=IMAGENET_TINY.task, config=config),
            times,
        )
        service = ScoringService(
            make_scorer, config, name=f"pool-start-{i}", journal=times / "journal.jsonl", weights=weights_file.digest
        )
        with service:
            service.add_images(SEARCH_SPLIT, images_file)
            pool = time.time()
            list(service.score(SEARCH_SPLIT, [problem.space.smallest(), problem.space.largest()]))
        first = min((json.loads(path.read_text()) for path in times.iterdir() if path.suffix == ".json"), key=_scored)
        starts.append(
            {
                "files shared, pool started": pool - began,
                "evaluator's process started": max(0.0, first["process"] - pool),
                "evaluator's imports": first["imported"] - max(pool, first["process"]),
                "supernet loaded": first["loaded"] - first["imported"],
                "waiting": first["asked"] - first["loaded"],
                f"first score, {count} images": first["scored"] - first["asked"],
            }
        )
    median = sorted(starts, key=lambda start: sum(start.values()))[len(starts) // 2]
    parts = {"driver's imports": imported, "Ray started": connected_in, **median}
    rows = [[name, f"{value:.2f}"] for name, value in parts.items()]
    rows.append(["sum", f"{sum(parts.values()):.2f}"])
    caption = f"the median of {len(starts)} starts; imports and Ray once"
    screen.print(table("Start-up to the first score, AutoFormer-T", ["", "s"], rows, caption=caption))


def _scored(times: dict[str, float]) -> float:
    return times["scored"]


def _cpus() -> float:
    return share_of("evaluation").cpus


def main(settings: Settings) -> None:
    """Measure a search's machinery."""
    imported = time.time() - _process_start()
    if settings.quick:
        settings = replace(settings, candidates=16, sleeping=16, populations=(8,), sleep=0.01, starts=1)
    screen = console()
    print_heading(screen, "Orchestration: what a candidate costs besides its score")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="raysearch-benchmark-") as folder:
        began = time.time()
        with connected("local"):
            connected_in = time.time() - began
            if "start" in settings.parts:
                start_up(Path(folder), settings, screen, imported=imported, connected_in=connected_in)
            if "free" in settings.parts:
                free_scores(Path(folder), settings, screen)
            if "sleeping" in settings.parts:
                sleeping_scores(Path(folder), settings, screen)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
