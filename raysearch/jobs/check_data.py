"""Whether images can be searched on, and what is wrong with them: everything is read once, no Ray and no MLflow."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock
from typing import Annotated

import tyro
from rich.console import Console

from raysearch.jobs.progress import Phase, phase
from raysearch.store.paths import absolute_unless_uri
from raysearch.tasks.images import IMAGES, DataConfig
from raysearch.tasks.images.checking import Checked, check_data


@dataclass(frozen=True, slots=True)
class CheckDataCommand:
    """Read all images of a data set once and say what is wrong with them; exit code 1 when a search would not start."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """What --data of a search takes: a folder, a table, files that hold images, an address, a set of torchvision's."""
    dataset: DataConfig = field(default_factory=lambda: IMAGES)
    """As a search reads the images."""

    def __post_init__(self) -> None:
        """The path becomes absolute, as a search has it."""
        object.__setattr__(self, "data", absolute_unless_uri(self.data))


def check(command: CheckDataCommand, *, console: Console) -> None:
    """Print what the data are and what is wrong with them, each with its remedy. Exits with 1 when a search would not start."""
    checked = read_all(command.dataset.reading(command.data), console)
    for fact in checked.facts:
        console.print(fact, highlight=False, soft_wrap=True)
    for finding in checked.findings:
        mark = "STOPS A SEARCH" if finding.stops else "look at"
        remedy = "" if finding.remedy is None else f"\n  -> {finding.remedy}"
        console.print(f"\n{mark}: {finding.what}{remedy}", highlight=False, soft_wrap=True, markup=False)
    stops = sum(finding.stops for finding in checked.findings)
    end = f"{stops} stop a search" if stops else "nothing stops a search"
    console.print(f"\n{len(checked.findings)} findings: {end}", highlight=False, soft_wrap=True)
    if stops:
        raise SystemExit(1)


def read_all(config: DataConfig, console: Console) -> Checked:
    """Check a data set, with a line of progress while its images are read."""
    counted = _Counted()
    with phase(console, "check", 1, at_first="files are listed") as shown:
        counted.shown = shown
        return check_data(config, on_total=counted.begin, on_picture=counted.another)


class _Counted:
    """Pictures that were read, by any number of threads."""

    def __init__(self) -> None:
        self.shown: Phase | None = None
        self._total, self._done = 0, 0
        self._lock = Lock()

    def begin(self, total: int) -> None:
        """Take how many there are."""
        self._total = total

    def another(self) -> None:
        """Take one more."""
        with self._lock:
            self._done += 1
            if self.shown is not None:
                self.shown.show(self._done, step="pictures are read", total=self._total)
