"""The command line: which jobs there are, how one is started, and how it ends in one clear line.

Nothing heavy is imported before a job runs: ``raysearch --help`` answers at once.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from types import TracebackType
from typing import Any, NoReturn

from raysearch.errors import UserError, machine_trouble
from raysearch.invocation import command_line
from raysearch.jobs.signals import interrupting
from raysearch.store.secrets import without_password


@dataclass(frozen=True, slots=True)
class Job:
    """One thing that the ``raysearch`` command does."""

    says: str
    """What it does, in one line of help."""
    example: str
    """Arguments that work."""
    run: str
    """``module:function`` that does it: called with the command, and with ``console`` where it prints."""
    command: str | None
    """``module:dataclass`` whose fields are its flags. None: the search's, which depend on recipe and family."""
    missing: str = "give the output folder of a finished search"
    """What to say where no argument is given."""
    continued: str | None = "the same command"
    """What continues it after an interruption. None: it says so itself (``continues``) once there is something to continue."""
    takes_line: bool = False
    """Whether it writes its own command line down (``line``)."""


JOBS = {
    "search": Job(
        "find the best network inside a budget: train a supernet, search it, report, champion",
        "images --data DIR --constraint.max-params 6M",
        "raysearch.jobs.search:run",
        None,
        continued=None,
        takes_line=True,
    ),
    "export": Job(
        "a subnet of a finished search as files for timm, PyTorch and onnxruntime",
        "runs/digits-20260101-120000 --format onnx",
        "raysearch.jobs.export:export",
        "raysearch.jobs.export:ExportCommand",
    ),
    "predict": Job(
        "names of pictures, by the network that a search found",
        "runs/images-20260101-120000 photo.jpg",
        "raysearch.jobs.predict:predict",
        "raysearch.jobs.predict:PredictCommand",
        missing="give the output folder of a finished search and pictures",
    ),
    "compare": Job(
        "finished searches side by side: fronts, hypervolume, candidates and seconds to a score",
        "runs/one runs/other",
        "raysearch.jobs.compare:compare_searches",
        "raysearch.jobs.compare:CompareCommand",
        missing="give two or more searches: output folders or MLflow run ids",
        takes_line=True,
    ),
    "evaluate": Job(
        "accuracy of a network on labelled images, with intervals and by class: any checkpoint, published ones included",
        "runs/images-20260101-120000 --data DIR",
        "raysearch.jobs.evaluate:evaluate",
        "raysearch.jobs.evaluate:EvaluateCommand",
        missing="give a network: the output folder of a search, champion.json, or a supernet's file",
    ),
    "finetune": Job(
        "train a network of a finished search further, in another image size too",
        "runs/images-20260101-120000 --epochs 30",
        "raysearch.jobs.finetune:finetune",
        "raysearch.jobs.finetune:FinetuneCommand",
        takes_line=True,
    ),
    "retrain": Job(
        "train a network of a finished search from scratch",
        "runs/images-20260101-120000 --subnet e708da",
        "raysearch.jobs.retrain:retrain",
        "raysearch.jobs.retrain:RetrainCommand",
        takes_line=True,
    ),
    "transfer": Job(
        "teach a network that a search found other classes",
        "runs/images-20260101-120000 --data DIR",
        "raysearch.jobs.transfer:transfer",
        "raysearch.jobs.transfer:TransferCommand",
        missing="give the output folder of a finished search, or champion.json, and --data DIR",
        takes_line=True,
    ),
    "validate": Job(
        "retrain subnets of a finished search from scratch: is the ranking true?",
        "runs/digits-20260101-120000 --subnets 12",
        "raysearch.jobs.validate:validate",
        "raysearch.jobs.validate:ValidateCommand",
    ),
    "check-data": Job(
        "read all images of a data set once and name what is wrong with them",
        "photos",
        "raysearch.jobs.check_data:check",
        "raysearch.jobs.check_data:CheckDataCommand",
        missing="give the images as --data of a search takes them, as a folder",
    ),
    "status": Job(
        "how far a search is: phase, epochs or candidates, best score",
        "runs/digits-20260101-120000",
        "raysearch.jobs.status:status",
        "raysearch.jobs.status:StatusCommand",
        missing="give the output folder of a search",
    ),
    "ui": Job(
        "open the record of all searches in MLflow's UI",
        "--port 5001",
        "raysearch.jobs.ui:show",
        "raysearch.jobs.ui:UiCommand",
        missing="",
    ),
}
"""What the command line offers, by name: a job is added here and nowhere else."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The ``raysearch`` command: ``raysearch JOB ...``, ``--help``, ``--version``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(overview())
    elif given[0] in ("-V", "--version"):
        print(f"raysearch {version('raysearch')}")
    elif given[0] in JOBS:
        run_job(given[0], given[1:])
    else:
        near = difflib.get_close_matches(given[0], JOBS, n=1)
        fail(
            f"unknown job {given[0]!r}{f'; did you mean {near[0]}?' if near else ''}; jobs: {', '.join(JOBS)}. "
            "A recipe stands after search: raysearch search digits"
        )


def overview() -> str:
    """The jobs, a line each with an example."""
    width = max(map(len, JOBS))
    lines = ["Architecture search for vision transformers on Ray: the best network inside a budget.", "", "jobs:"]
    for name, job in JOBS.items():
        lines += [f"  {name:<{width}}  {job.says}", f"  {'':<{width}}  $ {command_line(name)} {job.example}"]
    return "\n".join([*lines, "", "`raysearch JOB --help` lists a job's flags; `raysearch --version` tells the version."])


def run_job(name: str, arguments: Sequence[str] | None = None) -> None:
    """A job as a program. Exits with 2 and one line for a user's error."""
    job = JOBS[name]
    given = list(sys.argv[1:] if arguments is None else arguments)
    # The one door through which the command line comes in: all that is written down of it is written down without passwords.
    line = command_line(name, *map(without_password, given))
    with reported(continued=job.continued) as interruption:
        from rich.console import Console

        if job.command is None:
            from raysearch.parsing.search import parse_search

            command: Any = parse_search(given)
        else:
            from raysearch.parsing.one_dataclass import parse

            if not given and job.missing:
                fail(f"{job.missing}; --help tells more")
            command = parse(_named(job.command), given, prog=command_line(name))
        told: dict[str, Any] = {"line": line} if job.takes_line else {}
        if job.continued is None:
            told["continues"] = interruption.continues
        _named(job.run)(command, console=Console(), **told)


search = partial(run_job, "search")
export = partial(run_job, "export")
predict = partial(run_job, "predict")
compare = partial(run_job, "compare")
validate = partial(run_job, "validate")
evaluate = partial(run_job, "evaluate")
finetune = partial(run_job, "finetune")
retrain = partial(run_job, "retrain")
transfer = partial(run_job, "transfer")
ui = partial(run_job, "ui")


def _named(place: str) -> Any:
    """What ``module:name`` names."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


# --- how a program ends -----------------------------------------------------------------------------------------------


def fail(message: str) -> NoReturn:
    """Print one line on standard error and exit with 2."""
    print(f"error: {' '.join(without_password(message).split())}", file=sys.stderr)
    raise SystemExit(2)


class _WithoutPasswords(logging.Formatter):
    """What reaches the console of the log, errors with their tracebacks included, holds no password."""

    def format(self, record: logging.LogRecord) -> str:
        return without_password(super().format(record))


def _show_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The traceback of what nobody expected: errors of libraries quote addresses with the passwords in them."""
    print(without_password("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


class Interruption:
    """What is said of a job that ends before its end."""

    def __init__(self, continued: str | None) -> None:
        self.continued = continued

    def continues(self, command: str) -> None:
        """From now on ``command`` continues the job."""
        self.continued = command

    def __str__(self) -> str:
        """One line, without a command that would find nothing to continue, or another job's work."""
        if self.continued is None:
            return "interrupted before anything was kept; the same command begins again"
        return f"interrupted; {self.continued} continues"


@contextlib.contextmanager
def reported(*, continued: str | None) -> Generator[Interruption]:
    """Turn what the user can mend into one line and exit code 2, an interruption into how it is continued.

    ``continued`` is the command that continues it from the beginning on; None where there is nothing to continue yet.
    """
    interruption = Interruption(continued)
    told = logging.StreamHandler()
    told.setFormatter(_WithoutPasswords("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[told])
    sys.excepthook = _show_bug
    with interrupting() as ending:
        try:
            yield interruption
        except UserError as error:
            if os.environ.get("RAYSEARCH_TRACEBACK"):
                raise
            fail(machine_trouble(error) or str(error))
        except Exception as error:
            trouble = machine_trouble(error)
            if trouble is None or os.environ.get("RAYSEARCH_TRACEBACK"):
                raise
            remedy = "" if interruption.continued is None else f"; {interruption.continued} continues"
            fail(f"{trouble}{remedy} (RAYSEARCH_TRACEBACK=1 shows where it happened)")
        except KeyboardInterrupt:
            with contextlib.suppress(OSError):  # the terminal may be what went away
                print(interruption, file=sys.stderr)
            raise SystemExit(ending.exit_code) from None
