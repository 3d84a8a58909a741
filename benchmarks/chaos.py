"""Random faults against small real searches: whatever ends, and whenever, the result is that of the undisturbed run.

One search runs undisturbed. Then the same search runs again and again, each time with faults drawn from the seed (faults.py). A
driver that ended is started again by the same command with ``--resume``. After each: candidate table, scores and champion are
equal to the undisturbed ones, each candidate is in MLflow once, and no process is left. Exits with 1 where one is not so.

    python benchmarks/chaos.py --minutes 30 --seed 0
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import tyro
from faults import FAULTS, NODE, OF_TRAINING, Run, Server
from mlflow import MlflowClient
from ray.cluster_utils import Cluster
from rich.console import Console
from shared import console, print_heading, table

ROOT = Path(__file__).parents[1]
SEARCH = (
    *("digits", "--train.epochs", "3", "--train.warmup-epochs", "1", "--train.workers", "2"),
    *("--algorithm", "evolution", "--search.generations", "3", "--search.population", "8"),
    *("--search.mutations", "4", "--search.crossovers", "2"),
    # A batch of one picture makes a score last about a second, so that faults find evaluators at work.
    *("--evaluators.batch-size", "1", "--evaluators.deadline.minutes", "0.5"),
    *("--report.random-subnets", "2", "--report.no-register", "--champion.epochs", "0"),
)
MARK = "RAYSEARCH_CHAOS"
"""Environment variable by which every process of a schedule is found, whoever its parent is."""
GONE_WITHIN = 60.0
"""Seconds that processes may take to end after a search: two of Ray's agents take 30 after a driver that was killed."""
MOST_RUNS = 12


@contextlib.contextmanager
def own_cluster(mark: str, *, wanted: bool) -> Iterator[Cluster | None]:
    """A cluster of a head with two processors where ``wanted``."""
    if not wanted:
        yield None
        return
    os.environ[MARK] = mark
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, "include_log_monitor": False}
    )
    del os.environ[MARK]
    try:
        yield cluster
    finally:
        cluster.shutdown()


def begin(output: Path, mark: str, server: Server, cluster: Cluster | None, *, supernet: Path | None, seed: int) -> Run:
    """Start or continue the search, which trains its supernet where none is given."""
    output.parent.mkdir(parents=True, exist_ok=True)
    resume = ["--resume"] if (output / "config.json").exists() else []
    where = ["--tracking-uri", server.uri, "--ray-address", "local" if cluster is None else cluster.address]
    where += [] if supernet is None else ["--supernet", str(supernet)]
    command = [sys.executable, str(ROOT / "experiments" / "search.py"), *SEARCH, "--seed", str(seed), "--output", str(output)]
    environment = {"OMP_NUM_THREADS": "1", "RAY_OVERRIDE_RESOURCES": '{"CPU": 2}', "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (output.parent / "said.txt").open("ab") as said:
        said.write(f"--- {' '.join(resume) or 'begins'}\n".encode())
        driver = subprocess.Popen(
            command + where + resume,
            env={**os.environ, **environment, MARK: mark},
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # In the background of a shell an interruption is ignored, which children inherit.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    return Run(output, driver, server, cluster)


def said_last(output: Path) -> str:
    """What the last run printed."""
    return (output.parent / "said.txt").read_text(errors="replace").rpartition("--- ")[2]


def progress(output: Path, scored: int) -> float:
    """How far a search is, from 0 to 1, by its files; ``scored``: lines of an undisturbed search's journal."""
    if not (output / "config.json").exists():
        return 0.0
    if not (output / "supernet.safetensors").exists():
        return 0.2 if (output / "training.safetensors").exists() else 0.1
    journal = output / "journal.jsonl"
    return 0.3 + 0.7 * (journal.read_bytes().count(b"\n") / scored if journal.exists() else 0.0)


def result(output: Path) -> dict[str, Any]:
    """What must be equal: candidates with their scores, champion with its weights, networks with theirs."""
    summary = json.loads((output / "summary.json").read_text())
    return {
        "candidates": pq.read_table(output / "candidates.parquet").drop_columns(["seconds"]).to_pylist(),
        "champion": hashlib.sha256((output / "champion.safetensors").read_bytes()).hexdigest(),
        "networks": summary["networks"],
        "scored": (output / "journal.jsonl").read_bytes().count(b"\n"),
    }


def recorded(output: Path, uri: str) -> str:
    """What is wrong with the search's record in MLflow; nothing where each candidate is there once, and all runs have ended."""
    client, search_id = MlflowClient(uri), json.loads((output / "config.json").read_text())["search_id"]
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.`raysearch.search_id` = '{search_id}'", max_results=1000)
    keys = sorted(r.data.tags["raysearch.key"] for r in runs if r.data.tags["raysearch.role"] == "candidate")
    wanted = sorted(pq.read_table(output / "candidates.parquet")["id"].to_pylist())
    if keys != wanted:
        return f"{len(wanted)} candidates are {len(keys)} runs in MLflow, {len(set(keys))} of them distinct"
    states = Counter(r.info.status for r in runs)
    return "" if set(states) == {"FINISHED"} else f"runs in MLflow are {dict(states)}"


def left(mark: str) -> list[psutil.Process]:
    """Processes that still run of the schedules whose mark begins so."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK, "").startswith(mark) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def none_left(mark: str) -> str:
    """Which processes of a schedule do not end; they are killed then."""
    end = time.monotonic() + GONE_WITHIN
    while there := left(mark):
        if time.monotonic() >= end:
            names = Counter(process.name() for process in there)
            for process in there:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            return f"left after {GONE_WITHIN:.0f} s: {dict(names)}"
        time.sleep(1)
    return ""


@dataclass
class Due:
    """A fault of a schedule; it waits for its target where there is none."""

    at: float
    """Progress from which on it is due."""
    wait: float
    """Seconds from then on: else it would always follow upon something written."""
    name: str
    since: float | None = None
    """When that progress was seen."""


@dataclass
class Schedule:
    """One search with its faults."""

    number: int
    faults: list[Due]
    draw: random.Random
    on_cluster: bool
    trains: bool
    """Whether the supernet is trained; else it is given the undisturbed search's, with the same result sooner."""
    done: list[str] = field(default_factory=list[str])
    wrong: str = ""
    runs: int = 0

    def run(self, folder: Path, server: Server, expected: dict[str, Any] | None, *, seed: int) -> None:
        """Search to the end, and look at what came of it."""
        output, mark = folder / f"schedule-{self.number}" / "run", f"{os.getpid()}-{self.number}-"
        supernet = None if self.trains else folder / "schedule-0" / "run" / "supernet.safetensors"
        with own_cluster(mark, wanted=self.on_cluster) as cluster:
            while not self.wrong and (not (output / ".finished").exists() or (output / "tracking.jsonl").exists()):
                self.runs += 1
                run = begin(output, mark, server, cluster, supernet=supernet, seed=seed)
                self._disturb(run, scored=0 if expected is None else expected["scored"])
                self._judge_end(run)
            if not self.wrong and expected is not None:
                found = result(output)
                unequal = [name for name in expected if found[name] != expected[name]]  # a score too many as well
                self.wrong = f"other {' and '.join(unequal)} than undisturbed" if unequal else recorded(output, server.uri)
        self.wrong = self.wrong or none_left(mark)
        if not self.wrong and expected is not None:
            shutil.rmtree(output.parent)

    def _disturb(self, run: Run, *, scored: int) -> None:
        """Do harm when it is due and finds its target, until the driver ends."""
        while run.driver.poll() is None:
            far, now = progress(run.output, scored), time.monotonic()
            for due in [due for due in self.faults if due.at <= far]:
                due.since = due.since or now
                if now - due.since >= due.wait and FAULTS[due.name](run, self.draw):
                    self.done.append(due.name)
                    self.faults.remove(due)
                    break
            time.sleep(0.1)

    def _judge_end(self, run: Run) -> None:
        code, words = run.driver.wait(), said_last(run.output)
        if code not in {0, *run.expected}:
            self.wrong = f"ended with {code}"
        elif "Traceback (most recent" in words and "connecting to Ray" in words:
            self.wrong = "a traceback"
        elif self.runs == MOST_RUNS:
            self.wrong = f"not finished after {MOST_RUNS} runs"


def drawn(seed: int, number: int) -> Schedule:
    """The schedule of that number, from 1: two to five faults.

    Every third trains, and has a fault in that; every fourth is on a cluster with a node that comes and goes.
    """
    draw = random.Random(f"{seed}/chaos/{number}")
    on_cluster, trains = number % 4 == 0, number % 3 == 0
    anywhere = [name for name in FAULTS if name != NODE and name not in OF_TRAINING]
    names = draw.sample(anywhere, draw.randint(2, 3)) + [NODE] * on_cluster + [draw.choice(OF_TRAINING)] * trains
    faults = [Due(draw.uniform(0, 0.1 if name in OF_TRAINING else 0.95), draw.uniform(0, 3), name) for name in names]
    return Schedule(number, faults, draw, on_cluster, trains)


@dataclass(frozen=True, slots=True)
class Settings:
    """How long, and which chance."""

    minutes: float = 30.0
    """No schedule but the first begins after these."""
    seed: int = 0
    """Of the search and of the faults."""
    first: int = 1
    """Number of the first schedule, to repeat one that was wrong."""
    output: Path | None = None
    """Where searches are kept that did not end as they should; a temporary folder when not given. An undisturbed search there
    is not run again: it must be of the same seed."""


def show(screen: Console, schedules: Sequence[Schedule]) -> None:
    """How often each fault was there, and what came of it."""
    rows: list[list[str]] = []
    for name in FAULTS:
        of = [schedule for schedule in schedules if name in schedule.done]
        equal = sum(not schedule.wrong for schedule in of)
        rows.append([name, str(len(of)), f"{equal} of {len(of)}" if of else "not tried"])
    screen.print(table("Faults", ["fault", "schedules with it", "ended as undisturbed"], rows))


def main(settings: Settings) -> int:
    """Run schedules until the time is over; returns the exit code."""
    screen, begun = console(), time.monotonic()
    print_heading(screen, f"chaos, seed {settings.seed}")
    folder = settings.output or Path(tempfile.mkdtemp(prefix="raysearch-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    server, schedules = Server(folder), list[Schedule]()
    try:
        whole = Schedule(0, [], random.Random(), on_cluster=False, trains=True)
        whole.run(folder, server, None, seed=settings.seed)
        if whole.wrong:
            screen.print(f"the undisturbed search: {whole.wrong}; {folder}")
            return 1
        expected = result(folder / "schedule-0" / "run")
        screen.print(f"undisturbed: {len(expected['candidates'])} candidates", highlight=False)
        while not schedules or time.monotonic() - begun < 60 * settings.minutes:
            since, number = time.monotonic(), settings.first + len(schedules)
            schedule = drawn(settings.seed, number)
            schedules.append(schedule)
            schedule.run(folder, server, expected, seed=settings.seed)
            took = f"({schedule.runs} runs, {time.monotonic() - since:.0f} s)"
            words = f"{', '.join(schedule.done) or 'no fault found its target'}: {schedule.wrong or 'equal'} {took}"
            screen.print(f"{schedule.number:3}  {words}", highlight=False, soft_wrap=True)
    finally:
        server.kill()
        for process in left(f"{os.getpid()}-"):  # where this program was interrupted
            process.kill()
        if schedules:
            show(screen, schedules)
    wrong = sum(bool(schedule.wrong) for schedule in schedules)
    screen.print(f"{len(schedules)} schedules, {wrong} of them wrong" + (f"; they are kept in {folder}" if wrong else ""))
    if not wrong and settings.output is None:
        shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__)))
