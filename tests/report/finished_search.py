"""The folder of a finished search over a made-up space: real files, written by the code that a search uses."""

import io
import math
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from raysearch.search import Candidate, Failure, Proposal, Result, champion, pareto_front
from raysearch.space import Architecture
from raysearch.space.cost import Cost
from raysearch.store.candidates import CandidateRow, write_candidates
from raysearch.store.folder import write_json
from raysearch.store.predictions import PREDICTIONS, Predictions, write_predictions


@dataclass(frozen=True)
class BlockArchitecture(Architecture):
    embed_dim: int
    num_heads: tuple[int, ...]
    mlp_ratio: tuple[float, ...]


def _draw(rng: random.Random) -> BlockArchitecture:
    depth, width = rng.choice((2, 3, 4, 5)), rng.choice((32, 64, 96))
    return BlockArchitecture(width, tuple(rng.choices((2, 3, 4), k=depth)), tuple(rng.choices((1.0, 2.0, 3.0), k=depth)))


def candidates_of(*, generations: int, population: int, failures: int = 0, latency: bool = False) -> list[Candidate]:
    """A search that worked: scores rise with the generations, and after the first one 4 heads in the first block are better."""
    rng = random.Random(0)
    candidates: list[Candidate] = []
    drawn: set[BlockArchitecture] = set()
    for i in range(generations * population):
        generation, arch = i // population, _draw(rng)
        while arch in drawn:
            arch = _draw(rng)
        drawn.add(arch)
        cost = Cost(int(50e3 + 30e3 * rng.random()), int(1e6 * (1 + rng.random())))
        origin = "random" if generation == 0 else rng.choice(("mutation", "crossover"))
        proposal = Proposal(arch, index=i, generation=generation, origin=origin)
        trend = 0.02 * (1 - math.exp(-generation / 3)) + 0.015 * (cost.params - 50e3) / 30e3
        trend += 0.015 * (generation > 0 and arch.num_heads[0] == 4)
        score = round(397 * min(1.0, 0.955 + trend + rng.gauss(0, 0.004))) / 397
        milliseconds = cost.macs / 1e6 + 0.1 * rng.random() if latency else None
        scored = Result(
            score=score, items_seen=397, params=cost.params, macs=cost.macs, loss=1 - score, latency_ms=milliseconds
        )
        candidates.append(Candidate(proposal, cost, Failure("evaluator lost") if i < failures else scored))
    return candidates


def finish(folder: Path, *, generations: int, population: int, failures: int = 0, latency: bool = False) -> list[Candidate]:
    """Write what a search leaves behind, its report excepted."""
    candidates = candidates_of(generations=generations, population=population, failures=failures, latency=latency)
    leave(folder, candidates)
    return candidates


def leave(folder: Path, candidates: list[Candidate]) -> None:
    """Write the files of a search with these candidates, its report excepted."""
    folder.mkdir(parents=True, exist_ok=True)
    write_candidates(folder / "candidates.parquet", candidates)
    write_json(folder / "front.json", [CandidateRow.of(c).columns() for c in pareto_front(candidates)])
    failures = sum(c.status == "failed" for c in candidates)
    write_json(folder / "summary.json", _summary(champion(candidates), candidates, failures))


def say(folder: Path, predictions: Predictions) -> None:
    """Write what the champion said of the test images."""
    write_predictions(folder / PREDICTIONS, predictions)


def predictions_of(classes: int, images: int, *, right: float = 0.9) -> Predictions:
    """Made-up predictions, so many of them right; the mistakes have pictures."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, images)
    predicted = np.where(rng.random(images) < right, labels, rng.integers(0, classes, images))
    said = Predictions(labels, predicted, rng.uniform(0.3, 1.0, images).astype(np.float32), names=None)
    pictures = {item: _png(rng.integers(0, 256, (8, 8))) for item in said.confident_mistakes(12)}
    return replace(said, pictures=pictures, classes=tuple(f"n{i:05}" for i in range(classes)))


def _png(pixels: np.ndarray) -> bytes:
    written = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(written, "PNG")
    return written.getvalue()


def _summary(best: Candidate, candidates: list[Candidate], failures: int) -> dict[str, Any]:
    assert best.result is not None
    network = {"id": best.proposal.arch.id, "arch": best.proposal.arch.to_dict(), "score": best.result.score}
    epochs = range(300)
    return {
        "recipe": "digits",
        "seed": 0,
        "command": "experiments/search.py digits --note '<&>'",
        "constraint": "50,000 <= params <= 80,000",
        "finished": "2026-11-22T12:00:00+00:00",
        "search_id": "0123456789ab",
        "mlflow_run_id": "f" * 32,
        "mlflow_uri": "sqlite:///runs/mlflow.db",
        "counts": {
            "candidates": len(candidates), "scored": len(candidates) - failures, "failed": failures,
            "generations": 1 + candidates[-1].proposal.generation,
            "train_images": 1000, "search_images": 397, "test_images": 400,
        },
        "seconds": {"prepare": 6.1, "train": 71.8, "search": 48.2, "report": 9.4},
        "networks": {
            "champion": {**network, "test_score": 0.9875, "params": best.cost.params, "macs": best.cost.macs},
            "largest": {**network, "id": "largest", "score": 0.99, "test_score": 0.98, "params": 216_394, "macs": 1_234_567},
            "smallest": {**network, "id": "smallest", "score": None, "test_score": None, "params": 10_250, "macs": 9_000},
            "random": {
                "score": 0.965, "test_score": 0.9601, "params": 64_000.5, "macs": 2.5e9,
                "subnets": 25, "scores": [0.965] * 25, "test_scores": [0.9601] * 25,
            },
        },
        "training": {
            "epochs": 300,
            "history": [
                {"epoch": e, "loss": 0.05 + 2.2 * math.exp(-e / 40), "lr": 2e-3 * math.sin(e / 95), "seconds": 0.2}
                for e in epochs
            ],
        },
        "versions": {"python": "3.11.9", "raysearch": "0.1.0", "torch": "2.14.1", "ray": "2.60.0"},
    }  # fmt: skip
