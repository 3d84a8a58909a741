"""Clothes, from 60,000 pictures to a trained network and the proof that the search was worth it: ``make fashion``.

The recipe ``fashion`` trains a supernet, searches it within a budget of multiply-accumulates and fine-tunes the champion.
Beside it stand a random subnet of equal cost, a hand-made one (all blocks alike) of equal cost, and the largest: each with the
weights that it inherits, fine-tuned as the champion is, and trained from scratch. Nothing is chosen by the test images.

The same command goes on where it was interrupted: no finished epoch of the search, and no finished training beside it, is
repeated. The table is ``fashion.md`` in the output folder, beside the search's own files. The pictures are looked for where
Debian's package ``dataset-fashion-mnist`` puts them, or in ``--data DIR`` with torchvision's files; where there are none, one
line says how to get them.

    python benchmarks/fashion.py
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from shared import console, print_heading

from raysearch import cli
from raysearch.bounds import Count
from raysearch.distributed.cluster import carry
from raysearch.distributed.files import content_digest, serve, share
from raysearch.distributed.retraining import Retrained, Retraining, RetrainingJob, retrain
from raysearch.errors import UserError
from raysearch.jobs.champion import champion_training
from raysearch.jobs.connecting import connected_to_ray
from raysearch.jobs.progress import phase, say_on
from raysearch.jobs.reopened import FinishedSearch, finished_search
from raysearch.report.tables import duration_text
from raysearch.scoring.score import score
from raysearch.scoring.subnets import open_subnets_of
from raysearch.search import Result
from raysearch.search.protocol import Failure, outcome_from_dict, outcome_to_dict
from raysearch.space import SearchProblem
from raysearch.spaces import build_subnet
from raysearch.spaces.autoformer import AutoFormerArchitecture
from raysearch.statistics import Outcomes, paired_difference, score_interval
from raysearch.store.files import write_whole
from raysearch.store.lines import JsonLines
from raysearch.store.summary import Summary
from raysearch.tasks.images.cache import open_cache
from raysearch.tasks.images.device import DeviceImages
from raysearch.training import checkpoint
from raysearch.training.alone import for_one, shortened

TABLE = "fashion.md"
"""The file of the table, in the folder of the search."""
CHAMPION, RANDOM, UNIFORM, LARGEST = "champion", "random of equal cost", "uniform of equal cost", "largest"
"""The networks, by what the table calls them."""
WEIGHTS = ("inherited", "fine-tuned", "from scratch")
Place = tuple[str, str]
"""In the table: a network and its weights."""
WITHIN = 0.05
"""How far the uniform network's MACs may be from the champion's, as a share of these."""
RATIO = 4.0
"""Of the feed-forward parts of a vision transformer whose shape nobody searched (Dosovitskiy et al. 2021)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where files are, and how long the networks are trained from scratch."""

    output: Path = Path("runs/fashion")
    """Folder of the search, and of the table."""
    data: str | None = None
    """Folder with torchvision's files of Fashion-MNIST. Default: those of Debian's package dataset-fashion-mnist."""
    epochs: Count = 5
    """Of each training from scratch."""
    search: str = ""
    """Flags of the search besides those of its recipe, in one word, as --search='--train.epochs 60'."""
    quick: bool = False
    """Next to no training and few candidates: shows that the script works."""


QUICK = (
    *("--train.epochs", "1", "--train.warmup-epochs", "0", "--champion.epochs", "1", "--algorithm", "random"),
    *("--search.population", "4", "--search.generations", "1", "--report.random-subnets", "2", "--train.workers", "1"),
    *("--dataset.search-images", "40", "--dataset.finalist-images", "40", "--finalists.search-images", "20"),
    *(
        "--space.embed-dim",
        "16",
        "32",
        "--space.depth",
        "1",
        "2",
        "--constraint.min-macs",
        "0.3e6",
        "--constraint.max-macs",
        "1e6",
    ),
)


def searched(settings: Settings) -> None:
    """Run the search, or continue it where it is not finished. Raises SystemExit where it failed, which has told why."""
    if (settings.output / ".finished").exists():
        return
    flags = ["fashion", "--output", str(settings.output), "--report.no-register", "--resume"]
    flags += ["--data", settings.data] if settings.data else []
    settings.output.parent.mkdir(parents=True, exist_ok=True)
    cli.search([*flags, *(QUICK if settings.quick else ()), *shlex.split(settings.search)])


def uniform(problem: SearchProblem[AutoFormerArchitecture], macs: int) -> AutoFormerArchitecture:
    """What somebody would write down for as many MACs: all blocks alike.

    Of the networks within :data:`WITHIN` of ``macs`` (else the nearest) the one with feed-forward parts nearest to
    :data:`RATIO` times the width, then with heads nearest to one for every 16 features, then nearest in cost.
    """
    options: dict[str, Any] = {choice.name: choice.options for choice in problem.space.choices}
    depths: Any = problem.space.depth
    alike = [
        AutoFormerArchitecture(width, (heads,) * depth, (ratio,) * depth)
        for width, heads, ratio, depth in itertools.product(
            options["embed_dim"], options["num_heads"], options["mlp_ratio"], depths
        )
    ]

    def miss(arch: AutoFormerArchitecture) -> float:
        return abs(problem.cost(arch).macs / macs - 1)

    near = [arch for arch in alike if miss(arch) <= WITHIN] or [min(alike, key=miss)]
    return min(
        near, key=lambda arch: (abs(arch.mlp_ratio[0] - RATIO), abs(arch.num_heads[0] - arch.embed_dim / 16), miss(arch))
    )


class Comparison:
    """Four networks of a finished search, and what is left to train of them.

    Args:
        found: the search.
        epochs: of trainings from scratch.

    """

    def __init__(self, found: FinishedSearch, *, epochs: int) -> None:
        self.found, self.folder, self.plan = found, found.folder.path, found.plan
        self.summary: Summary = found.folder.read_summary()
        tuning = self.summary.tuning
        assert tuning is not None, "the recipe trains its champion further"
        assert tuning.random is not None, "the recipe compares random subnets"
        self.tuning, self.path = tuning, self.folder / TABLE
        self.tuned = {
            name: self.folder / "fine-tuned" / f"{of}.safetensors" for name, of in ((CHAMPION, "champion"), (RANDOM, "random"))
        }
        problem = self.plan.problem
        self.networks: dict[str, Any] = {
            CHAMPION: self.plan.architecture(tuning.champion.arch),
            RANDOM: self.plan.architecture(tuning.random.arch),
            UNIFORM: uniform(problem, tuning.champion.macs),
            LARGEST: problem.space.largest(),
        }
        recipe = self.plan.recipe
        self.train = for_one(shortened(recipe.train, epochs))
        self.test = self.folder / "cache" / "test.arrow"
        recipe.task.write_cache(self.plan.splits.test, self.test)
        header = {"epochs": epochs, "supernet": content_digest(found.folder.supernet)}
        lines = self.folder / "fashion.jsonl"
        self.lines = JsonLines(lines, lambda row: (str(row["training"]), row), header=header, remedy="remove that line")
        if self.lines.header != header:
            raise UserError(f"{lines} holds trainings of other epochs or another supernet; remove it, or repeat its --epochs")
        self.rows: dict[str, dict[str, Any]] = dict(self.lines.rows)

    @property
    def trainings(self) -> dict[Place, Retraining[Any]]:
        """Those that the search did not do; long ones are not last, so that processors end together."""
        wanted = [(name, "from scratch") for name in (CHAMPION, RANDOM, LARGEST, UNIFORM)]
        wanted += [(name, "fine-tuned") for name in (UNIFORM, LARGEST)]
        return {
            (name, weights): Retraining(
                arch := self.networks[name],
                self.plan.problem.cost(arch),
                start="fresh" if weights == "from scratch" else "inherited",
            )
            for name, weights in wanted
        }

    def train_rest(self, screen: Console) -> None:
        """Do what is left: one process for each training, as many at once as the machine has processors."""
        left = {each.name: each for each in self.trainings.values() if each.name not in self.rows}
        if not left:
            return
        server, recipe = serve(), self.plan.recipe
        job = RetrainingJob(
            family=recipe.family,
            settings=self.plan.settings,
            train=self.train,
            finetune=champion_training(recipe),
            task=recipe.task,
            evaluators=recipe.evaluators,
            splits=self.plan.splits.digest,
            seed=recipe.seed,
            supernet=share(self.found.folder.supernet, server=server),
            images=share(self.test, server=server),
        )
        total = len(left) + len(self.rows)
        with phase(screen, "train the others", total) as shown:

            def show(in_progress: float) -> None:
                shown.show(round(len(self.rows) + in_progress), step="trainings")

            for done in retrain(job, list(left.values()), on_steps=show, say=say_on(screen)):
                self._keep(done)
                self.write()
                show(0)

    def _keep(self, done: Retrained[Any]) -> None:
        row = {
            "training": done.training.name,
            "outcome": outcome_to_dict(done.outcome),
            "loss": done.loss,
            "seconds": done.seconds,
        }
        self.lines.append(row)
        self.rows[done.training.name] = row

    def write(self) -> str:
        """The table as far as trainings are done, written beside the search's files; returns it."""
        text = self.markdown(self.outcomes())
        write_whole(self.path, text)
        return text

    def outcomes(self) -> dict[Place, Outcomes]:
        """Which test images each network knows; those that are not trained yet, or could not be, are absent."""
        found = dict(self._inherited)
        for place, training in self.trainings.items():
            if training.name in self.rows:
                found[place] = outcome_from_dict(self.rows[training.name]["outcome"])
        items = len(self.plan.splits.test)
        return {place: outcome.by_item(items) for place, outcome in found.items() if isinstance(outcome, Result)}

    @cached_property
    def _inherited(self) -> dict[Place, Result | Failure]:
        """Outcomes with weights that the search left, inherited or fine-tuned."""
        recipe = self.plan.recipe
        judge = partial(
            score,
            images=DeviceImages(open_cache(self.test), torch.device("cpu"), room_bytes=0),
            task=recipe.task,
            normalise=recipe.task.normalise,
            batch_size=recipe.evaluators.batch_size,
            precision="float32",
        )
        subnets, found = open_subnets_of(self.found.folder, recipe.family, recipe.task), dict[Place, Result | Failure]()
        for name, arch in self.networks.items():
            cost = self.plan.problem.cost(arch)
            found[name, "inherited"] = judge(subnets.extract(arch), cost=cost)
            if (file := self.tuned.get(name)) is not None:
                tuned = build_subnet(recipe.family, self.plan.settings, arch.to_dict())
                tuned.load_state_dict(checkpoint.read(file)[0])
                found[name, "fine-tuned"] = judge(tuned, cost=cost)
        return found

    def markdown(self, outcomes: Mapping[Place, Outcomes]) -> str:
        """The table and what it says."""
        rows = [["test accuracy in per cent", "parameters", "MACs", *WEIGHTS]]
        for name, arch in self.networks.items():
            cost = self.plan.problem.cost(arch)
            scores = [percent(outcomes.get((name, weights))) for weights in WEIGHTS]
            rows.append([name, f"{cost.params:,}", f"{cost.macs / 1e6:.2f} M", *scores])
        for name in (RANDOM, UNIFORM, LARGEST):
            leads = [lead(outcomes.get((CHAMPION, weights)), outcomes.get((name, weights))) for weights in WEIGHTS]
            rows.append([f"champion minus {name}", "", "", *leads])
        used = self.tuning.deployed
        deployed = outcomes[CHAMPION, used]
        interval = score_interval(deployed)
        assert interval is not None
        times = ", ".join(f"{name} {duration_text(s)}" for name, s in self.summary.seconds.items() if s >= 1)
        others = sum(row["seconds"] for row in self.rows.values())
        said = (
            f"The champion as deployed ({used} weights, subnet {self.tuning.champion.id}) has {percent(deployed)} % of "
            f"{len(deployed):,} test images (95 %: {100 * interval.low:.1f} to {100 * interval.high:.1f}): "
            f"{lead(deployed, outcomes[RANDOM, used])} points beside the random subnet of equal cost that was trained alike.",
            f"Trained on {len(self.plan.splits.train):,} images: the supernet for {self.plan.recipe.train.epochs} epochs, each "
            f"network further for {self.tuning.epochs}, from scratch for {self.train.epochs}. Differences are in points, in "
            "pairs of test images, ± half of their 95 % interval, which does not hold the noise of a training.",
            f"Time of the search: {times}; of the {len(self.rows)} trainings beside it, a process each, together: "
            f"{duration_text(others)}.",
        )
        paragraphs = [line for text in said for line in ("", text)]
        return "\n".join([f"# {self.summary.recipe}: {self.summary.constraint}", "", *ruled(rows), *paragraphs, ""])


def percent(outcomes: Outcomes | None) -> str:
    """The share of images that are known; empty where it is not known yet."""
    return "" if outcomes is None else f"{100 * float(outcomes.mean()):.2f}"


def lead(first: Outcomes | None, second: Outcomes | None) -> str:
    """How many points the first is above the second, in pairs of images; empty where one is not known yet."""
    found = None if first is None or second is None else paired_difference(first, [second])
    return "" if found is None else f"{100 * found.value:+.2f} ± {100 * found.half:.2f}"


def ruled(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown, whose first row is its head."""
    head, *others = rows
    return [f"| {' | '.join(cells)} |" for cells in (head, ["-", *("-:" for _ in head[1:])], *others)]


def main(settings: Settings, screen: Console) -> None:
    """Do what is left, write the table and print it."""
    print_heading(screen, "Fashion-MNIST")
    searched(settings)
    with cli.reported(continued="the same command"):
        found = finished_search(settings.output)
        comparison = Comparison(found, epochs=1 if settings.quick else settings.epochs)
        with connected_to_ray(None, screen):
            carry(found.plan.recipe.family, found.plan.recipe.task)
            comparison.train_rest(screen)
        screen.print(comparison.write(), highlight=False, soft_wrap=True, markup=False)
        screen.print(f"written to {comparison.path}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__), console())
