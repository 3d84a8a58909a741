"""The programs as users call them, in this process or in one of their own, and small inputs for them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import runpy
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from raysearch.export import load_subnet
from raysearch.spaces.autoformer import AutoFormerSupernet
from raysearch.tasks.images import DataConfig, Normalisation
from raysearch.tasks.images.cache import open_cache

ROOT = Path(__file__).parents[2]

FEW_CANDIDATES = (
    *("--search.generations", "2", "--search.population", "4", "--search.mutations", "2", "--search.crossovers", "1"),
    *("--report.random-subnets", "2", "--champion.epochs", "0"),
)
"""Four random candidates and four made from them; the champion keeps the weights that it inherits."""
NO_MODELS = ("--report.no-register",)
"""Nothing goes into MLflow's registry, which takes seconds."""

SMALL_SIZES: dict[str, Any] = {
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "head_dim": 16,
    "max_relative_position": 3,
}
SMALL_NET = (
    *("--net.embed-dim", "32", "--net.depth", "2", "--net.num-heads", "2", "--net.mlp-ratio", "2", "--net.head-dim", "16"),
    *("--net.max-relative-position", "3"),
    *("--space.embed-dim", "16", "24", "32", "--space.num-heads", "1", "2", "--space.mlp-ratio", "1", "2"),
    *("--space.depth", "1", "2", "--constraint.min-params", "1e3", "--constraint.max-params", "1e6"),
)
"""A supernet of :data:`SMALL_SIZES` and a space inside it."""


# --- programs in this process -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit code, what it printed, and what it wrote on standard error and into the log."""

    code: Any
    printed: str
    complaints: str

    @property
    def message(self) -> str:
        """The message of an error as users get it: exit code 2, one line and nothing else."""
        return one_line(self.code, self.complaints)


class _Screen(io.StringIO):
    """What a program prints; calls ``at_first_line`` as soon as the first line is whole, before the program goes on."""

    def __init__(self, at_first_line: Callable[[], object] | None) -> None:
        super().__init__()
        self.at_first_line = at_first_line

    def write(self, text: str, /) -> int:
        written = super().write(text)
        if self.at_first_line is not None and "\n" in text:
            call, self.at_first_line = self.at_first_line, None
            call()
        return written


def program(
    name: str,
    *arguments: str,
    folder: Path = ROOT / "experiments",
    at_first_line: Callable[[], object] | None = None,
) -> Ended:
    """Run ``experiments/NAME.py``, or its copy in ``folder``, in this process: on the Ray cluster that it is connected to."""
    screen, complaints = _Screen(at_first_line), io.StringIO()
    log = logging.StreamHandler(complaints)
    log.setLevel(logging.WARNING)  # what the programs show
    logging.getLogger().addHandler(log)
    path, code = folder / f"{name}.py", 0
    try:
        with (
            contextlib.redirect_stdout(screen),
            contextlib.redirect_stderr(complaints),
            patch.object(sys, "argv", [str(path), *arguments]),
        ):
            runpy.run_path(str(path), run_name="__main__")
    except SystemExit as left:
        code = left.code or 0
    finally:
        logging.getLogger().removeHandler(log)
    return Ended(code, screen.getvalue(), complaints.getvalue())


def succeed(name: str, *arguments: str, folder: Path = ROOT / "experiments") -> str:
    """Run a program in this process to its end; returns what it printed. It must not complain about anything."""
    ended = program(name, *arguments, folder=folder)
    assert ended.code == 0, ended.complaints
    assert ended.complaints == ""
    return ended.printed


def searched(*flags: str, output: Path) -> tuple[dict[str, Any], str]:
    """Run the main job in this process to its end; returns its summary and what it printed."""
    printed = succeed("search", *flags, "--output", str(output))
    return json.loads((output / "summary.json").read_text()), printed


def one_line(code: Any, complaints: str) -> str:
    """The message of an error as users get it: exit code 2, one line and nothing else."""
    assert code == 2, complaints
    assert complaints.startswith("error: "), complaints
    assert complaints.count("\n") == 1, complaints
    return complaints.removeprefix("error: ").rstrip("\n")


# --- programs in a process of their own -------------------------------------------------------------------------------


def start(folder: Path, *arguments: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """The main job as a user starts it who has the script alone, as ``ray submit`` brings it: in ``folder``, with a Ray of its
    own, and with MLflow beside the output.
    """
    script = Path(shutil.copy(ROOT / "experiments" / "search.py", folder))
    return subprocess.Popen(
        [sys.executable, script.name, *arguments],
        cwd=folder,
        # As many processors as the test run's cluster has, so that it computes what a search in this process does.
        env={**os.environ, "RAY_ADDRESS": "local", "RAY_OVERRIDE_RESOURCES": '{"CPU": 2}'},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
        # Where the tests run in the background of a shell, an interruption is ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


# --- folders and networks ---------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file below ``folder``; of a database, of what SQLite says it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(_content(path)).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("mlflow.db-")
    }


def _content(path: Path) -> bytes:
    if path.suffix != ".db":
        return path.read_bytes()
    # Closing the file would drop the locks of this process's open connections (see copies.copied_store).
    with contextlib.closing(sqlite3.connect(path)) as database:
        return "\n".join(database.iterdump()).encode()


def write_tones(folder: Path, *, count: int, size: int = 16) -> Path:
    """Two classes of colour noise, ``dark`` and ``light``."""
    rng = np.random.default_rng(zlib.crc32(folder.name.encode()))  # no picture is in two folders
    for name, mean in (("dark", 70), ("light", 180)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = (mean + rng.integers(-60, 60, (size, size, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:03}.png")
    return folder


def write_idx(folder: Path, *, train: int, test: int) -> Path:
    """Fashion-MNIST's four files in torchvision's layout, with noise for clothes."""
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        pixels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, count, 28, 28) + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())
    return folder


def small_supernet(**sizes: Any) -> AutoFormerSupernet:
    """A supernet of :data:`SMALL_SIZES`."""
    return AutoFormerSupernet(**SMALL_SIZES, **sizes)


def accuracy(champion: Path, config: DataConfig, images: Path) -> float:
    """Top-1 accuracy of an exported network on a cache of images, by its own card alone."""
    network, card = load_subnet(champion), json.loads(champion.read_text())
    said = card["preprocessing"]
    normalise = Normalisation(tuple(said["mean"]), tuple(said["std"]))
    assert (said["img_size"], said["in_chans"]) == (config.img_size, config.in_chans)
    cached = open_cache(images)
    with torch.inference_mode():
        hits = network(normalise(torch.tensor(cached.images))).argmax(dim=1) == torch.tensor(cached.labels)
    return hits.float().mean().item()


def children(pid: int) -> list[int]:
    """All processes below ``pid``."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            child = int(entry.name)
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            parents.setdefault(parent, []).append(child)
    found, queue = list[int](), [pid]
    while queue:
        below = parents.get(queue.pop(), [])
        found += below
        queue += below
    return found


def kill_when(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    """SIGKILL to the driver as soon as ``ready``; then to what it leaves behind."""
    pulse = threading.Event()
    while not ready():
        assert process.poll() is None, process.communicate()[0]
        pulse.wait(0.01)
    below = children(process.pid)
    process.kill()
    process.communicate()
    for pid in below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
