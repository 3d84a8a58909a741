"""Names of pictures by a network that a search found: no Ray, no MLflow, no images of the search needed."""

from __future__ import annotations

import glob
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console

from raysearch.bounds import Count, check_numbers
from raysearch.errors import UserError
from raysearch.export.classifier import Guess, ImageClassifier
from raysearch.jobs.found_network import find_network
from raysearch.store.names import shown
from raysearch.store.paths import of_home
from raysearch.tasks.images.folders import is_image

STDIN = "-"
_BLOCK = 32
"""Pictures that are computed and printed at a time."""


@dataclass(frozen=True, slots=True)
class PredictCommand:
    """Print what pictures show, by the champion of a finished search: names with probabilities, best first."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Output folder of the search, or champion.json with its weights beside it, or the folder of an export."""
    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE ...")]
    """Picture files, folders (all that is in them), patterns as 'new/*.jpg', or - for the bytes of one on standard input."""
    subnet: str = "champion"
    """champion, largest, smallest, or the id of a candidate or of a random subnet of the closing report."""
    top: Count = 3
    """How many names of each picture."""
    json: bool = False
    """One JSON list instead of lines: image, and predictions (name, probability) or error."""
    family: str | None = None
    """File or module of the family, where it is one of your own."""

    def __post_init__(self) -> None:
        """Raises UserError where no picture is given, and for a number that cannot be."""
        if not self.images:
            raise UserError("give pictures after the folder of the search: files, folders, patterns, or - for standard input")
        check_numbers(self)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said of one picture."""

    image: str
    """As it was given."""
    guesses: tuple[Guess, ...] = ()
    error: str | None = None
    """Why it could not be read."""


def predict(command: PredictCommand, *, console: Console) -> None:
    """Print the names. A picture that cannot be read is a line on standard error, and the exit code is 1 at the end.

    Raises UserError, in one line with the remedy, when there is no such network or it knows no names.
    """
    found = find_network(command.source, subnet=command.subnet, family=command.family)
    classifier = ImageClassifier(found.module, found.card)
    answers: list[Answer] = []
    failed = False
    for answer in answers_to(classifier, command.images, top=command.top):
        if answer.error is not None:
            failed = True
            print(f"error: {shown(answer.error)}", file=sys.stderr, flush=True)
        elif not command.json:
            guesses = ", ".join(f"{shown(guess.name)} {guess.probability:.1%}" for guess in answer.guesses)
            console.out(f"{shown(answer.image)}  {guesses}", highlight=False)
        answers.append(answer)
    if command.json:
        console.out(json.dumps([_as_json(answer) for answer in answers], indent=2), highlight=False)
    if failed:
        raise SystemExit(1)


def answers_to(classifier: ImageClassifier, images: Iterable[str], *, top: int) -> Iterator[Answer]:
    """The answer to each picture, in the order given; any number of pictures takes the memory of a few."""
    left = _opened(images)
    while block := list(islice(left, _BLOCK)):
        read: list[Answer | tuple[str, np.ndarray]] = []
        for name, picture in block:
            if isinstance(picture, _Absent):
                read.append(Answer(name, error=picture.reason))
                continue
            try:
                read.append((name, classifier.prepare(picture)))
            except UserError as error:
                reason = str(error)
                read.append(Answer(name, error=reason.replace("the picture", "standard input", 1) if name == STDIN else reason))
        pixels = [item[1] for item in read if isinstance(item, tuple)]
        guesses = iter(classifier.rank(classifier.probabilities(np.stack(pixels)), top=top) if pixels else ())
        for item in read:
            yield Answer(item[0], tuple(next(guesses))) if isinstance(item, tuple) else item


@dataclass(frozen=True, slots=True)
class _Absent:
    """In the place of a picture that is not there."""

    reason: str


def _opened(images: Iterable[str]) -> Iterator[tuple[str, Path | bytes | _Absent]]:
    """Each picture's name and where it is read from: folders and patterns are resolved."""
    for given in map(of_home, images):
        path = Path(given)
        if given == STDIN:
            yield given, sys.stdin.buffer.read()
        elif path.is_dir():
            inside = [
                Path(folder, name) for folder, _, names in sorted(os.walk(path)) for name in sorted(names) if is_image(name)
            ]
            if not inside:
                yield given, _Absent(f"{given} is a folder without images; give image files or their folder")
            yield from ((str(file), file) for file in inside)
        elif path.exists() or not glob.has_magic(given):
            yield given, path
        else:
            matching = sorted(glob.glob(given, recursive=True))  # noqa: PTH207  # a pattern may be absolute
            if not matching:
                yield given, _Absent(f"{given} matches no file; give image files or their folder")
            yield from _opened(matching)


def _as_json(answer: Answer) -> dict[str, Any]:
    if answer.error is not None:
        return {"image": answer.image, "error": answer.error}
    return {"image": answer.image, "predictions": [asdict(guess) for guess in answer.guesses]}
