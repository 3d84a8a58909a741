"""The end of a search: the champion beside other subnets, on the test split once, and everything that is left in the folder."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain
from random import Random
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console

from raysearch.distributed.scoring import ScoringService
from raysearch.distributed.search_run import SEARCH_SPLIT
from raysearch.distributed.usage import Usage
from raysearch.export import save_subnet
from raysearch.export.card import without_credentials
from raysearch.jobs.plan import Plan
from raysearch.jobs.progress import phase
from raysearch.jobs.proxy_start import proxy_line
from raysearch.jobs.registering import record_networks
from raysearch.jobs.summary import known_so_far
from raysearch.report import (
    closing_table,
    common_line,
    finalists_line,
    latency_line,
    racing_line,
    utilisation_line,
    write_report,
)
from raysearch.scoring.latency import LatencyTable
from raysearch.search import Candidate, Result
from raysearch.spaces.autoformer import AutoFormerArchitecture
from raysearch.store.candidates import CANDIDATES
from raysearch.store.folder import OutputFolder, write_json
from raysearch.store.versions import package_versions
from raysearch.tracking import Tracker, ui_command, ui_url, without_password
from raysearch.training.supernets import read_supernet

TEST_SPLIT = "test"
WHOLE_SEARCH_SPLIT = "search/all"
"""All images of the search split, for subnets that the search scored on a part of them: what is compared saw all."""


def compare(
    plan: Plan, best: Candidate, candidates: Sequence[Candidate], service: ScoringService, console: Console
) -> dict[str, dict[str, Any]]:
    """Champion, largest, smallest and random subnets on all images of the search split and, once, on the test split."""
    problem, seed = plan.problem, plan.recipe.seed
    arch = best.proposal.arch
    assert isinstance(arch, AutoFormerArchitecture)
    random: list[AutoFormerArchitecture] = []
    for i in range(plan.recipe.report.random_subnets):
        drawn = problem.sample(Random(f"{seed}/report/{i}"), exclude=random)
        if drawn is not None:
            random.append(drawn)
    chosen = list(dict.fromkeys([arch, problem.space.largest(), problem.space.smallest(), *random]))
    # Where the search scored a subnet on all images, its score is known.
    everything = plan.recipe.finalists.search_images is None
    again = {c.proposal.arch for c in candidates if c.status == "raced"} if everything else set(chosen)
    scores: dict[str, dict[AutoFormerArchitecture, Result]] = {SEARCH_SPLIT: {}, TEST_SPLIT: {}}
    with phase(console, "report", len(chosen) * len(scores)) as shown:
        done = 0
        for split, results in scores.items():
            whole = [subnet for subnet in chosen if split == SEARCH_SPLIT and subnet in again]
            outcomes = service.score(split, [subnet for subnet in chosen if subnet not in whole])
            for subnet, outcome in chain(outcomes, service.score(WHOLE_SEARCH_SPLIT, whole)):
                done += 1
                shown.show(done, step=f"{split} split")
                if isinstance(outcome, Result):
                    results[subnet] = outcome

    def network(subnet: AutoFormerArchitecture) -> dict[str, Any]:
        result, test = scores[SEARCH_SPLIT].get(subnet), scores[TEST_SPLIT].get(subnet)
        cost = problem.cost(subnet)
        return {
            "id": subnet.id,
            "arch": subnet.to_dict(),
            "score": result.score if result else None,
            "test_score": test.score if test else None,
            "params": cost.params,
            "macs": cost.macs,
            **({} if plan.latency is None else {"latency_ms": result.latency_ms if result else None}),
        }

    networks = {
        "champion": network(arch),
        "largest": network(problem.space.largest()),
        "smallest": network(problem.space.smallest()),
    }
    drawn = [n for n in map(network, random) if n["score"] is not None and n["test_score"] is not None]
    if drawn:
        medians = {key: statistics.median(n[key] for n in drawn) for key in ("score", "test_score", "params", "macs")}
        networks["random"] = {
            **medians,
            "subnets": len(drawn),
            "scores": [n["score"] for n in drawn],
            "test_scores": [n["test_score"] for n in drawn],
            "ids": [n["id"] for n in drawn],
            "archs": [n["arch"] for n in drawn],
        }
    return networks


def save_champion(plan: Plan, folder: OutputFolder, network: dict[str, Any]) -> None:
    """Extract the champion with its inherited weights and write ``champion.json``, ``.safetensors`` and ``.md``."""
    dataset, splits = plan.recipe.dataset, plan.splits
    card = {
        **network,
        "score_images": len(splits.search),
        "test_images": len(splits.test),
        "precision": plan.recipe.evaluators.precision,
        "classes": list(plan.splits.classes),
        "preprocessing": {
            "img_size": dataset.img_size,
            "in_chans": dataset.in_chans,
            "mean": dataset.mean,
            "std": dataset.std,
            "interpolation": dataset.interpolation,
            "crop_pct": dataset.crop_pct,
        },
        "data": {
            "recipe": plan.recipe.name,
            "dataset": dataset.dataset,
            "train_images": len(splits.train),
            "search_images": len(splits.search),
            "test_images": len(splits.test),
            "seed": plan.recipe.seed,
            "digest": splits.digest,
        },
        "search_id": folder.search_id,
        "command": without_credentials(folder.config["command"]),
        "created": folder.config["created"],
        "versions": package_versions(),
    }
    if plan.latency is not None:
        where = plan.latency
        card["latency"] = {"device": where.device, "batch_size": where.batch_size, "precision": where.precision}
    subnet = read_supernet(folder.supernet).build().extract(AutoFormerArchitecture.from_dict(network["arch"]))
    settings = {name: value for name, value in plan.settings.items() if name != "drop_path_rate"}
    save_subnet(folder.path / "champion.json", subnet, family="autoformer", settings=settings, card=card)


def write_summary(
    plan: Plan,
    folder: OutputFolder,
    tracker: Tracker,
    *,
    candidates: Sequence[Candidate],
    networks: dict[str, dict[str, Any]],
    finalists: dict[str, Any],
    utilisation: Usage | None,
    history: list[dict[str, Any]],
) -> dict[str, Any]:
    """Write ``summary.json`` and ``report.html``, and record them and the closing numbers in MLflow; returns the summary."""
    started = time.perf_counter()
    record_networks(plan, folder, tracker, networks["champion"])
    folder.add_seconds("register", time.perf_counter() - started)
    known = known_so_far(plan, folder, tracker, candidates=candidates, history=history)
    summary: dict[str, Any] = {
        **known,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "mlflow_uri": without_password(tracker.uri),
        "mlflow_experiment_id": tracker.experiment_id,
        "counts": {
            **known["counts"],
            "generations": 1 + max(c.proposal.generation for c in candidates),
            "test_images": len(plan.splits.test),
        },
        "networks": networks,
        "finalists": finalists,
        "racing": _racing(plan, candidates) if plan.recipe.racing.enabled else None,
        "proxy": _proxy(plan, networks.get("random")),
        # Of this run: None when a resumed search had nothing left to score.
        "utilisation": None if utilisation is None else asdict(utilisation),
        "latency": None if plan.latency is None else _latency(plan, plan.latency, networks["champion"], candidates),
    }
    write_json(folder.summary, summary)
    write_report(folder.path)
    for name in (
        "report.html",
        CANDIDATES,
        "front.json",
        "champion.json",
        "champion.safetensors",
        "champion.md",
        "config.json",
    ):
        tracker.log_artifact(folder.path / name)
    keys = ("score", "test_score", "params", "macs", "latency_ms")
    numbers = {f"{which}/{key}": network[key] for which, network in networks.items() for key in keys if key in network}
    tracker.log_metrics(numbers, step=0)
    return summary


def _proxy(plan: Plan, random: dict[str, Any] | None) -> dict[str, Any] | None:
    """How well the proxy that opened the search ranks the random subnets; None where none did, and for fewer than 3 subnets."""
    if plan.proxy is None or random is None or random["subnets"] < 3:
        return None
    archs = [AutoFormerArchitecture.from_dict(values) for values in random["archs"]]
    return plan.proxy.agreement(
        [
            {"arch": arch, "score": score, "params": plan.problem.cost(arch).params}
            for arch, score in zip(archs, random["scores"], strict=True)
        ]
    )


def _racing(plan: Plan, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """How racing was set and what it saved."""
    tried = [c.result for c in candidates if c.result is not None]
    return {
        **{name: value for name, value in asdict(plan.recipe.racing).items() if name != "enabled"},
        "candidates": len(tried),
        "raced": sum(result.excluded == "raced" for result in tried),
        "images_seen": sum(result.images_seen for result in tried),
        "images_of_full_scoring": len(tried) * (plan.recipe.finalists.search_images or len(plan.splits.search)),
    }


def _latency(plan: Plan, table: LatencyTable, champion: dict[str, Any], candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Where and how latency was measured, the table's error, and the champion's latency."""
    arch = AutoFormerArchitecture.from_dict(champion["arch"])
    return {
        **{name: value for name, value in table.to_dict().items() if name != "coefficients"},
        "champion_ms": champion["latency_ms"],
        "champion_predicted_ms": plan.problem.cost(arch).latency_ms,
        "slow": sum(c.status == "slow" for c in candidates),
    }


def show_summary(summary: dict[str, Any], folder: OutputFolder, console: Console) -> None:
    """Print the closing table, the time by phase, and how to open the record."""
    console.print(closing_table(summary))
    seconds = summary["seconds"]
    console.print(
        f"{summary['counts']['candidates']} candidates in {sum(seconds.values()):.0f} s ("
        + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())
        + f"); report: {folder.path / 'report.html'}; network: {folder.path / 'champion.json'}",
        highlight=False,
        soft_wrap=True,
    )
    if summary.get("finalists"):
        console.print(finalists_line(summary["finalists"]), highlight=False, soft_wrap=True)
    if (shared := common_line(pq.read_table(folder.path / CANDIDATES).to_pylist())) is not None:
        console.print(shared, highlight=False, soft_wrap=True)
    if summary.get("proxy"):
        console.print(proxy_line(summary["proxy"]), highlight=False, soft_wrap=True)
    if summary.get("utilisation"):
        console.print(utilisation_line(summary["utilisation"]), highlight=False, soft_wrap=True)
    if summary.get("racing"):
        console.print(racing_line(summary["racing"]), highlight=False, soft_wrap=True)
    if summary.get("latency"):
        console.print(latency_line(summary["latency"]), highlight=False, soft_wrap=True)
    opened = ui_command(summary["mlflow_uri"])
    url = ui_url(summary["mlflow_uri"], summary["mlflow_experiment_id"], search_id=summary["search_id"])
    console.print(
        f"every candidate in MLflow: {opened + '  then open  ' if opened else ''}{url}", highlight=False, soft_wrap=True
    )
