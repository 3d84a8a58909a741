"""What breaks in a search: processes, signals, disks, MLflow's server, nodes; each a function that does it to one that runs."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from ray.cluster_utils import Cluster


class Server:
    """An MLflow server that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start it; back when it answers."""
        stores = ("--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}", "--artifacts-destination", str(self.folder))
        command = (sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(self.port), *stores)
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "server.log").open("ab") as output:
            self.process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        while self.process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return
            time.sleep(0.1)
        raise RuntimeError(f"MLflow's server ended; {self.folder / 'server.log'} shows why")

    def kill(self) -> None:
        """As a machine that goes away."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class Run:
    """A search under way."""

    output: Path
    driver: subprocess.Popen[bytes]
    server: Server
    cluster: Cluster | None
    expected: set[int] = field(default_factory=set[int])
    """Exit codes that follow from the faults so far."""


Fault = Callable[[Run, random.Random], bool]
"""Does harm if what it would harm is there; returns whether it did."""


def processes(name: str) -> list[psutil.Process]:
    """Of those below this one that Ray has given a name that begins so."""
    found: list[psutil.Process] = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess, IndexError):
            if process.cmdline()[0].startswith(f"ray::{name}"):
                found.append(process)
    return found


def kill(name: str) -> Fault:
    """SIGKILL to one process of that name."""

    def act(run: Run, draw: random.Random) -> bool:
        there = processes(name)
        with contextlib.suppress(psutil.NoSuchProcess):
            if there:
                draw.choice(there).kill()
                return True
        return False

    return act


def four_evaluators(run: Run, draw: random.Random) -> bool:
    """SIGKILL to four evaluators, each as soon as there is one."""
    for _ in range(4):
        while not kill("Evaluator")(run, draw):
            if run.driver.poll() is not None:
                return False
            time.sleep(0.05)
        time.sleep(0.5)  # else the same one is found again, which is not gone yet
    return True


def stop_evaluator(run: Run, draw: random.Random) -> bool:
    """SIGSTOP to an evaluator in mid-score: it lives, and never answers."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in processes("Evaluator.score"):
            process.suspend()
            return True
    return False


def tell_driver(number: signal.Signals) -> Fault:
    """A signal to the driver; those of a terminal go to all of its processes."""

    def act(run: Run, draw: random.Random) -> bool:
        run.expected |= {-number, 128 + number}
        if number in (signal.SIGINT, signal.SIGHUP):
            os.killpg(run.driver.pid, number)
        else:
            run.driver.send_signal(number)
        run.driver.wait()
        return True

    return act


def full_disk(name: str) -> Fault:
    """No file of one process may grow: the nearest that any user can come to a full disk. There is room after its end."""

    def act(run: Run, draw: random.Random) -> bool:
        for process in processes(name):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.rlimit(psutil.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
                run.expected.add(2)
                return True
        return False

    return act


def server_away(run: Run, draw: random.Random) -> bool:
    """MLflow's server is killed, and back after some seconds."""
    if not (run.output / "config.json").exists():
        return False
    run.expected.add(2)  # of a driver that begins meanwhile
    run.server.kill()
    time.sleep(draw.uniform(2, 10))
    run.server.start()
    return True


def node_comes_and_goes(run: Run, draw: random.Random) -> bool:
    """A second node joins the cluster while candidates are scored, and vanishes."""
    if run.cluster is None or not processes("Pool"):
        return False
    node = run.cluster.add_node(num_cpus=2, include_log_monitor=False)
    time.sleep(draw.uniform(2, 10))
    run.cluster.remove_node(node, allow_graceful=False)
    return True


NODE = "node comes and vanishes"
"""On a cluster alone."""
OF_TRAINING = ("training process killed", "disk full in training")
FAULTS: dict[str, Fault] = {
    "evaluator killed in mid-score": kill("Evaluator.score"),
    "four evaluators killed in a row": four_evaluators,
    "evaluator stopped in mid-score": stop_evaluator,
    "pool killed": kill("Pool"),
    "trial killed": kill("CandidateTrial"),
    "training process killed": kill("RayTrainWorker"),
    "driver SIGKILL": tell_driver(signal.SIGKILL),
    "driver SIGTERM": tell_driver(signal.SIGTERM),
    "driver SIGHUP": tell_driver(signal.SIGHUP),
    "driver SIGINT": tell_driver(signal.SIGINT),
    "disk full in training": full_disk("CheckpointKeeper"),
    "disk full in the search": full_disk("Pool"),
    "MLflow's server away": server_away,
    NODE: node_comes_and_goes,
}
