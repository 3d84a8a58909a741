"""How good a network is on labelled images: one of a search, of files, or of a published supernet. Starts no cluster."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from raysearch.bounds import Count, check_numbers
from raysearch.errors import UserError
from raysearch.jobs.found_network import FoundNetwork
from raysearch.jobs.loose_network import any_network
from raysearch.jobs.progress import activity
from raysearch.nn.precision import Precision
from raysearch.recipes import RECIPES
from raysearch.recipes.stored import stored_search, stored_task
from raysearch.report.classes import Classes
from raysearch.scoring.predictions import predict
from raysearch.scoring.score import score
from raysearch.search import Failure
from raysearch.space import Cost
from raysearch.spaces import find_family
from raysearch.statistics import Interval, score_interval
from raysearch.store.folder import CONFIG, read_json
from raysearch.store.paths import absolute_unless_uri
from raysearch.store.scores import Scale
from raysearch.tasks import Splits
from raysearch.tasks.images.cache import open_cache
from raysearch.tasks.images.classification import ImageClassification
from raysearch.tasks.images.device import DeviceImages, room_on
from raysearch.tasks.images.judged import JudgedImages, all_images, shared_pictures, with_classes_of

_, IMAGES = RECIPES["images"]
"""How images are prepared where the network does not say, as published supernets."""


@dataclass(frozen=True, slots=True)
class EvaluateCommand:
    """Accuracy of a network on labelled images, with its interval and by class."""

    source: Annotated[Path, tyro.conf.Positional]
    """Output folder of a search or of one of its networks; champion.json or its weights; a supernet, published ones too."""
    data: str | None = None
    """The images: a folder with a sub-folder per class, or what else a search reads (docs/images.md); of one with a test part
    that part, else all. Default: the test images of the search."""
    subnet: str = "champion"
    """champion, largest, smallest, or the id (its beginning will do) of a network of the search; of a supernet's file largest,
    smallest, a name that a paper gave, or a JSON file with an architecture."""
    batch_size: Count = 250
    """Images per forward pass."""
    precision: Precision = "auto"
    json: bool = False
    """One JSON object instead of lines."""
    family: str | None = None
    """Name, file or module of the family, where the file does not name it or it is one of your own."""
    task: Annotated[ImageClassification, tyro.conf.arg(name="")] = field(default_factory=lambda: IMAGES.task)
    """How images are prepared, where the network does not say."""

    given: Annotated[frozenset[str], tyro.conf.Suppress] = frozenset()
    """Names of the settings that stood on the command line."""

    def __post_init__(self) -> None:
        """Raises UserError for numbers that cannot be."""
        check_numbers(self)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of it."""

    network: str
    """Id of the architecture."""
    params: int | None
    images: int
    which: str
    """Which images these are, in words."""
    accuracy: Interval
    """With its 95 % interval."""
    unseen: Interval | None
    """On those images that were not among its training images, where some were; None where none was, or that is not known."""
    trained_on: int | None
    """How many images were among its training images; None where that is not known."""
    by_class: dict[str, Interval]
    """Of the classes that have images."""


def evaluate(command: EvaluateCommand, *, console: Console) -> Evaluation:
    """Print how good the network is. Raises UserError, in one line with the remedy, for what the user can mend."""
    network = any_network(command.source, subnet=command.subnet, family=command.family, task=command.task)
    search = _search_of(command.source, command.family)
    task = _prepared(command.task if search is None else search, network, command.given)
    with activity(console, "reading the images"):
        judged, training = _images(command, task, search, network)
    judged = with_classes_of(judged, network.card.classes, outputs=_outputs(network, task))
    seen = None if training is None else shared_pictures(judged.images, training)
    with activity(console, f"judging {len(judged.images):,} images"):
        evaluation, classes = _judged(command, network, task, judged, seen)
    if command.json:
        console.out(json.dumps(asdict(evaluation), indent=2), highlight=False)
        return evaluation
    for line in [*_lines(evaluation), *judged.notes]:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    console.print(_table(classes))
    return evaluation


def _search_of(source: Path, family: str | None) -> ImageClassification | None:
    """The task of the search whose folder the network lies in; None where there is none, or it is none of images."""
    folder = source if source.is_dir() else source.parent
    config = folder / CONFIG
    if not config.is_file():
        return None
    values = read_json(config)
    recipe: Any = values.get("recipe")
    if not isinstance(recipe, dict):
        return None  # of an export
    task = (
        stored_task(cast(dict[str, Any], recipe)["task"])
        if "job" in values  # a network that was trained once more
        else stored_search(cast(dict[str, Any], recipe), config, None if family is None else find_family(family)).recipe.task
    )
    return task if isinstance(task, ImageClassification) else None


def _prepared(task: ImageClassification, network: FoundNetwork, given: frozenset[str]) -> ImageClassification:
    """The task with the inputs that the network takes, but for those that the command gives."""
    sizes = {name: network.card.settings[name] for name in ("img_size", "in_chans") if name in network.card.settings}
    known = {**sizes, **(network.card.preprocessing or {})}
    fields = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in known.items()
        if f"dataset.{name}" not in given and hasattr(task.dataset, name)
    }
    return replace(task, dataset=replace(task.dataset, **fields))


def _outputs(network: FoundNetwork, task: ImageClassification) -> int:
    """How many numbers the network gives for an image."""
    with torch.inference_mode():
        return network.module.eval()(torch.zeros(1, *task.input_shape)).shape[1]


def _images(
    command: EvaluateCommand, task: ImageClassification, search: ImageClassification | None, network: FoundNetwork
) -> tuple[JudgedImages, Any]:
    """Which images the network is judged on, and those that it was trained on where they can be read."""
    trained = None if search is None else _readable(task)
    if command.data is None:
        if search is None:
            raise UserError(f"{command.source} is in no folder of a search, so give images with --data DIR")
        if trained is None:
            trained = task.splits()  # raises what is wrong with them
        _check_same(trained, network)
        return JudgedImages(trained.test, trained.classes, "the test split of the search", trained.notes), trained.train
    held = task.dataset.dataset in ("digits", "fashion-mnist")  # sets that lie in no folder of pictures
    there = replace(task, dataset=replace(task.dataset, dataset="images")) if held else task
    there = there.reading(absolute_unless_uri(command.data))
    digest = None if network.card.data is None else network.card.data.digest
    divided = None if digest is None else _readable(there)
    if divided is not None and divided.digest == digest:
        which = "the test split of the data that it was trained on"
        return JudgedImages(divided.test, divided.classes, which, divided.notes), divided.train
    return all_images(there.dataset), None if trained is None else trained.train


def _readable(task: ImageClassification) -> Splits | None:
    """The splits of a task; None where its images are not there, or not as a search needs them."""
    with suppress(UserError):
        return task.splits()
    return None


def _check_same(splits: Splits, network: FoundNetwork) -> None:
    data = network.card.data
    if data is not None and len(splits.test) != data.test_images:
        raise UserError(
            f"the images are not those of the search: {len(splits.test):,} to test instead of {data.test_images:,}; restore "
            "them, or give others with --data DIR"
        )


def _judged(
    command: EvaluateCommand, network: FoundNetwork, task: ImageClassification, judged: JudgedImages, seen: np.ndarray | None
) -> tuple[Evaluation, Classes]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    how: dict[str, Any] = {"task": task, "batch_size": command.batch_size, "precision": command.precision}
    with tempfile.TemporaryDirectory(prefix="raysearch-") as folder:
        path = Path(folder, "images.arrow")
        task.write_cache(judged.images, path)
        images = DeviceImages(open_cache(path), device, room_bytes=room_on(device))
        cost = Cost(network.card.params or 0, network.card.macs or 0)
        found = score(network.module, images, cost=cost, normalise=task.normalise, **how)
        if isinstance(found, Failure):
            raise UserError(f"the network cannot be judged: {found.reason}")
        said = predict(network.module, images, **how)
    assert said is not None  # a classification
    outcomes = found.by_item(len(judged.images))
    right = {
        name: outcomes[judged.images.labels == i] for i, name in enumerate(judged.classes) if (judged.images.labels == i).any()
    }
    evaluation = Evaluation(
        network=network.card.id or "",
        params=network.card.params,
        images=len(outcomes),
        which=judged.which,
        accuracy=_sure(outcomes),
        unseen=_sure(outcomes[~seen]) if seen is not None and seen.any() and not seen.all() else None,
        trained_on=None if seen is None else int(seen.sum()),
        by_class={name: _sure(of_class) for name, of_class in right.items()},
    )
    return evaluation, Classes.of(replace(said, classes=judged.classes))


def _sure(outcomes: np.ndarray) -> Interval:
    interval = score_interval(outcomes)
    assert interval is not None  # of right and wrong answers there is one
    return interval


def _words(share: Interval) -> str:
    return f"{Scale().text(share.value)} (95 %: {100 * share.low:.2f} to {100 * share.high:.2f})"


def _lines(evaluation: Evaluation) -> Sequence[str]:
    """What is said before the table of classes."""
    size = "" if evaluation.params is None else f", {evaluation.params:,} parameters"
    lines = [
        f"network {evaluation.network}{size}: accuracy {_words(evaluation.accuracy)} on {evaluation.images:,} images, "
        f"{evaluation.which}"
    ]
    if evaluation.trained_on is None:
        lines.append("whether it was trained on any of these images is not known here")
    elif evaluation.trained_on:
        line = f"warning: it was trained on {evaluation.trained_on:,} of these images: the accuracy is too high"
        lines.append(line if evaluation.unseen is None else f"{line}; on the others it is {_words(evaluation.unseen)}")
    return lines


def _table(classes: Classes) -> Table:
    table = Table(title=f"by class, {classes.listed}; balanced accuracy {Scale().text(classes.balanced)}", title_justify="left")
    for i, column in enumerate(("class", "images", "right", "accuracy", "95 % interval")):
        table.add_column(column, justify="right" if i else "left", overflow="fold")
    for row in classes.rows:
        table.add_row(row.name, f"{row.images:,}", f"{row.right:,}", row.accuracy, row.interval)
    return table
