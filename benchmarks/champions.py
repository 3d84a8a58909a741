"""Which rule names a champion worth having, and on how many images: simulated on scored networks of the digits.

For each seed a supernet is trained, and networks of all sizes are scored on every image that is not trained on. These images
are then divided again and again into search, finalist and test images; two thirds of the networks below the budget are taken
for a search that scored them. Which of them becomes champion is asked of the product's own rule and of others. The seeds, and
so the images of each part, are not those of ``digits_seeds.py``, which measures what was chosen here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import torch
import tyro
from rich.console import Console
from shared import console, print_heading, table

from raysearch.recipes.autoformer import DIGITS_RECIPE
from raysearch.search import Candidate, Proposal, Result
from raysearch.search.finalists import cost_of, finalists, judged
from raysearch.search.protocol import pack
from raysearch.space import Constraint, Cost, SearchProblem
from raysearch.statistics import Outcomes, mean_interval
from raysearch.tasks.images import open_cache
from raysearch.training.supernets import build_supernet
from raysearch.training.trainer import SupernetTrainer

TRAIN_IMAGES = 700
"""Of 1,797; 400 are the recipe's test images, which play no part, and the rest is scored."""
BINS, PER_BIN = 12, 90
SMALLEST, LARGEST = 15e3, 120e3
"""Networks are drawn evenly over these parameters."""
EQUAL = 0.05
"""Networks of equal cost have the champion's parameters within this share."""
FINALISTS = 10


@dataclass(frozen=True, slots=True)
class Settings:
    """Where tables are kept, and what is simulated."""

    output: Path = Path("runs/champions")
    """Holds a table of scores for each seed; one that is there is not made again."""
    seeds: tuple[int, ...] = (100, 101, 102, 103, 104, 105, 106, 107)
    budget: float = DIGITS_RECIPE.constraint.max_params or 0.0
    """Most parameters of a network that the search may choose."""
    divisions: int = 60
    """How often the images of a seed are divided anew."""
    quick: bool = False
    """Next to no training, few networks: shows that the script works."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Networks of one supernet."""

    right: np.ndarray
    """Whether each network is right on each image: (networks, images), bool. The first network is the largest."""
    loss: np.ndarray
    """Of each network on each image."""
    params: np.ndarray


def scored(settings: Settings, seed: int) -> Scored:
    """The table of one seed, made where it is not there: minutes of training and scoring on one processor."""
    path = settings.output / f"{'quick' if settings.quick else 'scored'}-{seed}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = _make(settings, seed)
        np.savez(path, right=made.right, loss=made.loss, params=made.params)
    with np.load(path) as stored:
        return Scored(stored["right"], stored["loss"], stored["params"])


def _make(settings: Settings, seed: int) -> Scored:
    torch.set_num_threads(1)
    recipe = DIGITS_RECIPE
    dataset = replace(recipe.task.dataset, split_seed=seed, search_images=1397 - TRAIN_IMAGES, finalist_images=0)
    task = replace(recipe.task, dataset=dataset)
    train = replace(recipe.train, epochs=1, warmup_epochs=0) if settings.quick else recipe.train
    splits = task.splits()
    geometry = recipe.family.build(recipe.config, task.ends(splits))
    supernet = build_supernet(
        recipe.family,
        {**geometry.settings, "drop_path_rate": train.drop_path},
        weight_init=train.weight_init,
        pos_embed_std=train.pos_embed_std,
        seed=seed,
    )
    trainer = SupernetTrainer(
        supernet,
        geometry.space,
        task.batches(splits.train, batch_size=train.batch_size, seed=seed),
        train,
        task=task,
        outputs=10,
        seed=seed,
        device=torch.device("cpu"),
        undecayed=recipe.family.undecayed,
    )
    for epoch in range(train.epochs):
        trainer.train_epoch(epoch)
    cache = settings.output / f"images-{seed}.arrow"
    task.write_cache(splits.search, cache)
    images = open_cache(cache)
    inputs, labels = task.normalise(torch.from_numpy(images.images.copy())), torch.from_numpy(images.labels.copy())
    archs = [geometry.space.largest(), geometry.space.smallest()]
    edges = np.geomspace(SMALLEST, LARGEST, BINS + 1)
    for i in range(BINS):
        problem = SearchProblem(geometry.space, geometry.cost, Constraint(min_params=edges[i], max_params=edges[i + 1]))
        for k in range(3 if settings.quick else PER_BIN):
            drawn = problem.sample(Random(f"pool/{i}/{k}"), archs)
            if drawn is not None:
                archs.append(drawn)
    right: list[np.ndarray] = []
    loss: list[np.ndarray] = []
    supernet.eval()
    with torch.inference_mode():
        for arch in archs:
            outcomes, losses = task.judge(supernet(inputs, arch), labels)
            right.append(outcomes.numpy())
            loss.append(losses.numpy())
    return Scored(np.array(right), np.array(loss), np.array([geometry.cost(arch).params for arch in archs]))


# --- the rules --------------------------------------------------------------------------------------------------------

Rule = Callable[[Sequence[Candidate], Sequence[Outcomes]], int]
"""From the finalists, best of the search first, and their outcomes on fresh images: the champion's index."""


def _cheapest(chosen: Sequence[Candidate], fresh: Sequence[Outcomes]) -> int:
    return judged(fresh, [cost_of(c, "params") for c in chosen]).champion


def _best_fresh(chosen: Sequence[Candidate], fresh: Sequence[Outcomes]) -> int:
    return max(range(len(fresh)), key=lambda i: (np.mean(fresh[i]), -i))


def _cheapest_beside_best_fresh(chosen: Sequence[Candidate], fresh: Sequence[Outcomes]) -> int:
    """The yardstick is whoever the fresh images show best: its lead over the others is then too large by construction."""
    first = _best_fresh(chosen, fresh)
    order = [first, *(i for i in range(len(fresh)) if i != first)]
    return order[_cheapest([chosen[i] for i in order], [fresh[i] for i in order])]


RULES: dict[str, tuple[int, Rule]] = {
    "cheapest that the best does not beat": (FINALISTS // 2, _cheapest),
    "the same, best on fresh images as yardstick": (FINALISTS // 2, _cheapest_beside_best_fresh),
    "best on fresh images": (0, _best_fresh),
    "best of the search": (0, lambda chosen, fresh: 0),
}
"""Each with how many finalists may be cheaper than the best."""

SIZES = ((397, 0), (397, 100), (397, 200), (297, 200), (497, 100))
"""Search and finalist images; the rest of those that are scored is the test."""


@dataclass(frozen=True, slots=True)
class Found:
    """A champion of one simulated search, in shares of the simulation's test images."""

    over_equal: float
    """Over the median network of equal cost."""
    over_largest: float
    times_fewer: float


def simulate(
    found: Scored, settings: Settings, *, search: int, fresh: int, rule: str, rng: np.random.Generator
) -> Found | None:
    """One division of the images, one search, one champion; None where no network costs as much as the champion."""
    cheaper, choose = RULES[rule]
    images = rng.permutation(found.right.shape[1])
    here, there, test = images[:search], images[search : search + fresh], images[search + fresh :]
    pool = np.flatnonzero(found.params <= settings.budget)
    pool = pool[pool != 0]
    searched = rng.permutation(pool)[: len(pool) * 2 // 3]
    space = DIGITS_RECIPE.config.space.build()
    candidates: list[Candidate] = []
    for i, network in enumerate(searched.tolist()):
        right = found.right[network, here]
        params = int(found.params[network])
        result = Result(float(right.mean()), search, params, params, float(found.loss[network, here].mean()), pack(right))
        proposal = Proposal(space.smallest(), i, 0, "random")
        candidates.append(Candidate(proposal, Cost(params, params), result))
    chosen = finalists(candidates, count=FINALISTS, cheaper=cheaper if fresh else 0, quantity="params")
    numbers = [int(searched[c.proposal.index]) for c in chosen]
    index = choose(chosen, [found.right[n, there] for n in numbers]) if fresh else 0
    champion = numbers[index]
    accuracy = found.right[:, test].mean(axis=1)
    equal = [n for n in pool.tolist() if n != champion and abs(found.params[n] / found.params[champion] - 1) <= EQUAL]
    if not equal:
        return None
    return Found(
        float(accuracy[champion] - np.median(accuracy[equal])),
        float(accuracy[champion] - accuracy[0]),
        float(found.params[0] / found.params[champion]),
    )


def main(settings: Settings, screen: Console) -> None:
    """Print how good the champions of each rule are, and those of the product's rule by the number of images."""
    print_heading(screen, "Which rule names a champion worth having: simulated searches of scored digits")
    if settings.quick:
        settings = replace(settings, seeds=settings.seeds[:2], divisions=3)
    tables = {seed: scored(settings, seed) for seed in settings.seeds}
    first = SIZES[2]
    rows = [(rule, *first) for rule in RULES] + [(next(iter(RULES)), *size) for size in SIZES if size != first]
    lines: list[tuple[str, ...]] = []
    for rule, search, fresh in rows:
        by_seed: list[list[Found]] = []
        for seed, found in tables.items():
            rng = np.random.default_rng(seed)
            drawn = [
                simulate(found, settings, search=search, fresh=fresh, rule=rule, rng=rng) for _ in range(settings.divisions)
            ]
            if kept := [one for one in drawn if one is not None]:
                by_seed.append(kept)
        over_equal = [100 * float(np.mean([one.over_equal for one in found])) for found in by_seed]
        over_largest = [100 * float(np.mean([one.over_largest for one in found])) for found in by_seed]
        fewer = np.concatenate([[one.times_fewer for one in found] for found in by_seed])
        lines.append(
            (rule, str(search), str(fresh), _with_interval(over_equal), _with_interval(over_largest), f"{np.median(fewer):.1f}")
        )
    columns = ("rule", "search images", "finalist images", "over median of equal cost", "over largest", "times fewer")
    caption = (
        f"{len(tables)} supernets, {settings.divisions} divisions each; at most {settings.budget:,.0f} parameters. Points of "
        "test accuracy with 95 % intervals over the supernets; times fewer: the largest network's parameters by the champion's."
    )
    screen.print(table("Champions", columns, lines, caption=caption))


def _with_interval(values: list[float]) -> str:
    """The mean over supernets with its interval."""
    found = mean_interval(values)
    return f"{values[0]:+.2f}" if found is None else f"{found.value:+.2f} ({found.low:+.2f} to {found.high:+.2f})"


if __name__ == "__main__":
    main(tyro.cli(Settings), console())
