"""Racing on Fashion-MNIST: how much of the scoring it saves, and what that costs the search.

Trains a supernet for a few minutes (kept in the output folder), runs the published evolution twice side by side, with full
scoring and with racing, and replays the races of the full search, whose per-image outcomes are then all known, at other error
levels, blocks and orders of the images.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from shared import console, print_heading, table

from raysearch.jobs.progress import phase
from raysearch.recipes.autoformer import FASHION_MNIST_RECIPE
from raysearch.scoring.score import score
from raysearch.search import Candidate, Evolution, EvolutionConfig, Race, RacingConfig, Result, SearchProblem, ranked, run
from raysearch.space import Architecture
from raysearch.spaces.autoformer import FAMILY
from raysearch.tasks import Ends, Splits
from raysearch.tasks.images.cache import open_cache
from raysearch.tasks.images.datasets import load_splits
from raysearch.tasks.images.device import DeviceImages
from raysearch.training.supernets import SupernetFile, build_supernet, read_supernet
from raysearch.training.trainer import SupernetTrainer

PATCH = 7
"""Side of a patch: 16 tokens instead of the recipe's 49, so that two cores train a useful supernet in minutes."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of the measurements."""

    output: Path = Path("runs/benchmark-racing")
    """Folder that keeps the trained supernet and the images."""
    supernet: Path | None = None
    """A supernet trained by an earlier run of this script."""
    data: Path | None = None
    """Folder of Fashion-MNIST; the system's when not given."""
    train_images: int = 10_000
    """Images that the supernet is trained on."""
    epochs: int = 15
    """Of the training."""
    images: int = 1_000
    """Images that candidates are scored on."""
    generations: int = 10
    """Of the search, 50 candidates each, as published."""
    racing: RacingConfig = RacingConfig(enabled=True)
    """Of the search with racing."""
    errors: tuple[float, ...] = (0.0, 0.01, 0.02, 0.05)
    """Error levels of the replays."""
    blocks: tuple[int, ...] = (50, 100, 250)
    """Blocks of the replays."""
    draws: int = 10
    """Orders of the images for each error and block."""
    threads: int = 2
    """Threads of the computation. One is much faster than two where other work takes the second core."""
    seed: int = 0
    quick: bool = False
    """Next to no training, few images and candidates: shows that the script works."""


# --- the supernet -----------------------------------------------------------------------------------------------------

RECIPE = replace(
    FASHION_MNIST_RECIPE,
    config=replace(
        FASHION_MNIST_RECIPE.config,
        net=replace(FASHION_MNIST_RECIPE.config.net, patch_size=PATCH, max_relative_position=3),
    ),
)


def train(splits: Splits, path: Path, settings: Settings, screen: Console) -> None:
    """Leave a trained supernet at ``path``."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = np.random.default_rng(settings.seed).permutation(len(splits.train))[: settings.train_images]
    config = replace(RECIPE.train, epochs=settings.epochs, warmup_epochs=min(3, settings.epochs / 2), batch_size=128, lr=1.5e-3)
    network = RECIPE.config.geometry(Ends(RECIPE.task.input_shape, len(splits.classes))).settings()
    network = {**network, "drop_path_rate": config.drop_path}
    trainer = SupernetTrainer(
        build_supernet(
            FAMILY, network, weight_init=config.weight_init, pos_embed_std=config.pos_embed_std, seed=settings.seed
        ).to(device),
        RECIPE.config.space.build(),
        RECIPE.task.batches(splits.train.subset(chosen), batch_size=config.batch_size, seed=settings.seed),
        config,
        task=RECIPE.task,
        undecayed=FAMILY.undecayed,
        outputs=len(splits.classes),
        seed=settings.seed,
        device=device,
    )
    with phase(screen, "train", config.epochs) as shown:
        for epoch in range(config.epochs):
            record = trainer.train_epoch(epoch)
            shown.show(epoch + 1, step=f"epoch {epoch + 1}/{config.epochs}", best=f"loss {record.loss:.3f}")
    SupernetFile(FAMILY, network, {k: v.cpu() for k, v in trainer.supernet.state_dict().items()}).write(path)


# --- two searches side by side ----------------------------------------------------------------------------------------


class Search:
    """A search in this process, a generation at a time."""

    def __init__(
        self, scorer: Callable[[Architecture, Race | None], Result], algorithm: Evolution, racing: RacingConfig, seed: int
    ) -> None:
        self.scorer, self.algorithm, self.racing, self.seed = scorer, algorithm, racing, seed
        self.candidates: list[Candidate] = []
        self.full: dict[str, Result] = {}
        self.seconds: list[float] = []
        """Of each generation."""
        self._running = run(algorithm, self._score)

    def advance(self) -> None:
        """Score one generation."""
        started = time.perf_counter()
        for arch, result in islice(self._running, self.algorithm.config.generation_size):
            cost = self.algorithm.problem.cost(arch)
            self.candidates.append(Candidate(self.algorithm.proposal(arch), cost, result))
        self.seconds.append(time.perf_counter() - started)

    def _score(self, arch: Architecture) -> Result:
        race, incumbent = None, self.algorithm.threshold if self.racing.enabled else None
        if incumbent is not None:
            race = against(incumbent.id, self.full[incumbent.id].outcomes, arch.id, self.racing, self.seed)
        result = self.scorer(arch, race)
        if result.competes:
            self.full[arch.id] = result
        return result


def against(incumbent: str, outcomes: bytes, candidate: str, racing: RacingConfig, seed: int) -> Race:
    """The race that a search with this seed lets a candidate run."""
    return Race(incumbent, f"{seed}/race/{incumbent}/{candidate}", racing.error, racing.block, outcomes)


def best(candidates: Sequence[Candidate], count: int = 10) -> list[str]:
    """Ids of the best that compete, best first."""
    return [c.proposal.arch.id for c in ranked(candidates)[:count]]


# --- replays ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Replay:
    """What racing would have done to the candidates of a search of full scores."""

    images: float
    """Share of the images that it scores."""
    overlap: float
    """Share of the ten best of full scoring that are among the ten best with racing."""
    parents: int
    """Candidates that full scoring makes parents after their generation, first generation excepted."""
    dropped: int
    """How many of them it stops."""


def replay(candidates: Sequence[Candidate], racing: RacingConfig, *, parents: int, seed: int) -> Replay:
    """Race the recorded candidates. The threshold is that of the candidates which are still in the race."""
    results: dict[str, Result] = {c.proposal.arch.id: c.result for c in candidates if c.result is not None}
    total = next(iter(results.values())).items_seen
    generations: dict[int, list[Candidate]] = {}
    for c in candidates:
        generations.setdefault(c.proposal.generation, []).append(c)
    seen, true, dropped = 0, 0, 0
    kept: list[Candidate] = []
    for members in generations.values():
        elite = best(kept, parents)
        racing_now = len(elite) == parents
        still_in: list[Candidate] = []
        for c in members:
            arch_id, images = c.proposal.arch.id, total
            if racing_now:
                race = against(elite[-1], results[elite[-1]].outcomes, arch_id, racing, seed)
                images = first_settled(race, results[arch_id].outcomes, total)
            seen += images
            if images == total:
                still_in.append(c)
        if racing_now:
            should = set(best([*kept, *members], parents)) - set(elite)
            true += len(should)
            dropped += len(should - {c.proposal.arch.id for c in still_in})
        kept += still_in
    top = set(best(candidates))
    return Replay(seen / (total * len(candidates)), len(top & set(best(kept))) / len(top), true, dropped)


def first_settled(race: Race, candidate: bytes, images: int) -> int:
    """After how many images the candidate is out of the race; all of them when it never is."""
    order = race.order(images)
    incumbent, bits = race.by_item(images)[order], replace(race, outcomes=candidate).by_item(images)[order]
    # What is settled stays settled: the first look at which it is can be found by halving.
    looks = range(race.block, images, race.block)
    low, high = 0, len(looks)
    while low < high:
        middle = (low + high) // 2
        if race.settled(incumbent, bits[: looks[middle]]):
            high = middle
        else:
            low = middle + 1
    return looks[low] if low < len(looks) else images


def simulated(images: int, gap: float, *, draws: int) -> float:
    """Mean share of the images that a made-up candidate runs: 83 % right, 6 % of the images told apart, ``gap`` behind."""
    incumbent = np.arange(images) < round(0.83 * images)
    candidate = incumbent.copy()
    candidate[: round(images * (0.06 + gap) / 2)] = False
    candidate[round(0.83 * images) :][: round(images * (0.06 - gap) / 2)] = True
    outcomes, other = np.packbits(incumbent).tobytes(), np.packbits(candidate).tobytes()
    races = [Race("i", str(draw), error=0.02, block=100, outcomes=outcomes) for draw in range(draws)]
    return statistics.fmean(first_settled(race, other, images) for race in races) / images


def main(settings: Settings) -> None:
    """Train or read the supernet, search twice, replay."""
    screen = console()
    if settings.quick:
        settings = replace(
            settings,
            output=settings.output / "quick",
            threads=1,
            train_images=512,
            epochs=1,
            images=100,
            generations=2,
            blocks=(20,),
            errors=(0.0, 0.05),
            draws=2,
        )
    torch.set_num_threads(settings.threads)
    print_heading(screen, "Racing")
    settings.output.mkdir(parents=True, exist_ok=True)
    parts = {"search_images": settings.images, "finalist_images": 0, "split_seed": settings.seed}
    data = replace(RECIPE.task.dataset, root=settings.data or RECIPE.task.dataset.root, **parts)
    splits = load_splits(data)
    weights = settings.supernet or settings.output / "supernet.safetensors"
    if not weights.exists():
        train(splits, weights, settings, screen)
    supernet = read_supernet(weights, FAMILY).build().eval()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cached = settings.output / "search.arrow"
    RECIPE.task.write_cache(splits.search, cached)
    images = DeviceImages(open_cache(cached), device, room_bytes=2**30 if device.type == "cuda" else 0)

    def scored(arch: Architecture, race: Race | None) -> Result:
        outcome = score(
            supernet.extract(arch),
            images,
            task=RECIPE.task,
            cost=supernet.cost(arch),
            normalise=RECIPE.task.normalise,
            batch_size=RECIPE.evaluators.batch_size,
            precision=RECIPE.evaluators.precision,
            part=race,
        )
        assert isinstance(outcome, Result)
        return outcome

    geometry = RECIPE.config.geometry(Ends(RECIPE.task.input_shape, len(splits.classes)))
    problem = SearchProblem(RECIPE.config.space.build(), geometry.cost, RECIPE.constraint)
    config = EvolutionConfig(generations=settings.generations)
    if settings.quick:
        config = replace(config, population=12, parents=4, mutations=6, crossovers=3)
    modes = {"full scoring": RacingConfig(enabled=False), "racing": settings.racing}
    searches = {
        name: Search(scored, Evolution(problem, config, seed=settings.seed), racing, settings.seed)
        for name, racing in modes.items()
    }
    with phase(screen, "search", settings.generations) as shown:
        for generation in range(settings.generations):
            order = list(searches.values())
            for search in order if generation % 2 == 0 else reversed(order):
                search.advance()
            shown.show(generation + 1, step=f"generation {generation + 1}/{settings.generations}, both searches")
    full = searches["full scoring"]
    candidates = full.candidates
    scores = sorted(r.score for r in full.full.values())
    screen.print(
        f"{len(candidates)} candidates on {len(images):,} images: score {scores[0]:.2%} to {scores[-1]:.2%}, "
        f"median {statistics.median(scores):.2%}",
        highlight=False,
    )

    def images_of(search: Search) -> int:
        return sum(c.result.items_seen for c in search.candidates if c.result is not None)

    top = best(candidates)
    screen.print(
        table(
            f"The search, error {settings.racing.error:g}, blocks of {settings.racing.block}",
            ("", "images scored", "share", "seconds", "share", "top 10 of full scoring", "best score"),
            [
                (
                    name,
                    f"{images_of(search):,}",
                    f"{images_of(search) / images_of(full):.3f}",
                    f"{sum(search.seconds):.1f}",
                    f"{sum(search.seconds) / sum(full.seconds):.3f}",
                    f"{len(set(top) & set(best(search.candidates)))} of 10",
                    f"{max(r.score for r in search.full.values()):.2%}",
                )
                for name, search in searches.items()
            ],
            caption="Both searches in turns, a generation each; the first generation has no threshold and is scored in full.",
        )
    )
    rows = []
    for error in settings.errors:
        for block in settings.blocks:
            racing = RacingConfig(enabled=True, error=error, block=block)
            replays = [replay(candidates, racing, parents=config.parents, seed=draw) for draw in range(settings.draws)]
            true, dropped = sum(r.parents for r in replays), sum(r.dropped for r in replays)
            rows.append(
                (
                    f"{error:g}",
                    str(block),
                    f"{statistics.fmean(r.images for r in replays):.3f}",
                    f"{statistics.fmean(r.overlap for r in replays):.3f}",
                    f"{min(r.overlap for r in replays):.1f}",
                    f"{dropped} of {true}",
                    f"{dropped / max(true, 1):.4f}",
                )
            )
    screen.print(
        table(
            "Races replayed on the outcomes of the search with full scoring",
            ("error", "block", "images used", "top 10 kept", "worst draw", "true parents dropped", "per true parent"),
            rows,
            caption=f"Means of {settings.draws} orders of the images. Goal at error 0.02: top 10 kept at least 0.98.",
        )
    )
    gaps, sizes = (0.0, 0.0025, 0.005, 0.01, 0.02, 0.03), (500,) if settings.quick else (1_000, 2_000, 5_000, 10_000)
    screen.print(
        table(
            "Simulated pairs: share of the images used by a candidate so many points behind the incumbent",
            ("search images", *(f"{100 * gap:g}" for gap in gaps)),
            [(f"{n:,}", *(f"{simulated(n, gap, draws=settings.draws):.2f}" for gap in gaps)) for n in sizes],
            caption="83 % right, 6 % of the images answered differently, error 0.02, blocks of 100.",
        )
    )


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
