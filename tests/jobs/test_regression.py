"""A task with numbers for outcomes goes through everything: training, a racing search, resume, report and MLflow."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from mlflow import MlflowClient
from regression import Balance
from rich.console import Console

from raysearch.export import load_subnet
from raysearch.jobs.plan import SearchCommand
from raysearch.jobs.search import run
from raysearch.recipes.autoformer import DIGITS_RECIPE
from raysearch.recipes.recipe import FinalistsConfig, Recipe, ReportConfig
from raysearch.search import EvolutionConfig, RacingConfig, Result
from raysearch.space import Constraint
from raysearch.spaces.autoformer import AutoFormerConfig, SpaceConfig, SupernetSizes
from raysearch.store.journal import Journal
from raysearch.store.summary import Summary
from raysearch.tasks.images import open_cache

RECIPE: Recipe[Any, Any] = replace(
    DIGITS_RECIPE,
    name="balance",
    task=Balance(),
    config=AutoFormerConfig(
        SpaceConfig(embed_dim=(8, 16), num_heads=(1, 2), mlp_ratio=(1.0, 2.0), depth=(1, 2)),
        SupernetSizes(patch_size=4, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2.0, head_dim=8, max_relative_position=1),
    ),
    train=replace(DIGITS_RECIPE.train, epochs=30, warmup_epochs=3, batch_size=60, workers=1),
    algorithm="evolution",
    search=EvolutionConfig(population=8, generations=3, parents=3),
    racing=RacingConfig(enabled=True, error=0.1, block=15),
    finalists=FinalistsConfig(count=3),
    report=ReportConfig(random_subnets=4, register=False),
    constraint=Constraint(),
)


def searched(output: Path, *, resume: bool = False) -> tuple[Summary, str]:
    printed = io.StringIO()
    command = SearchCommand(RECIPE, output=output, resume=resume, tracking_uri=f"sqlite:///{output.parent / 'mlflow.db'}")
    return run(command, line="a test", console=Console(file=printed, width=200)), printed.getvalue()


@pytest.mark.usefixtures("cluster")
def test_numbers_are_searched_resumed_reported_and_recorded(tmp_path: Path) -> None:
    summary, printed = searched(tmp_path / "run")
    folder = tmp_path / "run"
    assert summary.networks is not None
    champion = summary.networks.champion
    rows = pq.read_table(folder / "candidates.parquet").to_pylist()
    whole = [row for row in rows if row["status"] == "scored"]
    assert summary.finalists is not None
    best = max(whole, key=lambda row: row["score"])
    assert summary.finalists.best == best["id"]
    # The cheapest finalist that the best does not beat on the images that are kept for them.
    unbeaten = [row for row in summary.finalists.rows if not row.beaten]
    assert champion.id == min(unbeaten, key=lambda row: row.params).id
    assert summary.finalists.images == summary.counts.finalist_images == 75
    assert champion.score_interval is not None
    assert champion.score_interval.low < champion.score < champion.score_interval.high < 0
    assert summary.networks.over_random is not None
    assert all(row["score"] < 0 for row in rows)
    assert f"best {-best['score']:.3f} off" in printed  # as the task writes it
    # The network that is left does what the score says.
    network, test = load_subnet(folder / "champion.json"), open_cache(folder / "cache" / "test.arrow")
    inputs = Balance().normalise(torch.from_numpy(test.images.copy()))
    with torch.inference_mode():
        errors = np.abs(network(inputs).squeeze(1).numpy() - test.labels)
    assert champion.test_score == pytest.approx(-errors.mean(), rel=1e-5)
    assert errors.mean() < np.abs(test.labels - test.labels.mean()).mean()  # better than always saying the mean
    # What the journal keeps of each item is a number.
    journal = Journal(
        folder / "journal.jsonl", weights=json.loads((folder / "journal.jsonl").read_text().split("\n")[0])["weights"]
    )
    kept = journal.outcomes["search", champion.id]
    assert isinstance(kept, Result)
    assert kept.kind == "float32"
    assert kept.by_item(150).mean(dtype=np.float64) == pytest.approx(kept.score, rel=1e-6)
    assert all(0 < row.p_value <= 1 for row in summary.finalists.rows)

    page = (folder / "report.html").read_text()
    assert f"{champion.score:.4g}" in page
    card = (folder / "champion.md").read_text()
    assert f"| {Balance.score_name}, search split | {champion.score:.4g} (150 images) |" in card.splitlines()
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = (e for e in client.search_experiments() if e.name == "balance")
    runs = client.search_runs([experiment.experiment_id], "tags.`raysearch.champion` = 'true'")
    assert [recorded.data.metrics["score"] for recorded in runs] == [champion.score]

    # Interrupted in the middle of the search: the same again, and nothing is scored twice.
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    (again / "journal.jsonl").write_text("".join(lines[:8]) + lines[8][:20])
    for name in (".finished", "summary.json", "candidates.parquet", "front.json", "champion.json", "report.html"):
        (again / name).unlink()
    resumed, _ = searched(again, resume=True)
    assert resumed.networks == summary.networks
    assert resumed.finalists == summary.finalists
    table = pq.read_table(again / "candidates.parquet")
    assert table.drop_columns("seconds") == pq.read_table(folder / "candidates.parquet").drop_columns("seconds")
