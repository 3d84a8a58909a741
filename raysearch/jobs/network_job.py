"""What finetune, retrain and transfer have in common: a network is trained once more, judged, and left as files."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from rich.console import Console
from torch import Tensor

from raysearch.distributed.cluster import carry
from raysearch.distributed.evaluators import EvaluatorConfig
from raysearch.distributed.files import NodeFile, serve, share
from raysearch.distributed.judging import Judgement, JudgingJob
from raysearch.distributed.network_file import NetworkFile
from raysearch.distributed.training import write_weights
from raysearch.distributed.training_worker import TrainingJob
from raysearch.export import save_subnet
from raysearch.jobs.connecting import connected_to_ray
from raysearch.jobs.found_network import FoundNetwork
from raysearch.jobs.networks import SubnetTraining, interval_of, judged, lead, score_of, train_subnets
from raysearch.jobs.progress import activity
from raysearch.recipes import flat_settings
from raysearch.recipes.resuming import ANYWHERE
from raysearch.space import Architecture, Cost
from raysearch.store.folder import CONFIG, OutputFolder, open_folder, read_record, write_json
from raysearch.store.model_card import CardData, CardTraining, How, ModelCard
from raysearch.store.predictions import PREDICTIONS, write_predictions
from raysearch.store.secrets import without_credentials
from raysearch.store.summary import EpochRecord, TunedNetwork
from raysearch.store.versions import package_versions
from raysearch.tasks import Splits, Task
from raysearch.tracking import After, Tracker, default_uri
from raysearch.training.config import TrainingConfig
from raysearch.training.draws import Only
from raysearch.training.teacher import TeacherFile

Name = Literal["finetune", "retrain", "transfer"]

HOW: Mapping[Name, How] = {"finetune": "fine-tuned", "retrain": "trained from scratch", "transfer": "transferred"}
RESULT = "result.json"
"""File with the numbers: a :class:`~raysearch.store.summary.TunedNetwork`."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a job's results go, and where its processes run."""

    line: str
    """The command line that asks for it."""
    output: Path | None = None
    """Folder of the results; None: one beneath the folder that the network was taken from."""
    tracking_uri: str | None = None
    ray_address: str | None = None


@dataclass(frozen=True, slots=True)
class Before:
    """With what the network was judged so far: the same items, maybe in another size."""

    task: Task
    splits: Splits


@dataclass(frozen=True, eq=False, slots=True)
class Teacher:
    """A frozen network of the same family that teaches beside the labels."""

    words: str
    """What it is."""
    arch: Architecture
    settings: dict[str, Any]
    """Constructor arguments of the supernet."""
    weights: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class NetworkJob:
    """One network, what it is trained on and how, and what it is compared with."""

    name: Name
    source: Path
    """The folder or file that it was taken from."""
    network: FoundNetwork
    """With the weights that it has."""
    task: Task
    splits: Splits
    settings: dict[str, Any]
    """Constructor arguments of the supernet, for these data, but for stochastic depth."""
    start: Mapping[str, Tensor] | None
    """Weights to begin with; None: fresh ones."""
    began: str
    """The same in words."""
    train: TrainingConfig
    seed: int
    evaluators: EvaluatorConfig
    recipe: str
    """Name of the search's recipe: the experiment in MLflow."""
    before: Before | None = None
    """It is compared with the network as it was; None: that knew other classes."""
    teacher: Teacher | TeacherFile | None = None
    """A network of the family, or one of timm's; None: the labels teach alone."""

    @property
    def taught(self) -> str | None:
        """Who teaches, in words."""
        if isinstance(self.teacher, TeacherFile):
            return f"timm's {self.teacher.name}"
        return None if self.teacher is None else self.teacher.words

    @property
    def arch(self) -> Architecture:
        """Of the network."""
        return self.network.family.architecture.from_dict(self.network.card.arch)

    @property
    def cost(self) -> Cost:
        """Of the network, on these data."""
        with torch.device("meta"):
            return self.network.family.supernet(**self.settings).cost(self.arch)

    def identity(self) -> dict[str, Any]:
        """What makes it this job, as JSON values: it goes on where these are the same."""
        task = {**asdict(cast(Any, self.task)), "name": self.task.name}
        values = {
            "network": self.network.card.id,
            "weights": _digest(self.network.module.state_dict()),
            "task": task,
            "images": self.splits.digest[:12],
            "train": asdict(self.train),
            "teacher": self.taught,
            "seed": self.seed,
        }
        if isinstance(self.teacher, TeacherFile):  # one of the family is the search's, as the network is
            values["teacher_weights"] = _digest(self.teacher.weights)
        return json.loads(json.dumps(values, default=str))

    def folder(self) -> Path:
        """Where the results go where no place is given: beneath the folder that the network was taken from."""
        named = {name: value for name, value in flat_settings(self.identity()).items() if name not in ANYWHERE}
        digest = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
        base = self.source if self.source.is_dir() else self.source.parent
        return base / f"{self.name}-{self.network.card.id}-{digest[:6]}"


def _digest(weights: Mapping[str, Tensor]) -> str:
    """Begin of a hash of named weights."""
    content = hashlib.sha256()
    for name in sorted(weights):
        content.update(name.encode() + weights[name].detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()[:12]


def carry_out(job: NetworkJob, places: Places, console: Console) -> Path:
    """Do it, or what is left of it; returns the folder of the results.

    Raises UserError, in one line with the remedy, for what the user can mend.
    """
    path = places.output or job.folder()
    config = {
        "job": job.name,
        "command": places.line,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "search_id": job.network.card.search_id or uuid.uuid4().hex[:12],
        "recipe": job.identity(),
    }
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder(path, config, resume=True, may_change=ANYWHERE))
        if folder.finished:
            console.print(f"{path} is finished already:", highlight=False, soft_wrap=True)
        else:
            tracker = stack.enter_context(_tracker(job, places, folder))
            stack.enter_context(connected_to_ray(places.ray_address, console))
            carry(job.network.family, job.task)
            _say(job, path, console)
            _work(job, folder, tracker, console)
            folder.finish()
            _trained(folder).unlink(missing_ok=True)
    card = read_record(path / "champion.json", ModelCard)
    for line in result_lines(read_record(path / RESULT, TunedNetwork), card):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"network: {path / 'champion.json'}", highlight=False, soft_wrap=True)
    return path


def _trained(folder: OutputFolder) -> Path:
    """The file of the trained weights, until they are the champion's."""
    return folder.path / "network.safetensors"


def _tracker(job: NetworkJob, places: Places, folder: OutputFolder) -> Tracker:
    base = job.source.absolute() if job.source.is_dir() else job.source.absolute().parent
    tracker = Tracker(
        uri=places.tracking_uri or default_uri(base.parent),
        experiment=job.recipe,
        search_id=folder.search_id,
        run_name=folder.path.name,
        params=flat_settings(folder.config["recipe"]),
        tags={"raysearch.command": folder.config["command"], "raysearch.subnet": job.network.card.id or ""},
        spool=folder.spool,
        after=After(job.name, folder.path.name),
    )
    profile = {part: len(getattr(job.splits, part)) for part in ("train", "search", "finalists", "test")}
    tracker.log_dataset(job.task.data_name, digest=job.splits.digest, source=job.task.data_source, profile=profile)
    return tracker


def _say(job: NetworkJob, path: Path, console: Console) -> None:
    cost, train = job.cost, job.train
    console.print(
        f"{job.name}: subnet {job.network.card.id}, {cost.params:,} parameters, beginning with {job.began}; "
        f"{train.epochs} epochs on {len(job.splits.train):,} images, batches of {train.batch_size}, learning rate up to "
        f"{train.lr:.2g}  ->  {path}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )


def _work(job: NetworkJob, folder: OutputFolder, tracker: Tracker, console: Console) -> None:
    """Train, judge, and write the files."""
    server, family, arch = serve(), job.network.family, job.arch
    begun: list[Path] = []

    def shared(name: str, weights: Mapping[str, Tensor]) -> NodeFile:
        begun.append(folder.path / f"{name}.safetensors")
        write_weights(begun[-1], weights)
        return share(begun[-1], server=server)

    def caches(task: Task, splits: Splits, prefix: str = "") -> dict[str, NodeFile]:
        found: dict[str, NodeFile] = {}
        for split in ("search", "finalists", "test"):
            if len(items := getattr(splits, split)):
                path = folder.path / "cache" / f"{prefix}{split}.arrow"
                with activity(console, f"preparing {len(items):,} images to judge the network on"):
                    task.write_cache(items, path)
                found[split] = share(path, server=server)
        return found

    teaches: NodeFile | NetworkFile | None = None
    if isinstance(job.teacher, TeacherFile):
        begun.append(folder.path / "teacher.safetensors")
        job.teacher.write(begun[-1])
        teaches = share(begun[-1], server=server)
    elif job.teacher is not None:
        teaches = NetworkFile(family, job.teacher.settings, job.teacher.arch, shared("teacher", job.teacher.weights))

    training = TrainingJob(
        family=family,
        settings={**job.settings, "drop_path_rate": job.train.drop_path},
        space=Only(arch),
        train=job.train,
        task=job.task,
        seed=job.seed,
        images=job.splits.digest,
        start=None if job.start is None else shared("start", job.start),
        teacher=teaches,
        continued="the same command",
    )
    images = caches(job.task, job.splits)  # an image that cannot be read ends the job before the training
    done = _trained(folder)
    with tracker.training({}, run="search"):
        subnet = SubnetTraining(job.name, training, done, on_epoch=partial(_log_epoch, tracker))
        (history,) = train_subnets([subnet], console, phase_name=job.name)
    file = NetworkFile(family, job.settings, arch, share(done, server=server))
    jobs = {"after": JudgingJob(file, job.cost, job.task, job.evaluators, images, predicted="test")}
    if job.before is not None:
        earlier = NetworkFile(family, job.network.card.settings, arch, shared("before", job.network.module.state_dict()))
        same = job.before.task == job.task
        jobs["before"] = replace(
            jobs["after"],
            network=earlier,
            task=job.before.task,
            images=images if same else caches(job.before.task, job.before.splits, "before-"),
            predicted=None,
        )
    found = judged(jobs, console)
    result = _result(job, found, history)
    card = _card(job, result, line=folder.config["command"])
    write_json(folder.path / RESULT, result.to_dict())
    if (said := found["after"].predictions) is not None:
        named = replace(said, classes=tuple(job.splits.classes), names=job.task.item_names(job.splits.test))
        write_predictions(folder.path / PREDICTIONS, named)
    save_subnet(folder.path / "champion.json", file.open(), family=family, card=card)
    _record(job, folder, tracker, result, card)
    for path in begun:
        path.unlink()


def _log_epoch(tracker: Tracker, record: EpochRecord) -> None:
    values = {"train/loss": record.loss, "train/lr": record.lr, "train/skipped_steps": record.skipped or None}
    tracker.log_metrics(values, step=record.epoch)


def _result(job: NetworkJob, found: Mapping[str, Judgement], history: list[EpochRecord]) -> TunedNetwork:
    """The numbers: scores of the search split and the test split, beside those of the weights that it had before."""
    after, before = found["after"], found.get("before")
    held_out = [split for split in after.outcomes if split != "test"]
    first = next(iter(held_out), "test")
    return TunedNetwork(
        id=job.arch.id,
        arch=job.arch.to_dict(),
        params=job.cost.params,
        macs=job.cost.macs,
        score=score_of(after, first),
        score_interval=interval_of(after, first),
        gain=lead(after, before, held_out) if held_out else None,
        inherited_test=score_of(before, "test"),
        test=score_of(after, "test"),
        test_interval=interval_of(after, "test"),
        test_gain=lead(after, before, ["test"]),
        history=history,
    )


def _card(job: NetworkJob, result: TunedNetwork, *, line: str) -> ModelCard:
    """The model card that says what was done."""
    known, splits = job.network.card, job.splits
    same_inputs = known.preprocessing == job.task.preprocessing()
    return replace(
        known,
        settings=job.settings,
        id=result.id,
        score=result.score,
        test_score=result.test,
        params=result.params,
        macs=result.macs,
        latency_ms=known.latency_ms if same_inputs else None,
        score_images=len(splits.search),
        test_images=len(splits.test),
        precision=job.evaluators.precision,
        classes=list(splits.classes),
        preprocessing=job.task.preprocessing(),
        data=CardData(
            recipe=job.recipe,
            dataset=job.task.data_name,
            train_images=len(splits.train),
            search_images=len(splits.search),
            test_images=len(splits.test),
            finalist_images=len(splits.finalists),
            seed=job.task.split_seed,
            digest=splits.digest,
        ),
        command=without_credentials(line),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=package_versions(),
        origin=known.origin or "champion of the search",
        remark=None,
        training=CardTraining(
            how=HOW[job.name],
            began=job.began,
            epochs=job.train.epochs,
            lr=job.train.lr,
            batch_size=job.train.batch_size,
            taught=job.taught,
            earlier_test=result.inherited_test,
            test_gain=result.test_gain,
        ),
    )


def _record(job: NetworkJob, folder: OutputFolder, tracker: Tracker, result: TunedNetwork, card: ModelCard) -> None:
    """Numbers and files for MLflow."""
    numbers = {"score": result.score, "test_score": result.test, "earlier_test_score": result.inherited_test}
    for name, gain in (("gain", result.gain), ("test_gain", result.test_gain)):
        if gain is not None:
            numbers |= {name: gain.value, f"{name}_low": gain.low, f"{name}_high": gain.high}
    tracker.log_metrics(numbers | {"params": result.params, "macs": result.macs}, step=0)
    tracker.set_tags({"mlflow.note.content": " ".join(result_lines(result, card))})
    for name in ("champion.json", "champion.safetensors", "champion.md", RESULT, PREDICTIONS, CONFIG):
        if (folder.path / name).exists():
            tracker.log_artifact(folder.path / name)


def result_lines(result: TunedNetwork, card: ModelCard) -> list[str]:
    """What came of it, in words."""
    scale, images = card.scale, card.test_images
    assert card.training is not None
    words = f"subnet {result.id}, {card.training.how}: {scale.titled(scale.text(result.test))} of {images:,} test images"
    if result.test_interval is not None and scale.is_share:
        words += f" (95 %: {100 * result.test_interval.low:.1f} to {100 * result.test_interval.high:.1f})"
    lines = [words]
    if result.test_gain is not None:
        gain = f"{scale.difference(result.test_gain.value, sign='+')} ± {scale.difference(result.test_gain.half)}"
        lines.append(f"before: {scale.text(result.inherited_test)}; the difference is {gain}{scale.points} (95 %, in pairs)")
    return lines
