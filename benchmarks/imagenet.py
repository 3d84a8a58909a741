"""What the ImageNet recipes cost on GPUs, published and plus, estimated: GPU-hours by phase, days on a node, money.

Nothing is trained. Multiply-accumulates are counted in closed form over random subnets (a backward pass counts as two forward
passes); how fast they are done and what an hour costs are given by whoever runs the script, best as measured on their own
cards (``benchmarks/speed.py``). What waits for the disk, decoding and communication is not in it.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from random import Random

import tyro
from rich.console import Console
from shared import console, print_heading, table

from raysearch.recipes.autoformer import RECIPES, Search
from raysearch.search import make_algorithm
from raysearch.space import SearchProblem
from raysearch.tasks import Ends

TRAINING_IMAGES, TEST_IMAGES, CLASSES = 1_281_167, 50_000, 1000
"""Of ImageNet-1k."""
NETWORKS = [f"imagenet-{size}{schedule}" for schedule in ("", "-plus") for size in ("tiny", "small", "base")]


@dataclass(frozen=True, slots=True)
class Settings:
    """What is assumed of the cards."""

    tflops: float = 312.0
    """Peak of one card in the training's precision, in 1e12 floating-point operations per second; 312: an A100 in bfloat16."""
    utilisation: float = 0.25
    """Share of the peak that training reaches; supernets of small ViTs are far from the peak of large language models."""
    price: float = 2.0
    """Money for an hour of one card."""
    gpus: int = 8
    """Cards of the node."""
    draws: int = 500
    """Random subnets that are counted."""
    quick: bool = False
    """Few draws: shows that the script works."""


@dataclass(frozen=True, slots=True)
class Work:
    """Floating-point operations of one recipe's phases."""

    train: float
    search: float
    closing: float
    champion: float
    """Fine-tuning of the champion, and of the random subnet beside it."""

    @property
    def phases(self) -> dict[str, float]:
        """By name."""
        return {
            "train": self.train,
            "search": self.search,
            "finalists and report": self.closing,
            "fine-tune": self.champion,
        }


def work(recipe: Search, *, draws: int) -> Work:
    """Counted, not measured: two operations for each multiply-accumulate."""
    size = recipe.task.dataset.img_size
    geometry = recipe.family.build(recipe.config, Ends((recipe.task.dataset.in_chans, size, size), CLASSES))
    problem = SearchProblem(geometry.space, geometry.cost, recipe.constraint)
    of_space = statistics.mean(geometry.cost(geometry.space.sample(Random(f"imagenet/{i}"))).macs for i in range(draws))
    in_band = [problem.sample(Random(f"imagenet/band/{i}"), exclude=()) for i in range(draws)]
    of_band = statistics.mean(geometry.cost(arch).macs for arch in in_band if arch is not None)
    data, train = recipe.task.dataset, recipe.train
    left = TRAINING_IMAGES - data.search_images - data.finalist_images
    candidates = make_algorithm(recipe.algorithm_config, problem, seed=0).total
    judged = recipe.finalists.count * data.finalist_images
    judged += (recipe.report.random_subnets + 3) * (data.search_images + TEST_IMAGES)
    of_step = of_band if train.draw_from == "band" else of_space
    assert not recipe.champion.distill or not recipe.champion.epochs, "a teacher's passes are not counted"
    return Work(
        train=2 * 3 * of_step * left * train.epochs * train.archs_per_step,
        search=2 * of_band * candidates * (recipe.finalists.search_images or data.search_images),
        closing=2 * of_band * judged,
        champion=2 * 2 * 3 * of_band * left * recipe.champion.epochs,
    )


def main(settings: Settings, screen: Console) -> None:
    """Print the table."""
    print_heading(screen, "ImageNet, estimated")
    rate, draws = settings.tflops * 1e12 * settings.utilisation, 10 if settings.quick else settings.draws
    rows: list[tuple[str, ...]] = []
    for name in NETWORKS:
        recipe = RECIPES[name][1]
        hours = {phase: operations / rate / 3600 for phase, operations in work(recipe, draws=draws).phases.items()}
        whole = sum(hours.values())
        rows.append(
            (
                name,
                *(f"{value:,.1f}" for value in hours.values()),
                f"{whole:,.0f}",
                f"{whole / settings.gpus / 24:.1f}",
                f"{whole * settings.price:,.0f}",
            )
        )
    caption = (
        f"estimated, not run: {settings.tflops:g} TFLOP/s at {settings.utilisation:.0%}, {settings.gpus} GPUs, "
        f"{settings.price:g} an hour each"
    )
    columns = ("recipe", "train", "search", "finalists and report", "fine-tune", "GPU-hours", "days on the node", "money")
    screen.print(table("GPU-hours by phase", columns, rows, caption=caption))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__), console())
