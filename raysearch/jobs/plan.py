"""What is asked for, and what follows from it before anything is computed."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from raysearch.bounds import Count, Positive, check_numbers
from raysearch.distributed.files import content_digest
from raysearch.errors import SettingError, UserError
from raysearch.jobs.given import sized_by_supernet
from raysearch.jobs.given_start import Start, other_classes, start_of
from raysearch.jobs.pretrained import PRETRAINED, is_prepared, pretrained_start, read_pretrained, seen_as
from raysearch.jobs.proxy_start import ProxyStart
from raysearch.jobs.teaching import check_cached, taught
from raysearch.recipes import Recipe
from raysearch.recipes.fitted import Machine, fitted_recipe, with_epochs
from raysearch.recipes.recipe import BESIDE, ChampionConfig
from raysearch.recipes.stored import of_0_1_0, stored_recipe, upgraded
from raysearch.scoring.latency import LatencyTable
from raysearch.scoring.proxies import PROXIES
from raysearch.search import first_generation
from raysearch.space import Architecture, Constraint, Cost, SearchProblem
from raysearch.spaces import Geometry
from raysearch.spaces.stock import check_timm_name
from raysearch.store.candidates import CANDIDATES
from raysearch.store.folder import CONFIG, check_output, read_json
from raysearch.store.paths import absolute_unless_uri, absolute_uri, expanded, of_home
from raysearch.store.warm_start import best_of_search, listed_architectures
from raysearch.tasks import Splits, Task
from raysearch.tracking import artifact_of_run, default_uri
from raysearch.training.config import TrainingConfig
from raysearch.training.draws import Band, Draws
from raysearch.training.supernets import SupernetFile, read_supernet

T = TypeVar("T", bound=Task)
C = TypeVar("C")


@dataclass(frozen=True)
class SearchCommand(Generic[T, C]):
    """One search from images to champion, as the command line gives it."""

    recipe: Annotated[Recipe[T, C], tyro.conf.arg(name="")]
    family: str | None = None
    """Kind of networks: a name, or a Python file or module of your own that sets FAMILY. Default: the recipe's."""
    output: Path | None = None
    """Folder for all results. Default: a new one, runs/RECIPE-DATE-TIME; with --resume the newest of this recipe."""
    resume: bool = False
    """Continue the search in the output folder where it stopped."""
    data: str | None = None
    """The images, for the recipes that need some: a folder, a table that lists them, files that hold them, an address, as
    s3://bucket/folder, or a set of torchvision's, as torchvision:CIFAR10 (docs/images.md)."""
    supernet: Path | None = None
    """A trained supernet: our own checkpoint, or a file of another program that the family reads. Training is skipped; where
    its classes are others than those of the images, it is where training begins, with a new head."""
    from_timm: str | None = None
    """Begin with a pretrained vision transformer of timm's, as vit_small_patch16_224.augreg_in21k, or local-dir:FOLDER as timm
    saves one: it is made elastic and searched for its best subnet (docs/elastic.md)."""
    from_timm_weights: Path | None = None
    """File of its weights, as timm, PyTorch and transformers save them. Default: timm's own, from the hub or its cache."""
    new_head: bool = False
    """Begin the training with the supernet of --supernet and a new head, also where it seems to know the same classes."""
    warm_start: str | None = None
    """Start with the best of an earlier search: its folder, its candidates.parquet, its MLflow run id, or a JSON list; or with
    what a zero-cost proxy likes of random subnets: snip, dss or grad_norm."""
    warm_start_count: Count = 10
    """How many of them."""
    storage: str | None = None
    """A second place for all results, as they are written: an address, as s3://bucket/prefix, or a shared folder. With --resume
    any machine goes on from there."""
    time: str | None = None
    """How long the whole search may take here, as 30m or 4h: epochs and candidates that are not given follow from it."""
    max_hours: Positive | None = None
    """Hours of all its runs after which no more candidates are proposed: the champion is chosen among those that there are.
    Training is not cut short."""
    tracking_uri: str | None = None
    """MLflow store. Default: MLFLOW_TRACKING_URI, or SQLite beside the output folders."""
    ray_address: str | None = None
    """Ray cluster. Default: Ray's own rule, a cluster that runs on this node or else a new one on this machine."""

    given: Annotated[frozenset[str], tyro.conf.Suppress] = frozenset()
    """Names of the settings that stood on the command line, as ``train.epochs`` and ``dataset.img_size``."""

    def __post_init__(self) -> None:
        """Paths that travel, to other processes or into the record, become absolute; ``~`` is the home in all of them.

        Raises UserError for a number that cannot be.
        """
        check_numbers(self)
        if self.data is not None:
            object.__setattr__(self, "data", absolute_unless_uri(str(self.data)))
        travelling = {"output": expanded, "supernet": expanded, "from_timm_weights": expanded}
        for name, made in travelling.items():
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, made(path))
        if self.warm_start is not None:
            object.__setattr__(self, "warm_start", of_home(self.warm_start))
        if self.storage is not None:
            object.__setattr__(self, "storage", absolute_unless_uri(self.storage))
        if self.tracking_uri is not None:
            object.__setattr__(self, "tracking_uri", absolute_uri(self.tracking_uri))


@dataclass(frozen=True, slots=True)
class Plan:
    """What follows from the command before anything is computed."""

    recipe: Recipe[Any, Any]
    splits: Splits
    geometry: Geometry[Any]
    problem: SearchProblem[Any]
    given: SupernetFile | None
    """A supernet that is searched as it is."""
    initial: tuple[Architecture, ...] = ()
    """Architectures that open the search."""
    proxy: ProxyStart | None = None
    """Who named them, where that was a proxy."""
    latency: LatencyTable | None = None
    """What predicts latency, where it is asked for; fitted before anything else is computed."""
    start: Start | None = None
    """Weights that the training begins with, where a supernet of other classes was given; None: fresh ones."""
    from_timm: str | None = None
    """The pretrained network that the search begins with, and its file, as ``config.json`` tells them."""
    origin: Mapping[str, str] = field(default_factory=dict[str, str])
    """Where its weights are from and on which terms, as far as it says."""

    @property
    def seen(self) -> str | None:
        """What a reader must know of a given supernet that may have learned the images which choose; None where it has not."""
        if self.start is not None:
            return self.start.seen
        if self.given is None or self.given.images is not None:  # one of ours, trained on these training images alone
            return None
        if self.recipe.task.data_name in ("imagenet", "torchvision:ImageNet"):
            return (
                "The supernet was given by a file that does not say what it was trained on. Published supernets learned from "
                "all training images of ImageNet, of which the search and finalist images are a part: scores on them are of "
                "images that it has seen, too high, and may favour subnets that remember them. The test images are apart."
            )
        return (
            "The supernet was given by a file that does not say what it was trained on: it may have seen images that it is "
            "scored on here, and scores are then too high."
        )

    @property
    def settings(self) -> dict[str, Any]:
        """Constructor arguments of the supernet."""
        return {**self.geometry.settings, "drop_path_rate": self.recipe.train.drop_path}

    @property
    def draws(self) -> Draws[Any]:
        """Where the training draws its architectures from."""
        return Band(self.problem) if self.recipe.train.draw_from == "band" else self.problem.space

    def architecture(self, values: dict[str, Any]) -> Any:
        """An architecture of the space from JSON values."""
        return self.recipe.family.architecture.from_dict(values)

    def with_latency(self, table: LatencyTable) -> Plan:
        """The same plan, in which every cost has its predicted latency.

        Raises InfeasibleError when no subnet keeps the limit.
        """

        def cost(arch: Any) -> Cost:
            return replace(self.geometry.cost(arch), latency_ms=table.predict(self.geometry.features(arch)))

        problem = SearchProblem(self.problem.space, cost, self.problem.constraint)
        problem.check()
        return replace(self, problem=problem, latency=table)


def plan_search(
    command: SearchCommand[Any, Any],
    *,
    machine: Callable[[], Machine] | None = None,
    reading: AbstractContextManager[object] | None = None,
) -> Plan:
    """Check a command against its images, files and budget. Raises UserError, in one line with the remedy.

    ``machine`` is asked, once, for a recipe whose settings follow from it; None: they stay as the command gives them.
    ``reading`` is entered for as long as the images are read, which takes minutes where they are many.
    """
    file = None if command.supernet is None else read_supernet(command.supernet, command.recipe.family)
    held = _held_pretrained(command)
    pretrained = None
    if command.from_timm is not None and held is None:
        pretrained = read_pretrained(command.recipe, command.from_timm, command.from_timm_weights)
    if pretrained is not None:
        recipe, taken = seen_as(pretrained, command.recipe, command.given)
        command = replace(command, recipe=recipe, given=command.given | taken)
    elif command.from_timm_weights is not None and held is None:
        raise UserError("--from-timm-weights needs --from-timm NAME, the network that they are of")
    if file is not None:
        recipe, taken = sized_by_supernet(command.recipe, file, command.given)
        command = replace(command, recipe=recipe, given=command.given | taken)
    recipe = command.recipe
    if recipe.racing.enabled and recipe.algorithm not in ("evolution", "ageing"):
        raise UserError(
            f"racing.enabled does not fit algorithm {recipe.algorithm}, which needs the whole score of every candidate; "
            "choose algorithm evolution or ageing"
        )
    recipe = replace(recipe, train=_warmed_up(taught(recipe, command.given), command.given))
    if command.data is not None:
        recipe = replace(recipe, task=recipe.task.reading(command.data))
    with reading or nullcontext():
        splits = recipe.task.splits()
    if recipe.fits and machine is not None:
        recipe = fitted_recipe(recipe, splits, machine(), command.given)
    recipe = replace(recipe, constraint=_budget(recipe.constraint, command.given))
    scored = recipe.finalists.search_images or len(splits.search)
    if recipe.informative.images is not None and recipe.informative.images >= scored:
        raise UserError(
            f"informative.images is {recipe.informative.images}, must be below the {scored} images that candidates have"
        )
    check_cached(recipe)
    for name in recipe.baselines:
        check_timm_name(name, "--baselines")
    try:
        geometry = recipe.family.build(recipe.config, recipe.task.ends(splits))
    except UserError as error:
        if command.supernet is None:
            raise
        raise UserError(f"--supernet {command.supernet} does not fit the recipe {recipe.name}: {error}") from None
    start = None
    if command.supernet is not None and file is not None:
        ends = recipe.task.ends(splits)
        why = other_classes(file, ends, splits.classes) or ("a new head is asked for" if command.new_head else None)
        if why is None:
            _check_fits(command.supernet, file, recipe, geometry, splits)
        else:
            start = start_of(command.supernet, file, recipe, geometry, ends, why=why)
            file = None
    elif pretrained is not None:
        start = pretrained_start(pretrained, recipe, geometry, recipe.task.ends(splits))
    elif held is not None:
        start = Start("--from-timm", {}, PRETRAINED, unordered=True)
    elif command.new_head:
        raise UserError("--new-head needs --supernet FILE, whose body it takes")
    problem = SearchProblem(geometry.space, geometry.cost, recipe.constraint)
    problem.check()
    if (images := recipe.finalists.search_images) is not None and images > len(splits.search):
        raise UserError(f"finalists.search-images is {images}, the search split has {len(splits.search)}; give fewer or none")
    plan = Plan(recipe, splits, geometry, problem, file, start=start, from_timm=_told(command, held))
    if pretrained is not None:
        plan = replace(plan, origin=pretrained.origin)
    if command.warm_start is None:
        return plan
    command = replace(command, warm_start_count=_start_count(command, recipe))
    assert command.warm_start is not None
    if command.warm_start in PROXIES:
        proxy = ProxyStart(
            command.warm_start,
            family=recipe.family,
            settings=plan.settings,
            train=recipe.train,
            task=recipe.task,
            items=splits.train,
            seed=recipe.seed,
        )
        return replace(plan, initial=proxy.best(problem, count=command.warm_start_count), proxy=proxy)
    return replace(plan, initial=_initial(command, command.warm_start, problem))


def _held_pretrained(command: SearchCommand[Any, Any]) -> str | None:
    """What a search's configuration says of this command's pretrained network, where the folder has all that it was read for.

    Such a search goes on without the network's own file. None where it must be read.
    """
    if command.from_timm is None or not command.resume:
        return None
    output = output_path(command)
    if not (is_prepared(output) and (output / CONFIG).exists()):
        return None
    told = read_json(output / CONFIG)["recipe"].get("from_timm")
    return told if isinstance(told, str) and told.partition(", weights ")[0] == command.from_timm else None


def _told(command: SearchCommand[Any, Any], held: str | None) -> str | None:
    """The pretrained network and its file, as the configuration tells them; a file that is no longer there is as it was."""
    file = command.from_timm_weights
    if held is not None and file is not None and not file.exists():
        return held
    if command.from_timm is None or file is None:
        return command.from_timm
    return f"{command.from_timm}, weights {content_digest(file)[:12]}"


def _start_count(command: SearchCommand[Any, Any], recipe: Recipe[Any, Any]) -> int:
    """How many architectures open the search: no more than a first generation holds. Raises UserError where more are given."""
    places = first_generation(recipe.algorithm_config)
    if command.warm_start_count > places and "warm_start_count" in command.given:
        raise UserError(
            f"--warm-start-count is {command.warm_start_count}, but a first generation of {recipe.algorithm} holds {places}; "
            "give fewer, or a larger population"
        )
    return min(command.warm_start_count, places)


def _warmed_up(train: TrainingConfig, given: Collection[str]) -> TrainingConfig:
    """The training with a warm-up that ends: the recipe's own is made for its own epochs. Raises UserError for one given."""
    if train.warmup_epochs <= train.epochs:
        return train
    if "train.warmup_epochs" in given:
        raise SettingError("train.warmup_epochs", f"is {train.warmup_epochs:g}, must be at most train.epochs ({train.epochs})")
    return with_epochs(train, train.epochs, given, asked=train)


def _budget(limits: Constraint, given: Collection[str]) -> Constraint:
    """The limits without those of the recipe that contradict one that was given."""
    dropped: dict[str, None] = {}
    for low, high in (("min_params", "max_params"), ("min_macs", "max_macs")):
        least, most = getattr(limits, low), getattr(limits, high)
        if least is not None and most is not None and least > most:
            dropped |= {name: None for name in (low, high) if f"constraint.{name}" not in given}
    return limits if len(dropped) > 1 else replace(limits, **dropped)


def continued(command: SearchCommand[Any, Any], output: Path) -> SearchCommand[Any, Any]:
    """A command that resumes the search in ``output``, with that search's settings where they followed from machine or time.

    So it means on any machine what it meant at first; settings that it gives itself stand. Those of version 0.1.0 had defaults
    of their own, and rules that no flag asks for.
    """
    held = check_output(output, resume=command.resume)
    if held is None or held["recipe"].get("name") != command.recipe.name:
        return command
    family, stored = command.recipe.family, upgraded(held["recipe"])
    if stored["family"] != family.name:
        return command
    follows = command.recipe.fits or command.time is not None or command.from_timm is not None
    if not (follows or of_0_1_0(held["recipe"])):
        if "champion.epochs" in command.given or stored["champion"]["epochs"]:
            return command
        # It may have begun when no champion was trained further, whatever its recipe says today.
        return replace(command, recipe=replace(command.recipe, champion=ChampionConfig(**stored["champion"])))
    asked = command.recipe.to_dict()
    values = {name: value for name, value in stored.items() if name not in BESIDE}
    for name in command.given:
        _copy(asked, values, name.split("."))
    try:
        recipe = stored_recipe(values, family)
    except UserError as error:
        raise UserError(f"{output / CONFIG}: {error}") from None
    return replace(command, recipe=recipe)


def _copy(source: dict[str, Any], target: dict[str, Any], path: Sequence[str]) -> None:
    """Copy one nested value where the source has it: names of the command that are no setting of the recipe it has not."""
    *groups, name = path
    for group in groups:
        if not isinstance(source.get(group), dict):
            return
        source, target = source[group], target.setdefault(group, {})
    if name in source:
        target[name] = source[name]


def _check_fits(path: Path, given: SupernetFile, recipe: Recipe[Any, Any], geometry: Geometry[Any], splits: Splits) -> None:
    """Raises UserError when a file's supernet does not fit the recipe, or may know the search and test images."""
    sizes = geometry.settings
    if differing := [name for name, size in sizes.items() if given.settings.get(name) != size]:
        pairs = ", ".join(f"{name} {given.settings.get(name)} instead of {sizes[name]}" for name in differing)
        raise UserError(f"--supernet {path} does not fit the recipe {recipe.name}: {pairs}")
    if given.images not in (None, splits.digest):
        raise UserError(
            f"--supernet {path} was trained on other images, or on another division of these: it may know "
            "search and test images of this search; repeat the --data and --dataset flags of its training, or give --new-head "
            "to train it on these"
        )
    here = json.loads(json.dumps(recipe.task.preprocessing()))
    there = here if given.preprocessing is None else given.preprocessing
    if there != here:
        pairs = [
            f"{name} {there.get(name)}, here {here.get(name)}" for name in there | here if there.get(name) != here.get(name)
        ]
        raise UserError(
            f"--supernet {path} was trained on inputs that were prepared otherwise ({'; '.join(pairs)}): its scores would mean "
            "nothing; repeat the --dataset flags of its training"
        )


def _initial(command: SearchCommand[Any, Any], source: str, problem: SearchProblem[Any]) -> tuple[Architecture, ...]:
    """What ``--warm-start`` names, best first. Raises UserError when that is nothing which this search can use."""
    count, path = command.warm_start_count, Path(source)
    if path.suffix == ".json":
        return listed_architectures(path, problem)[:count]
    with tempfile.TemporaryDirectory(prefix="raysearch-") as folder:
        if not path.exists() and re.fullmatch("[0-9a-f]{32}", source):
            uri = command.tracking_uri or default_uri(output_path(command).absolute().parent)
            path = artifact_of_run(uri, source, CANDIDATES, folder=Path(folder))
        found = best_of_search(path / CANDIDATES if path.is_dir() else path, problem, count=count).architectures
    if not found:
        raise UserError(f"--warm-start {source} has no scored candidate inside this space and {problem.constraint}")
    return found


def output_path(command: SearchCommand[Any, Any]) -> Path:
    """The folder for a command's results. Raises UserError when there is nothing to resume."""
    if command.output is not None:
        return command.output
    name = command.recipe.name
    if command.resume:
        earlier = sorted(p.parent for p in Path("runs").glob(f"{name}-*/config.json"))
        if not earlier:
            raise UserError(f"--resume: there is no search of {name} in runs/; name its folder with --output")
        return earlier[-1]
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"  # local time: a person reads it
