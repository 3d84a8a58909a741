"""Is a pretrained network made elastic worth it? ``make elastic`` compares it with four other ways to a network of its cost.

A small vision transformer of timm's is trained on one part of Fashion-MNIST's training images. It stands for a pretrained one:
timm saves it, and its folder is then read as a stranger's would be. On other images, for each seed and each budget of
multiply-accumulates (half and a quarter of the network's), the further training costs the same:

- full network: fine-tuned, for as long as it is before it becomes elastic; its cost is not cut;
- champion: the fine-tuned network made elastic, trained so, searched, and the champion fine-tuned;
- importance cut: the same search on the fine-tuned network, which was not trained elastically, and what it costs more to train
  that goes into fine-tuning the champion of that;
- timm from scratch: a plain vision transformer of timm's of equal cost;
- AutoFormer: a supernet of this from scratch, its champion fine-tuned.

Cost is counted in multiply-accumulates by image: three passes for each training step, one for a teacher; searches cost nothing
there. One supernet serves both budgets, but each budget alone bears its cost. Champions are chosen on images that nothing was
trained on; the test images are read for the table alone.

Each step leaves a file in the output folder: the same command goes on where it was interrupted, and repeats no finished one.
The table is ``elastic.md`` there, as far as steps are done. The pictures are those of Debian's package
``dataset-fashion-mnist``, or of ``--data DIR``.

    python benchmarks/elastic.py
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from shared import console, print_heading
from torch import Tensor

from raysearch import cli
from raysearch.bounds import Count
from raysearch.errors import UserError
from raysearch.report.tables import duration_text
from raysearch.scoring.score import score
from raysearch.search import PredictorConfig, Result, make_algorithm, run
from raysearch.search.protocol import outcome_from_dict, outcome_to_dict
from raysearch.space import Architecture, Constraint, Cost, SearchProblem
from raysearch.spaces import Family, Geometry, build_subnet
from raysearch.spaces.autoformer import FAMILY as FROM_SCRATCH
from raysearch.spaces.autoformer import AutoFormerConfig, SpaceConfig, SupernetSizes
from raysearch.spaces.elastic_vit import FAMILY as ELASTIC
from raysearch.spaces.elastic_vit import ElasticConfig, NetConfig
from raysearch.spaces.other_ends import refitted
from raysearch.spaces.pretrained import Prepared
from raysearch.spaces.stock import STOCK, StockNetwork
from raysearch.statistics import Interval, Outcomes, mean_interval, paired_difference, score_interval
from raysearch.store.files import write_whole
from raysearch.tasks import Splits
from raysearch.tasks.images.cache import open_cache
from raysearch.tasks.images.classification import ImageClassification
from raysearch.tasks.images.config import FASHION_MNIST
from raysearch.tasks.images.device import DeviceImages
from raysearch.tasks.images.transforms import AugmentConfig
from raysearch.training import checkpoint
from raysearch.training.alone import for_one, network_to_train
from raysearch.training.config import DistillConfig, TrainingConfig
from raysearch.training.draws import Band, Draws, Only
from raysearch.training.trainer import SupernetTrainer, trained

TABLE = "elastic.md"
SHARES = (0.5, 0.25)
"""Of the whole network's MACs: the budgets."""
NEAR = 0.85
"""Share of a budget that its networks use at least."""
WIDTH, HEADS, DEPTH, RATIO, PATCH = 64, 4, 6, 4, 7
"""Of the network that stands for a pretrained one."""
FULL, CHAMPION, CUT, PLAIN, SCRATCH = "full network", "champion", "importance cut", "timm from scratch", "AutoFormer"
SANDWICH = "champion by sandwich"
"""What is compared, by what the table calls it."""
BATCH = 128
LR = 1e-3
"""Of weights that are trained already, with less of it for lower layers; fine-tuning of a champion has half of it."""
LR_FRESH = 2e-3
"""Of fresh weights, as in the recipe ``fashion``."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is done, and where."""

    output: Path = Path("runs/elastic")
    """Folder of the files of each step, and of the table."""
    data: Path | None = None
    """Folder with torchvision's files of Fashion-MNIST. Default: those of Debian's package dataset-fashion-mnist."""
    seeds: Count = 3
    """Repetitions of all but the first training, whose network they share."""
    processes: Count = 2
    """Steps at a time, each with one thread."""
    pretrain_epochs: Count = 10
    """Of the network that stands for a pretrained one."""
    whole_epochs: Count = 2
    """In which it is fine-tuned."""
    elastic_epochs: Count = 4
    """In which it is trained elastically."""
    champion_epochs: Count = 2
    """In which a champion is fine-tuned; what the others are trained follows from these numbers."""
    candidates: Count = 100
    """Of each search, in generations of 20."""
    images: Count = 20_000
    """To train on, after the first training."""
    scored: Count = 1_000
    """Images on which candidates are scored."""
    judged: Count = 10_000
    """Test images."""
    sandwich: bool = False
    """Compare one more way: the elastic training by sandwiches (largest, smallest and a random subnet in each step, taught by
    the largest as it is), in as many epochs as cost the same."""
    quick: bool = False
    """Next to no training and few images: shows that the script works."""

    def kept(self) -> dict[str, Any]:
        """What all files of an output folder must have in common."""
        free = ("output", "data", "seeds", "processes", "sandwich", "quick")
        return {name: value for name, value in asdict(self).items() if name not in free}


QUICK = {"pretrain_epochs": 1, "whole_epochs": 1, "elastic_epochs": 1, "champion_epochs": 1, "candidates": 20}
QUICK |= {"images": 256, "scored": 100, "judged": 200}


# --- images -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Images:
    """The parts of the data."""

    task: ImageClassification
    first: Splits
    """Whose training images are for the first training."""
    second: Splits
    """Whose training images are for all others."""


@cache
def images(settings: Settings) -> Images:
    """Fashion-MNIST, divided."""
    data = replace(FASHION_MNIST, search_images=5_000, finalist_images=5_000, root=settings.data)
    task = ImageClassification(data, AugmentConfig(shift=1, hflip=0.5))
    splits = task.splits()
    order = Random("elastic/images").sample(range(len(splits.train)), len(splits.train))
    second = order[: settings.images]
    first = order[settings.images :][: settings.images if settings.quick else 30_000]
    parts = {
        "search": splits.search.subset(range(min(settings.scored, len(splits.search)))),
        "test": splits.test.subset(range(min(settings.judged, len(splits.test)))),
    }
    if not first:
        raise UserError(f"--images {settings.images} leaves none of {len(order)} for the first training; give fewer")
    of_first, of_second = (replace(splits, train=splits.train.subset(sorted(part)), **parts) for part in (first, second))
    return Images(task, of_first, of_second)


@cache
def scored_images(settings: Settings, split: str) -> DeviceImages:
    """Images to score networks on."""
    found, path = images(settings), settings.output / f"{split}.arrow"
    found.task.write_cache(getattr(found.second, split), path)
    return DeviceImages(open_cache(path), torch.device("cpu"), room_bytes=0)


def judged(settings: Settings, network: Any, cost: Cost, split: str = "test") -> Result:
    """What a network does on a split."""
    task = images(settings).task
    result = score(
        network,
        scored_images(settings, split),
        task=task,
        cost=cost,
        normalise=task.normalise,
        batch_size=500,
        precision="float32",
    )
    assert isinstance(result, Result), result
    return result


# --- training and searching -------------------------------------------------------------------------------------------


def schedule(settings: Settings, epochs: int, *, lr: float, fresh: bool) -> TrainingConfig:
    """The training that all ways share, but for how long, how fast and from where."""
    return TrainingConfig(
        epochs=epochs,
        batch_size=min(BATCH, settings.images // 2),
        lr=lr,
        min_lr=lr / 100,
        warmup_lr=lr / 100,
        warmup_epochs=min(1.0, epochs / 4),
        layer_decay=1.0 if fresh else 0.9,
        drop_path=0.0,
        clip_grad=1.0,
        ema=0.999,
        precision="float32",
    )


def train(
    settings: Settings,
    splits: Splits,
    family: Family[Any, Any],
    arguments: Mapping[str, Any],
    draws: Draws[Any],
    config: TrainingConfig,
    *,
    seed: int,
    start: Mapping[str, Tensor] | None = None,
    teacher: Any = None,
) -> dict[str, Tensor]:
    """Train a supernet, or :class:`Only` one network; the moving average of its weights, under its own names."""
    task, alone = images(settings).task, isinstance(draws, Only)
    network = network_to_train(family, arguments, draws.arch if alone else None, train=config, seed=seed, start=start)
    batches = task.batches(splits.train, batch_size=config.batch_size, seed=seed)
    trainer = SupernetTrainer[Any](
        network,
        draws,
        batches,
        for_one(config) if alone else config,
        task=task,
        outputs=task.ends(splits).outputs,
        seed=seed,
        device=torch.device("cpu"),
        undecayed=family.undecayed,
        teacher=teacher,
    )
    for epoch in range(config.epochs):
        trainer.train_epoch(epoch)
    return checkpoint.without_prefix("subnet." if alone else "", trained(trainer.state()))


def build(
    family: Family[Any, Any], arguments: Mapping[str, Any], arch: Architecture | None, weights: Mapping[str, Tensor]
) -> Any:
    """A network with weights, to be asked."""
    network: Any = family.supernet(**arguments) if arch is None else build_subnet(family, arguments, arch.to_dict())
    network.load_state_dict(dict(weights))
    return network.eval().requires_grad_(False)


def within(geometry: Geometry[Any], macs: float) -> SearchProblem[Any]:
    """The subnets of a budget."""
    return SearchProblem(geometry.space, geometry.cost, Constraint(min_macs=int(NEAR * macs), max_macs=int(macs)))


def band(geometry: Geometry[Any], macs: float) -> Band[Any]:
    """What the training of a supernet for both budgets draws from."""
    return Band(
        SearchProblem(
            geometry.space, geometry.cost, Constraint(min_macs=int(NEAR * SHARES[-1] * macs), max_macs=int(SHARES[0] * macs))
        )
    )


def best_of(settings: Settings, supernet: Any, problem: SearchProblem[Any], *, seed: int) -> tuple[Any, Result]:
    """The champion of a search on the search images, and its result there."""
    population = min(20, settings.candidates)
    config = PredictorConfig(population=population, generations=settings.candidates // population)

    def scored(arch: Any) -> Result:
        return judged(settings, supernet.extract(arch), problem.cost(arch), "search")

    outcomes = run(make_algorithm(config, problem, seed=seed), scored)
    return max(((arch, result) for arch, result in outcomes if isinstance(result, Result)), key=lambda pair: pair[1].score)


# --- what training costs ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Costs:
    """Multiply-accumulates by training image, in thousands of millions; and the epochs that follow from them."""

    settings: Settings
    macs: int
    """Of the whole network."""
    drawn: Mapping[str, float]
    """Mean MACs of the architectures that supernets train, by family."""

    def champion(self, share: float) -> float:
        """Of a champion's fine-tuning, taught by the largest subnet."""
        return self.settings.champion_epochs * (3 * share + 1) * self.macs

    @property
    def whole(self) -> float:
        """Of fine-tuning the whole network."""
        return self.settings.whole_epochs * 3.0 * self.macs

    @property
    def elastic(self) -> float:
        """Of the elastic training, taught by the whole network."""
        return self.settings.elastic_epochs * (3 * self.drawn[ELASTIC.name] + self.macs)

    def sandwich_epochs(self, smallest: int) -> int:
        """Of the elastic training by sandwiches, ``smallest`` being the MACs of the smallest subnet."""
        return max(1, round(self.elastic / (3 * (self.macs + smallest + self.drawn[ELASTIC.name]))))

    def cut_epochs(self, share: float) -> int:
        """In which what was cut is fine-tuned, taught as a champion is."""
        return max(1, round((self.elastic + self.champion(share)) / ((3 * share + 1) * self.macs)))

    def plain_epochs(self, share: float, macs: int) -> int:
        """Of a network from scratch."""
        return max(1, round((self.whole + self.elastic + self.champion(share)) / (3 * macs)))

    @property
    def scratch_epochs(self) -> int:
        """Of AutoFormer's supernet."""
        return max(1, round((self.whole + self.elastic) / (3 * self.drawn[FROM_SCRATCH.name])))

    def scratch_champion_epochs(self, share: float) -> int:
        """Of the fine-tuning of its champion, from labels alone."""
        return max(1, round(self.champion(share) / (3 * share * self.macs)))


# --- the steps --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that leaves a file."""

    name: str
    does: Callable[[Settings, Step], None]
    seed: int = 0
    share: float = 0.0
    needs: tuple[str, ...] = ()

    def path(self, settings: Settings) -> Path:
        """Its file."""
        return settings.output / f"{self.name}.safetensors"


def steps(settings: Settings) -> list[Step]:
    """All of them; what others wait for is first."""
    found = [Step("pretrained", pretrained)]
    for seed in range(settings.seeds):
        found += [
            Step(f"whole-{seed}", whole, seed, needs=("pretrained",)),
            Step(f"supernet-{seed}", elastic, seed, needs=(f"whole-{seed}",)),
        ]
    for seed in range(settings.seeds):
        budgets = [(share, f"{seed}-{round(100 * share)}") for share in SHARES]
        for share, of in budgets:
            found.append(Step(f"champion-{of}", champion, seed, share, (f"supernet-{seed}",)))
            found.append(Step(f"cut-{of}", cut, seed, share, (f"whole-{seed}",)))
        found += [Step(f"plain-{of}", plain, seed, share, ("pretrained",)) for share, of in budgets]
        found.append(Step(f"autoformer-{seed}", autoformer, seed, needs=("pretrained",)))
        found += [Step(f"scratch-{of}", autoformer_champion, seed, share, (f"autoformer-{seed}",)) for share, of in budgets]
    if settings.sandwich:
        for seed in range(settings.seeds):
            found.append(Step(f"sandwich-{seed}", sandwich, seed, needs=(f"whole-{seed}",)))
            found += [
                Step(f"sandwich-{seed}-{round(100 * share)}", champion_by_sandwich, seed, share, (f"sandwich-{seed}",))
                for share in SHARES
            ]
    return found


def keep(settings: Settings, step: Step, weights: Mapping[str, Tensor], began: float, **metadata: Any) -> None:
    """Leave the step's file, whole or not at all."""
    metadata |= {"kind": "step", "seconds": time.perf_counter() - began}
    checkpoint.write(step.path(settings), checkpoint.pack(weights, metadata))


def read(settings: Settings, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and what else a step left."""
    return checkpoint.read(settings.output / f"{name}.safetensors")


def plain_vit(width: int, depth: int) -> StockNetwork:
    """A vision transformer of timm's for these images."""
    sizes = {"img_size": 28, "in_chans": 1, "num_classes": 10, "patch_size": PATCH}
    sizes |= {"embed_dim": width, "depth": depth, "num_heads": max(1, width * HEADS // WIDTH), "mlp_ratio": float(RATIO)}
    return StockNetwork("vit_tiny_patch16_224", json.dumps(sizes))


def pretrained(settings: Settings, step: Step) -> None:
    """Train the network that stands for a pretrained one, and have timm save it."""
    import timm
    from timm.models import save_for_hf  # pyright: ignore[reportPrivateImportUsage]

    began, found, arch = time.perf_counter(), images(settings), plain_vit(WIDTH, DEPTH)
    config = schedule(settings, settings.pretrain_epochs, lr=LR_FRESH, fresh=True)
    weights = train(settings, found.first, STOCK, {}, Only(arch), config, seed=1_000)
    arguments = json.loads(arch.arguments)
    model: Any = timm.create_model(arch.name, pretrained=False, **arguments)
    model.load_state_dict({name.removeprefix("network."): weight for name, weight in weights.items()})
    seen = {"mean": [0.286], "std": [0.353], "interpolation": "bicubic", "crop_pct": 1.0, "input_size": [1, 28, 28]}
    save_for_hf(
        model,
        str(settings.output / "timm"),
        model_args=arguments,
        safe_serialization=True,
        data_config=seen,
    )
    network = build(STOCK, {}, arch, weights)
    keep(settings, step, {}, began, outcome=outcome_to_dict(judged(settings, network, Cost(0, 0))))


@dataclass(frozen=True, eq=False, slots=True)
class Elastic:
    """The pretrained network as a supernet."""

    geometry: Geometry[Any]
    arguments: dict[str, Any]
    weights: Mapping[str, Tensor]
    largest: Any
    macs: int


def as_supernet(settings: Settings, order: Sequence[int] = ()) -> Elastic:
    """The supernet that the file of the pretrained network gives, with a new head; ``order`` of its blocks, where known."""
    assert ELASTIC.pretrained is not None
    found = ELASTIC.pretrained.read(f"local-dir:{settings.output / 'timm'}", None)
    parts = images(settings)
    ends = parts.task.ends(parts.second)
    net = NetConfig(**{**found.config["net"], "order": tuple(order)})
    geometry = ELASTIC.build(ElasticConfig(net=net), ends)
    weights = refitted(ELASTIC, found.settings, found.weights, ends, arch=None, seed=0).weights
    arguments = {**geometry.settings, "drop_path_rate": 0.0}
    largest = geometry.space.largest()
    return Elastic(geometry, arguments, weights, largest, geometry.cost(largest).macs)


def costs(settings: Settings) -> Costs:
    """What each way may cost; no weights are needed to know it."""
    elastic, other = as_supernet(settings), from_scratch(settings)
    drawn: dict[str, float] = {}
    for name, geometry in ((ELASTIC.name, elastic.geometry), (FROM_SCRATCH.name, other)):
        draws = band(geometry, elastic.macs)
        drawn[name] = float(np.mean([geometry.cost(draws.sample(Random(f"costs/{i}"))).macs for i in range(300)]))
    return Costs(settings, elastic.macs, drawn)


def prepared(settings: Settings, supernet: Elastic, *, seed: int) -> Prepared:
    """With a trained head, parts in the order of what they are worth."""
    assert ELASTIC.pretrained is not None
    found = images(settings)
    count = min(2_000, len(found.second.train))
    some = found.second.train.subset(sorted(Random(f"{seed}/prepare").sample(range(len(found.second.train)), count)))
    path = settings.output / f"prepare-{seed}.arrow"
    found.task.write_cache(some, path)
    cached = DeviceImages(open_cache(path), torch.device("cpu"), room_bytes=0)
    batches: list[tuple[Tensor, Tensor]] = []
    for start in range(0, count, 500):
        pixels, labels = cached.batch(slice(start, min(count, start + 500)))
        batches.append((found.task.normalise(pixels), labels))
    made = ELASTIC.pretrained.prepare(supernet.arguments, supernet.weights, batches, found.task.loss)
    path.unlink()
    return made


def whole(settings: Settings, step: Step) -> None:
    """Read the pretrained network, prepare it, and fine-tune all of it."""
    began, supernet = time.perf_counter(), as_supernet(settings)
    made = prepared(settings, supernet, seed=step.seed)
    order = list(made.settings["net.order"])
    supernet = as_supernet(settings, order)
    config = schedule(settings, settings.whole_epochs, lr=LR, fresh=False)
    weights = train(
        settings,
        images(settings).second,
        ELASTIC,
        supernet.arguments,
        supernet.geometry.space.widened(0.0),
        for_one(config),
        seed=step.seed,
        start=made.weights,
    )
    network = build(ELASTIC, supernet.arguments, None, weights).extract(supernet.largest)
    result = judged(settings, network, supernet.geometry.cost(supernet.largest))
    keep(settings, step, weights, began, order=order, outcome=outcome_to_dict(result))


def elastic(settings: Settings, step: Step) -> None:
    """Train the fine-tuned network elastically, for both budgets: single paths, taught by the network as it was before."""
    config = schedule(settings, settings.elastic_epochs, lr=LR, fresh=False)
    config = replace(config, widen=0.3, draw_from="band", distill=DistillConfig(source="none", weight=0.5))
    start, about = read(settings, f"whole-{step.seed}")
    supernet = as_supernet(settings, about["order"])
    teacher = build(ELASTIC, supernet.arguments, None, start).extract(supernet.largest)
    _trained_elastically(settings, step, config, teacher)


def sandwich(settings: Settings, step: Step) -> None:
    """The same by sandwiches."""
    geometry = as_supernet(settings).geometry
    epochs = costs(settings).sandwich_epochs(geometry.cost(geometry.space.smallest()).macs)
    config = schedule(settings, epochs, lr=LR, fresh=False)
    taught = DistillConfig(source="largest", weight=0.5)
    _trained_elastically(settings, step, replace(config, strategy="sandwich", draw_from="band", distill=taught), None)


def _trained_elastically(settings: Settings, step: Step, config: TrainingConfig, teacher: Any) -> None:
    began = time.perf_counter()
    start, about = read(settings, f"whole-{step.seed}")
    supernet = as_supernet(settings, about["order"])
    draws = band(supernet.geometry, supernet.macs)
    weights = train(
        settings,
        images(settings).second,
        ELASTIC,
        supernet.arguments,
        draws,
        config,
        seed=step.seed,
        start=start,
        teacher=teacher,
    )
    keep(settings, step, weights, began, order=about["order"], epochs=config.epochs)


def _searched_and_tuned(
    settings: Settings,
    step: Step,
    family: Family[Any, Any],
    geometry: Geometry[Any],
    weights: Mapping[str, Tensor],
    *,
    whole_macs: int,
    epochs: int,
    lr: float,
    taught: bool,
) -> None:
    """Search a supernet within the step's budget, fine-tune the champion, and keep what the test images say of it."""
    began, arguments = time.perf_counter(), {**geometry.settings, "drop_path_rate": 0.0}
    supernet = build(family, arguments, None, weights)
    arch, found = best_of(settings, supernet, within(geometry, step.share * whole_macs), seed=step.seed)
    searching = time.perf_counter() - began
    inherited, cost = supernet.extract(arch), geometry.cost(arch)
    config = schedule(settings, epochs, lr=lr, fresh=not taught)
    tuned = train(
        settings,
        images(settings).second,
        family,
        arguments,
        Only(arch),
        replace(config, distill=DistillConfig(source="none", weight=0.5 if taught else 0.0)),
        seed=step.seed,
        start=inherited.state_dict(),
        teacher=supernet.extract(geometry.space.largest()) if taught else None,
    )
    keep(
        settings,
        step,
        tuned,
        began,
        arch=arch.to_dict(),
        params=cost.params,
        macs=cost.macs,
        epochs=epochs,
        in_search=found.score,
        searching=searching,
        inherited=outcome_to_dict(judged(settings, inherited, cost)),
        outcome=outcome_to_dict(judged(settings, build(family, arguments, arch, tuned), cost)),
    )


def champion(settings: Settings, step: Step) -> None:
    """The way that is to be judged."""
    _champion_of(settings, step, f"supernet-{step.seed}")


def champion_by_sandwich(settings: Settings, step: Step) -> None:
    """The same of the supernet that sandwiches trained."""
    _champion_of(settings, step, f"sandwich-{step.seed}")


def _champion_of(settings: Settings, step: Step, trained_by: str) -> None:
    weights, about = read(settings, trained_by)
    supernet = as_supernet(settings, about["order"])
    epochs = settings.champion_epochs
    _searched_and_tuned(
        settings, step, ELASTIC, supernet.geometry, weights, whole_macs=supernet.macs, epochs=epochs, lr=LR / 2, taught=True
    )


def cut(settings: Settings, step: Step) -> None:
    """The same search on the network that was not trained elastically; more fine-tuning, at the higher rate."""
    weights, about = read(settings, f"whole-{step.seed}")
    supernet = as_supernet(settings, about["order"])
    epochs = costs(settings).cut_epochs(step.share)
    _searched_and_tuned(
        settings, step, ELASTIC, supernet.geometry, weights, whole_macs=supernet.macs, epochs=epochs, lr=LR, taught=True
    )


def from_scratch(settings: Settings) -> Geometry[Any]:
    """AutoFormer's space of networks as large as those of the pretrained one."""
    space = SpaceConfig(embed_dim=(40, 56, 64), num_heads=(2, 3, 4), mlp_ratio=(1.0, 2.0, 3.0, 4.0), depth=(3, 4, 5, 6))
    sizes = SupernetSizes(
        patch_size=PATCH,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        mlp_ratio=float(RATIO),
        head_dim=WIDTH // HEADS,
        relative_position=False,
    )
    parts = images(settings)
    return FROM_SCRATCH.build(AutoFormerConfig(space, sizes), parts.task.ends(parts.second))


def autoformer(settings: Settings, step: Step) -> None:
    """A supernet from scratch, for both budgets."""
    began, geometry, told = time.perf_counter(), from_scratch(settings), costs(settings)
    config = schedule(settings, told.scratch_epochs, lr=LR_FRESH, fresh=True)
    config = replace(config, draw_from="band", weight_init="xavier", pos_embed_std=0.2)
    weights = train(
        settings,
        images(settings).second,
        FROM_SCRATCH,
        {**geometry.settings, "drop_path_rate": 0.0},
        band(geometry, told.macs),
        config,
        seed=step.seed,
    )
    keep(settings, step, weights, began, epochs=told.scratch_epochs)


def autoformer_champion(settings: Settings, step: Step) -> None:
    """Its champion of a budget."""
    weights, _ = read(settings, f"autoformer-{step.seed}")
    told = costs(settings)
    _searched_and_tuned(
        settings,
        step,
        FROM_SCRATCH,
        from_scratch(settings),
        weights,
        whole_macs=told.macs,
        epochs=told.scratch_champion_epochs(step.share),
        lr=LR_FRESH / 2,
        taught=False,
    )


@cache
def plain_of(macs: float) -> tuple[StockNetwork, Cost]:
    """The vision transformer of timm's whose MACs are nearest to ``macs``, of those that a person would write down."""
    found: list[tuple[StockNetwork, Cost]] = []
    for width in range(16, WIDTH + 1, 16):
        for depth in range(3, DEPTH + 3):
            # In closed form, as PyTorch counts: projections and feed-forward parts, products of attention, patches, classifier.
            tokens = (28 // PATCH) ** 2 + 1
            block = tokens * (4 + 2 * RATIO) * width**2 + 2 * tokens**2 * width
            ends = (tokens - 1) * PATCH**2 * width + 10 * width
            arch = plain_vit(width, depth)
            found.append((arch, Cost(0, depth * block + ends)))
    arch, cost = min(found, key=lambda pair: abs(pair[1].macs / macs - 1))
    network = build_subnet(STOCK, {}, arch.to_dict())
    return arch, Cost(sum(p.numel() for p in network.parameters()), cost.macs)


def plain(settings: Settings, step: Step) -> None:
    """A vision transformer of timm's from scratch."""
    began, told = time.perf_counter(), costs(settings)
    arch, cost = plain_of(step.share * told.macs)
    epochs = told.plain_epochs(step.share, cost.macs)
    config = schedule(settings, epochs, lr=LR_FRESH, fresh=True)
    weights = train(settings, images(settings).second, STOCK, {}, Only(arch), config, seed=step.seed)
    result = judged(settings, build(STOCK, {}, arch, weights), cost)
    keep(
        settings,
        step,
        weights,
        began,
        arch=arch.to_dict(),
        params=cost.params,
        macs=cost.macs,
        epochs=epochs,
        outcome=outcome_to_dict(result),
    )


# --- all of them ------------------------------------------------------------------------------------------------------


def do(settings: Settings, name: str) -> float:
    """Do one step, in a process of its own. Returns its seconds."""
    torch.set_num_threads(1)
    step = next(step for step in steps(settings) if step.name == name)
    began = time.perf_counter()
    step.does(settings, step)
    return time.perf_counter() - began


def do_all(settings: Settings, screen: Console) -> None:
    """Do what is left, as many steps at a time as there are processes; says when each is done."""
    left = [step for step in steps(settings) if not step.path(settings).exists()]
    finished, total = {step.name for step in steps(settings)} - {step.name for step in left}, len(steps(settings))
    if finished:
        screen.print(f"{len(finished)} of {total} steps are done already", highlight=False)
    running: dict[Future[float], Step] = {}
    with ProcessPoolExecutor(settings.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            while left or running:
                for step in [step for step in left if finished.issuperset(step.needs)][: settings.processes - len(running)]:
                    left.remove(step)
                    running[pool.submit(do, settings, step.name)] = step
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    step = running.pop(future)
                    seconds = future.result()
                    finished.add(step.name)
                    screen.print(f"{len(finished)} of {total}: {step.name} in {duration_text(seconds)}", highlight=False)
                    write_whole(settings.output / TABLE, markdown(settings))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


# --- the table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Way:
    """One way to a network of a budget, as far as its steps are done."""

    name: str
    tested: dict[int, Outcomes] = field(default_factory=dict[int, Outcomes])
    """Which test images its network knows, by seed."""
    inherited: dict[int, Outcomes] = field(default_factory=dict[int, Outcomes])
    """The same before its fine-tuning."""
    macs: list[int] = field(default_factory=list[int])
    epochs: list[int] = field(default_factory=list[int])


def done(settings: Settings, name: str) -> bool:
    """Whether a step left its file."""
    return (settings.output / f"{name}.safetensors").exists()


def ways(settings: Settings, share: float) -> list[Way]:
    """What stands in the table for a budget."""
    of, found = round(100 * share), list[Way]()
    files = {CHAMPION: "champion", CUT: "cut", PLAIN: "plain", SCRATCH: "scratch"}
    for name, file in (files | ({SANDWICH: "sandwich"} if settings.sandwich else {})).items():
        way = Way(name)
        for seed in range(settings.seeds):
            if not done(settings, f"{file}-{seed}-{of}"):
                continue
            about = read(settings, f"{file}-{seed}-{of}")[1]
            way.tested[seed] = tested(about["outcome"])
            if "inherited" in about:
                way.inherited[seed] = tested(about["inherited"])
            way.macs.append(about["macs"])
            way.epochs.append(about["epochs"])
        found.append(way)
    return found


def tested(outcome: dict[str, Any]) -> Outcomes:
    """Which test images a network knows."""
    result = outcome_from_dict(outcome)
    assert isinstance(result, Result)
    return result.by_item(result.items_seen)


def over_seeds(values: Sequence[float], otherwise: Interval | None) -> str:
    """A mean in per cent ± half of its 95 % interval over seeds; of one seed, that over test images."""
    found = mean_interval(values) or otherwise
    return f"{100 * float(np.mean(values)):.2f}" + ("" if found is None else f" ± {100 * found.half:.2f}")


def accuracy(networks: Mapping[int, Outcomes]) -> str:
    """Of networks of several seeds; empty where none is known yet."""
    found = list(networks.values())
    return over_seeds([float(each.mean()) for each in found], score_interval(found[0])) if found else ""


def leads(first: Mapping[int, Outcomes], second: Mapping[int, Outcomes]) -> list[float]:
    """By how much the first is above the second, of the seeds of which both are known."""
    return [float(one.mean() - second[seed].mean()) for seed, one in first.items() if seed in second]


def difference(first: Mapping[int, Outcomes], second: Mapping[int, Outcomes]) -> str:
    """Of the same seeds, in pairs of test images; empty where none is known yet."""
    found = leads(first, second)
    if not found:
        return ""
    seed = next(seed for seed in first if seed in second)
    text = over_seeds(found, paired_difference(first[seed], [second[seed]]))
    return text if text.startswith("-") else f"+{text}"


def markdown(settings: Settings) -> str:
    """The table as far as steps are done, and what it says."""
    told, all_steps = costs(settings), steps(settings)
    full = {
        s: tested(read(settings, f"whole-{s}")[1]["outcome"]) for s in range(settings.seeds) if done(settings, f"whole-{s}")
    }
    first = tested(read(settings, "pretrained")[1]["outcome"])
    rows = [["test accuracy in per cent", "MACs", "inherited", "trained", "epochs of it", "champion minus it"]]
    rows.append([f"{FULL}, fine-tuned", f"{told.macs / 1e6:.2f} M", "", accuracy(full), str(settings.whole_epochs), ""])
    holds: list[str] = []
    for share in SHARES:
        found, budget = ways(settings, share), f"{round(100 * share)} %"
        of = found[0]
        for way in found:
            macs = f"{np.mean(way.macs) / 1e6:.2f} M" if way.macs else ""
            epochs = str(way.epochs[0]) if way.epochs else ""
            lead = "" if way is of else difference(of.tested, way.tested)
            rows.append([f"{way.name}, {budget}", macs, accuracy(way.inherited), accuracy(way.tested), epochs, lead])
        rows.append([f"({FULL} beside the champion, {budget})", "", "", "", "", difference(of.tested, full)])
        for way in found[1:4]:
            if known := leads(of.tested, way.tested):
                holds.append(f"at {budget} the champion is {'above' if np.mean(known) > 0 else 'NOT above'} {way.name}")
        if share == SHARES[0] and (known := leads(full, of.tested)):
            loss = 100 * float(np.mean(known))
            fits = "at most 1 point" if loss <= 1 else "MORE than 1 point"
            holds.append(f"at {budget} it is {fits} below the full network ({loss:.2f})")
    finished = [step for step in all_steps if done(settings, step.name)]
    seconds = sum(read(settings, step.name)[1]["seconds"] for step in finished)
    repeated = f"{settings.seeds} seed{'s' * (settings.seeds != 1)}"
    over = "over seeds" if settings.seeds > 1 else "over test images, as there is one seed"
    epochs = [(told.whole + told.elastic + told.champion(share)) / told.macs / 3 for share in SHARES]
    said = [
        f"{repeated}; ± is half of a 95 % interval {over}. The network that stands for a pretrained one was trained once, for "
        f"{settings.pretrain_epochs} epochs on other images, to {100 * float(first.mean()):.2f} %.",
        f"Trained on {settings.images:,} images; further training costs each way the same at a budget, in multiply-accumulates "
        f"by image: {epochs[0]:.1f} epochs of the full network at 50 %, {epochs[1]:.1f} at 25 % (the full network itself was "
        f"fine-tuned for {settings.whole_epochs}). Elastic training: {settings.elastic_epochs} epochs; AutoFormer's supernet: "
        f"{told.scratch_epochs}.",
        f"Expected, and found: {'; '.join(holds) or 'nothing yet'}.",
        f"{len(finished)} of {len(all_steps)} steps are done and took {duration_text(seconds)} of one processor.",
    ]
    lines = [f"| {' | '.join(cells)} |" for cells in (rows[0], ["-", *("-:" for _ in rows[0][1:])], *rows[1:])]
    return "\n".join(["# A pretrained network made elastic", "", *lines, *(line for text in said for line in ("", text)), ""])


def main(settings: Settings, screen: Console) -> None:
    """Do what is left, write the table and print it."""
    if settings.quick:
        settings = replace(settings, **QUICK)
    print_heading(screen, "A pretrained network made elastic")
    with cli.reported(continued="the same command"):
        settings.output.mkdir(parents=True, exist_ok=True)
        held = settings.output / "settings.json"
        own = json.dumps(settings.kept(), indent=1)
        if held.exists() and held.read_text() != own:
            raise UserError(f"{held} tells of other settings than these; repeat them, or give another --output")
        write_whole(held, own)
        for split in ("search", "test"):
            scored_images(settings, split)
        do_all(settings, screen)
        text = markdown(settings)
        write_whole(settings.output / TABLE, text)
        screen.print(text, highlight=False, soft_wrap=True, markup=False)
        screen.print(f"written to {settings.output / TABLE}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that are started here
    main(tyro.cli(Settings, description=__doc__), console())
