"""Which training of a supernet makes its ranking true? Measured on Fashion-MNIST, in a band of cost.

Supernets of one small space are trained in several ways, each for the same number of multiply-accumulates (a forward pass
counts once, the backward pass after it twice). 300 random subnets of the band are scored by another one, which is trained for
a while; one is drawn from each of 60 equal parts of that ranking. Each of these is trained from scratch, every third with a
second seed: that is the truth that inherited scores, those after one epoch of fine-tuning, parameters, MACs and zero-cost
proxies should agree with.

The band is wide, a factor of four: subnets of equal cost differ here by no more than two trainings of one of them do
(docs/validation.md). Partial taus given parameters say what is known beyond size.

Every finished piece of work is a line of the results file and is not repeated; the order is such that the work may end at any
point, and what is there is a smaller experiment of the same kind. Inherited scores are of the search images; retrained networks
are judged on the finalist images, which nobody else was scored on. The test images are not read.

    OMP_NUM_THREADS=1 nice -n 10 python benchmarks/validation.py
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import torch
import tyro
from shared import machine, versions

from raysearch.jobs.validate import fine_tuning
from raysearch.recipes.autoformer import FASHION_MNIST_RECIPE
from raysearch.scoring.proxies import PROXIES
from raysearch.scoring.score import score
from raysearch.search import Result, SearchProblem
from raysearch.space.cost import Constraint
from raysearch.spaces.autoformer import FAMILY, AutoFormerArchitecture, AutoFormerConfig, SpaceConfig
from raysearch.store.lines import JsonLines
from raysearch.tasks.images.cache import open_cache
from raysearch.tasks.images.device import DeviceImages
from raysearch.training import checkpoint
from raysearch.training.alone import train_alone
from raysearch.training.config import DistillConfig, TrainingConfig
from raysearch.training.draws import Band
from raysearch.training.strategy import Strategy as Steps
from raysearch.training.supernets import build_supernet
from raysearch.training.trainer import SupernetTrainer

RECIPE = replace(
    FASHION_MNIST_RECIPE,
    task=replace(
        FASHION_MNIST_RECIPE.task,
        dataset=replace(FASHION_MNIST_RECIPE.task.dataset, search_images=5_000, finalist_images=10_000),
    ),
    config=AutoFormerConfig(
        SpaceConfig(
            embed_dim=(24, 32, 48, 64, 96), num_heads=(1, 2, 3, 4), mlp_ratio=(0.5, 1.0, 2.0, 4.0), depth=(1, 2, 3, 4, 5)
        ),
        replace(FASHION_MNIST_RECIPE.config.net, patch_size=14, embed_dim=96, depth=5, head_dim=16, relative_position=False),
    ),
    train=replace(FASHION_MNIST_RECIPE.train, epochs=5, batch_size=128, lr=2e-3, warmup_epochs=1, drop_path=0.0),
    constraint=Constraint(min_macs=60e3, max_macs=240e3),
)
"""5,592,400 subnets of 5 tokens, of 30,416 to 2,360,704 MACs. One block 96 wide costs as much as five blocks 24 wide."""

POOL = 300
"""Random subnets of the band, from which those to retrain are drawn."""
EPOCHS = 5
"""Of each training from scratch."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where files are, and how much is done."""

    results: Path = Path("benchmarks/validation.jsonl")
    """One line for each piece of work."""
    work: Path = Path("runs/validation")
    """Supernets, also half-trained ones, and cached images."""
    subnets: int = 60
    """Retrained at most; the draw does not depend on it."""
    macs: float = 0.6e12
    """Forward and backward, of each supernet's training."""
    trainings: int | None = None
    """From scratch, at most, before fine-tuning begins; all where not given."""
    stop_after: float | None = None
    """Seconds after which no new piece of work is begun."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way of training a supernet."""

    band: bool = False
    """Whether architectures are drawn from the band alone."""
    train: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Settings of the training besides those of all."""


_SANDWICH = {"strategy": "sandwich", "archs_per_step": 2, "distill": DistillConfig(source="largest")}

STRATEGIES: dict[str, Strategy] = {
    "single-path": Strategy(),
    "sandwich, distilled": Strategy(train=_SANDWICH),
    "largest first, then sandwich, distilled": Strategy(train={**_SANDWICH, "largest_first": 0.4}),
    "single-path, band": Strategy(band=True),
    "multi": Strategy(train={"strategy": "multi", "archs_per_step": 4}),
}
"""By the names of the table."""
DRAWING = "for the draw"
"""A single-path supernet whose scores say which subnets are retrained: the beginning of a longer training."""
DRAWING_MACS, DRAWING_ROUNDS = 1.2e12, 72
"""For which its learning rate is planned, and after how many rounds it is used."""
AT_ONCE, GROUP = 3, 16
"""Supernets before the first training from scratch, and trainings before each of the others."""
STEPS_PER_ROUND = 39
"""Supernets are trained in rounds of so many steps, of which the schedule has a whole number."""


class Rounds:
    """The epochs of some batches cut into rounds, which the trainer takes for its epochs."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self._in_epoch = batches.steps_per_epoch // STEPS_PER_ROUND
        self.steps_per_epoch = STEPS_PER_ROUND

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The steps of one round."""
        of, part = divmod(epoch, self._in_epoch)
        yield from islice(self._batches.epoch(of, part * STEPS_PER_ROUND + start), STEPS_PER_ROUND - start)


class Experiment:
    """The pieces of work, in an order in which the work may end anywhere."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.task, self.recipe = RECIPE.task, RECIPE
        self.splits = self.task.splits()
        self.geometry = FAMILY.build(RECIPE.config, self.task.ends(self.splits))
        self.problem = SearchProblem(self.geometry.space, self.geometry.cost, RECIPE.constraint)
        self.net = {**self.geometry.settings, "drop_path_rate": 0.0}
        self.train = replace(RECIPE.train, epochs=EPOCHS)
        header = {
            "recipe": self.recipe.to_dict(),
            "splits": self.splits.digest,
            "epochs": EPOCHS,
            "pool": POOL,
            "machine": machine().partition("; load")[0],
            "versions": versions(),
        }
        settings.results.parent.mkdir(parents=True, exist_ok=True)
        self._lines = JsonLines(settings.results, lambda row: (str(row["work"]), row), header=header, remedy="remove that line")
        self.done: dict[str, dict[str, Any]] = dict(self._lines.rows)
        if self._lines.header["splits"] != self.splits.digest:
            raise SystemExit(f"{settings.results} is of other images; restore them, or name another file")

    # --- the order ---

    def run(self) -> None:
        """Do what is left, until the time is over."""
        began = time.monotonic()
        for name, work in self.pieces():
            if name in self.done:
                continue
            if self.settings.stop_after is not None and time.monotonic() - began > self.settings.stop_after:
                print(f"stopped before {name}")
                return
            started, cpu = time.monotonic(), time.process_time()
            values = work()
            row = {"work": name, **values, "cpu_seconds": round(time.process_time() - cpu, 1)}
            self._lines.append(row)
            self.done[name] = row
            shown = {k: v for k, v in row.items() if isinstance(v, int | float)}
            print(f"{name}: {shown} ({time.monotonic() - started:.0f} s)", flush=True)

    def pieces(self) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
        """The draw, three supernets, trainings from scratch and the other supernets in turns, fine-tuning."""
        yield f"supernet/{DRAWING}", self.train_for_the_draw
        yield "draw", self.draw
        yield "proxies", self.proxies
        trainings = self.trainings()
        for i, name in enumerate(STRATEGIES):
            if i >= AT_ONCE:
                yield from islice(trainings, GROUP)
            yield from self.of_supernet(name)
        yield from trainings
        for name in STRATEGIES:
            yield from self.finetunings(name)

    def of_supernet(self, name: str) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
        """Training and inherited scores."""
        yield f"supernet/{name}", lambda: self.train_supernet(name, STRATEGIES[name], macs=self.settings.macs)
        yield f"inherited/{name}", lambda: self.inherited(name)

    def finetunings(self, name: str) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
        """One epoch for each subnet that was retrained, from the weights that it inherits of a supernet."""
        supernet = None
        for arch in self.drawn:
            piece = f"finetuned/{name}/{arch.id}"
            if f"retrained/{arch.id}/0" in self.done and piece not in self.done and self.supernet_file(name).exists():
                supernet = supernet or self.supernet(name)
                yield piece, lambda arch=arch, supernet=supernet: self.finetune(supernet, arch)

    def trainings(self) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
        """From scratch: three subnets, then the first of them again with another seed, and so on."""
        subnets = self.drawn[: self.settings.subnets]
        order = [
            training
            for start in range(0, len(subnets), 3)
            for training in [*((arch, 0) for arch in subnets[start : start + 3]), (subnets[start], 1)]
        ]
        for arch, seed in order[: self.settings.trainings]:
            yield f"retrained/{arch.id}/{seed}", lambda arch=arch, seed=seed: self.retrain(arch, seed)

    # --- supernets ---

    def draws_of(self, strategy: Strategy) -> Any:
        """Where a strategy's architectures come from."""
        return Band(self.problem) if strategy.band else self.geometry.space

    def macs_of(self, steps: Steps[AutoFormerArchitecture], config: TrainingConfig, step: int, *, of: int) -> int:
        """Multiply-accumulates of a step: three for each of a forward pass, one where nothing is learned from it."""
        passes = steps.passes(step, of=of, images=config.batch_size)
        macs = 3 * sum(self.problem.cost(one.arch).macs * len(one.rows) for one in passes)
        largest = self.geometry.space.largest()
        if config.distill.source == "largest" and config.strategy != "sandwich" and any(p.arch != largest for p in passes):
            macs += self.problem.cost(largest).macs * config.batch_size
        return macs

    def train_for_the_draw(self) -> dict[str, Any]:
        """The supernet that decides the draw."""
        return self.train_supernet(DRAWING, Strategy(), macs=DRAWING_MACS, stop=DRAWING_ROUNDS)

    def train_supernet(self, name: str, strategy: Strategy, *, macs: float, stop: int | None = None) -> dict[str, Any]:
        """Train one from scratch for so many multiply-accumulates; continues a training that was broken off."""
        draws = self.draws_of(strategy)
        config = replace(self.train, **strategy.train)
        steps = Steps(draws, config, seed=0, rank=0, cost=self.problem.cost)
        sampled = 1_000
        of_step = sum(self.macs_of(steps, config, step, of=sampled) for step in range(sampled)) / sampled
        rounds = max(1, round(macs / of_step / STEPS_PER_ROUND))
        last = min(rounds, stop or rounds)
        per_epoch = len(self.splits.train) // self.train.batch_size // STEPS_PER_ROUND
        config = replace(config, epochs=rounds, warmup_epochs=min(per_epoch, rounds / 10))
        supernet = build_supernet(FAMILY, self.net, weight_init=config.weight_init, pos_embed_std=config.pos_embed_std, seed=0)
        trainer = SupernetTrainer(
            supernet,
            draws,
            Rounds(self.task.batches(self.splits.train, batch_size=config.batch_size, seed=0)),
            config,
            task=self.task,
            outputs=10,
            seed=0,
            device=torch.device("cpu"),
            undecayed=FAMILY.undecayed,
            cost=self.problem.cost,
        )
        half = self.settings.work / f"half {name}.safetensors"
        first, cpu = 0, 0.0
        if half.exists():
            state, about = checkpoint.read(half)
            trainer.load_state(state)
            first, cpu = about["rounds"], about["cpu"]
        loss = 0.0
        began = time.process_time()
        for epoch in range(first, last):
            loss = trainer.train_epoch(epoch).loss
            if epoch % per_epoch == per_epoch - 1 or epoch == last - 1:
                about = {"rounds": epoch + 1, "cpu": cpu + time.process_time() - began}
                checkpoint.write(half, checkpoint.pack(trainer.state(), about))
                print(f"  {name}: round {epoch + 1} of {last}, loss {loss:.3f}, {about['cpu']:.0f} CPU s", flush=True)
        checkpoint.write(self.supernet_file(name), checkpoint.pack(supernet.state_dict(), {"name": name}))
        half.unlink()
        spent = sum(self.macs_of(steps, config, step, of=rounds * STEPS_PER_ROUND) for step in range(last * STEPS_PER_ROUND))
        return {
            "macs": spent,
            "steps": last * STEPS_PER_ROUND,
            "loss": loss,
            "training_cpu_seconds": round(cpu + time.process_time() - began, 1),
        }

    def supernet_file(self, name: str) -> Path:
        """Where its weights are."""
        return self.settings.work / f"supernet {name}.safetensors"

    def supernet(self, name: str) -> Any:
        """The trained one, to be scored."""
        supernet = FAMILY.supernet(**self.net)
        supernet.load_state_dict(checkpoint.read(self.supernet_file(name))[0])
        return supernet.eval()

    # --- which subnets ---

    def draw(self) -> dict[str, Any]:
        """One subnet from each of as many equal parts of the pool's ranking, in an order whose beginnings span it too."""
        supernet = self.supernet(DRAWING)
        scores: dict[AutoFormerArchitecture, float] = {}
        for i in range(POOL):
            arch = self.problem.sample(Random(f"pool/{i}"), scores)
            assert arch is not None, "the band holds fewer subnets"
            scores[arch] = self.scored(supernet.extract(arch), arch, "search", images=1_000).score
        ranked = sorted(scores, key=lambda arch: (scores[arch], arch.id))
        strata = 60
        of = POOL // strata
        chosen = [Random(f"stratum/{i}").choice(ranked[i * of : (i + 1) * of]) for i in range(strata)]
        order = sorted(range(strata), key=_halving)
        return {
            "drawn": [
                {"arch": chosen[i].to_dict(), "stratum": i, "pool_score": scores[chosen[i]], **_cost(self.problem, chosen[i])}
                for i in order
            ],
            "pool": sorted(round(s, 4) for s in scores.values()),
        }

    @cached_property
    def drawn(self) -> list[AutoFormerArchitecture]:
        """In the order in which they are retrained."""
        return [AutoFormerArchitecture.from_dict(row["arch"]) for row in self.done["draw"]["drawn"]]

    # --- scores ---

    def images(self, split: str) -> Any:
        """Cached images of a split."""
        path = self.settings.work / f"{split}.arrow"
        self.task.write_cache(getattr(self.splits, split), path)
        return open_cache(path)

    @cached_property
    def _images(self) -> dict[str, Any]:
        return {split: self.images(split) for split in ("search", "finalists")}

    def scored(self, subnet: torch.nn.Module, arch: AutoFormerArchitecture, split: str, *, images: int | None = None) -> Result:
        """Its result on the images of a split, or the first of them."""
        held = self._images[split]
        if images is not None:
            held = replace(held, images=held.images[:images], labels=held.labels[:images])
        found = score(
            subnet,
            DeviceImages(held, torch.device("cpu"), room_bytes=0),
            task=self.task,
            cost=self.problem.cost(arch),
            normalise=self.task.normalise,
            batch_size=250,
            precision="float32",
        )
        assert isinstance(found, Result), found
        return found

    def inherited(self, name: str) -> dict[str, Any]:
        """Of all drawn subnets, and of the largest."""
        supernet = self.supernet(name)
        largest = self.geometry.space.largest()
        return {
            "scores": {arch.id: self.scored(supernet.extract(arch), arch, "search").score for arch in self.drawn},
            "largest": self.scored(supernet.extract(largest), largest, "search").score,
        }

    def proxies(self) -> dict[str, Any]:
        """Zero-cost proxies of all drawn subnets, with fresh weights, on the first 64 search images."""
        held = self._images["search"]
        images = self.task.normalise(torch.from_numpy(held.images[:64].copy()))
        labels = torch.from_numpy(held.labels[:64].copy())
        train = self.train
        fresh = build_supernet(FAMILY, self.net, weight_init=train.weight_init, pos_embed_std=train.pos_embed_std, seed=0)
        values: dict[str, dict[str, float]] = {name: {} for name in PROXIES}
        for arch in self.drawn:
            subnet = fresh.extract(arch).eval()
            for name, proxy in PROXIES.items():
                values[name][arch.id] = proxy(subnet, images, labels)
        return {"values": values}

    def retrain(self, arch: AutoFormerArchitecture, seed: int) -> dict[str, Any]:
        """From scratch; judged on the finalist images, and on the search images for who compares with inherited scores."""
        losses: list[float] = []
        subnet = train_alone(
            FAMILY,
            self.net,
            arch,
            self.splits,
            train=self.train,
            task=self.task,
            seed=Random(f"{seed}/retrain/{arch.id}").getrandbits(31),
            device=torch.device("cpu"),
            on_epoch=lambda record: losses.append(record.loss),
        )
        found = self.scored(subnet, arch, "finalists")
        return {
            "score": found.score,
            "search_score": self.scored(subnet, arch, "search").score,
            "loss": losses[-1],
            "outcomes": base64.b64encode(found.outcomes).decode(),
        }

    def finetune(self, supernet: Any, arch: AutoFormerArchitecture) -> dict[str, Any]:
        """For one epoch, from inherited weights; scored on the search images."""
        subnet = train_alone(
            FAMILY,
            self.net,
            arch,
            self.splits,
            train=fine_tuning(self.train),
            task=self.task,
            seed=0,
            device=torch.device("cpu"),
            start=supernet.extract(arch).state_dict(),
        )
        return {"score": self.scored(subnet, arch, "search").score}


def _cost(problem: SearchProblem[AutoFormerArchitecture], arch: AutoFormerArchitecture) -> dict[str, Any]:
    return {"id": arch.id, "params": problem.cost(arch).params, "macs": problem.cost(arch).macs}


def _halving(i: int) -> int:
    """Van der Corput's order of 0 to 63: every beginning of it is spread evenly."""
    return int(f"{i:06b}"[::-1], 2)


def main(settings: Settings) -> None:
    """Do what is left."""
    torch.set_num_threads(1)
    Experiment(settings).run()


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
