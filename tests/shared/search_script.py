"""Starting ``experiments/search.py`` as a user does, and small inputs for it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from raysearch.spaces.autoformer import AutoFormerSupernet

ROOT = Path(__file__).parents[2]

FEW_CANDIDATES = (
    *("--search.generations", "2", "--search.population", "4", "--search.mutations", "2", "--search.crossovers", "1"),
    *("--report.random-subnets", "2"),
)
"""Four random candidates and four made from them."""
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


def start(*arguments: str) -> subprocess.Popen[str]:
    """The script with these arguments; a Ray of its own, and MLflow beside the output."""
    environment = {**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.Popen(
        [sys.executable, "experiments/search.py", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background of a shell, an interruption is ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def succeed(*arguments: str) -> str:
    """Run the script to its end; returns what it printed. It must not complain about anything."""
    process = start(*arguments)
    printed, complaints = process.communicate()
    assert process.returncode == 0, complaints
    assert complaints == ""
    return printed


def one_line(code: int | str | None, complaints: str) -> str:
    """The message of an error as users get it: exit code 2, one line and nothing else."""
    assert code == 2, complaints
    assert complaints.startswith("error: "), complaints
    assert complaints.count("\n") == 1, complaints
    return complaints.removeprefix("error: ").rstrip("\n")


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file below ``folder``."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def write_tones(folder: Path, *, count: int, size: int = 16) -> Path:
    """Two classes of colour noise, ``dark`` and ``light``."""
    rng = np.random.default_rng(0)
    for name, mean in (("dark", 70), ("light", 180)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = (mean + rng.integers(-60, 60, (size, size, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:03}.png")
    return folder


def small_supernet(**sizes: Any) -> AutoFormerSupernet:
    """A supernet of :data:`SMALL_SIZES`."""
    return AutoFormerSupernet(**SMALL_SIZES, **sizes)
