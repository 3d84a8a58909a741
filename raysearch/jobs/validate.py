"""Is the ranking true? Subnets of a finished search are trained from scratch and ranked again."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any

import tyro
from rich.console import Console

from raysearch.bounds import Count, Seed, at_least, check_numbers
from raysearch.distributed.cluster import carry
from raysearch.distributed.files import content_digest, serve, share
from raysearch.distributed.retraining import Retrained, RetrainingJob, retrain
from raysearch.distributed.search_run import SEARCH_SPLIT
from raysearch.errors import UserError
from raysearch.invocation import command_line
from raysearch.jobs.connecting import connected_to_ray
from raysearch.jobs.latency_table import read_latency
from raysearch.jobs.plan import Plan, SearchCommand, plan_search
from raysearch.jobs.progress import phase, say_on
from raysearch.recipes.stored import stored_search
from raysearch.report import validation_lines, write_report
from raysearch.search import Failure, Result, SearchProblem
from raysearch.search.protocol import outcome_from_dict, outcome_to_dict
from raysearch.space import Architecture
from raysearch.spaces import find_family
from raysearch.statistics import kendall_intervals, paired_gap
from raysearch.store.candidates import CANDIDATES, best_rows, read_candidates
from raysearch.store.folder import CONFIG, OutputFolder, open_folder, read_json, write_json
from raysearch.store.lines import JsonLines
from raysearch.store.validation import (
    VALIDATION,
    Agreement,
    ChampionGap,
    RetrainedSubnet,
    Role,
    Validation,
    ValidationSettings,
)
from raysearch.tracking import Tracker, default_uri
from raysearch.training.alone import shortened
from raysearch.training.supernets import read_supernet

POOL = 50
"""Random subnets of the band for each one that is drawn: enough that rare sizes are among them."""


@dataclass(frozen=True, slots=True)
class ValidateCommand:
    """Train subnets of a finished search from scratch, and compare their ranking with that of inherited weights."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Output folder of the search; results are added to it."""
    subnets: Annotated[int, at_least(3)] = 12
    """How many: the champion, the best random candidate, and others drawn across the parameter band."""
    epochs: Count | None = None
    """Epochs of each training; those of the supernet when not given. Warm-up keeps its share of them."""
    seed: Seed = 0
    """Decides which subnets are drawn, and their initial weights and training."""
    family: str | None = None
    """File or module of the family, where it is one of your own."""
    tracking_uri: str | None = None
    """MLflow store of the search. Default: MLFLOW_TRACKING_URI, or SQLite beside the output folder."""
    ray_address: str | None = None
    """Ray cluster. Default: Ray's own rule, a cluster that runs on this node or else a new one on this machine."""

    def __post_init__(self) -> None:
        """Raises UserError for numbers that cannot be."""
        check_numbers(self)


def validate(command: ValidateCommand, *, console: Console) -> Validation:
    """Run or continue a validation; returns what ``validation.json`` holds.

    Every finished retraining is a line of ``validation.jsonl`` in the folder, and is not repeated by a later call. The test
    split is not read. Raises UserError, in one line with the remedy, for what the user can mend.
    """
    path = command.folder
    if not (path / CONFIG).is_file():
        raise UserError(f"{path} is no output folder of a search; give the folder that `{command_line('search')}` named")
    if not (path / ".finished").exists():
        raise UserError(f"the search in {path} is not finished; continue it with --resume first")
    config = read_json(path / CONFIG)
    with open_folder(path, config, resume=True) as folder:
        plan = _plan(folder, command.family)
        recipe = plan.recipe
        epochs = command.epochs or recipe.train.epochs
        chosen = _choose(plan, folder, count=command.subnets, seed=command.seed)
        settings = ValidationSettings(command.subnets, epochs, command.seed, weights=content_digest(folder.supernet))
        lines = _Lines(path / "validation.jsonl", settings)
        with (
            Tracker(
                uri=command.tracking_uri or default_uri(path.absolute().parent),
                experiment=recipe.name,
                search_id=folder.search_id,
                run_name=path.name,
                params={},
            ) as tracker,
            connected_to_ray(command.ray_address, console),
        ):
            carry(recipe.family, recipe.task)
            console.print(
                f"{recipe.name}: {len(chosen)} subnets of {plan.problem.constraint}, {epochs} epochs each on "
                f"{len(plan.splits.train):,} images, scored on {len(plan.splits.search):,} search images; "
                f"{len(lines.rows)} are done",
                highlight=False,
                soft_wrap=True,
            )
            _retrain(plan, folder, [*chosen], lines, epochs=epochs, seed=command.seed, console=console)
            validation = _summarise(plan, chosen, lines.rows, settings)
            write_json(path / VALIDATION, validation.to_dict())
            write_report(path)
            for name in (VALIDATION, "report.html"):
                tracker.log_artifact(path / name)
            tracker.log_metrics(_metrics(validation), step=0)
    for line in validation_lines(validation):
        console.print(line, highlight=False, soft_wrap=True)
    return validation


def _plan(folder: OutputFolder, family: str | None) -> Plan:
    """The plan that the search had. Raises UserError when its images are no longer those."""
    given = None if family is None else find_family(family)
    stored = stored_search(folder.config["recipe"], folder.path / CONFIG, given)
    recipe = stored.recipe
    plan = plan_search(SearchCommand(recipe))
    if stored.images is not None and not plan.splits.digest.startswith(stored.images):
        raise UserError(
            f"the data of {recipe.task.data_name} in {recipe.task.data_source} are not those "
            f"that {folder.path} searched with; restore them"
        )
    if folder.latency.exists():
        plan = plan.with_latency(read_latency(folder))
    read_supernet(folder.supernet, recipe.family)  # missing or damaged is said before anything is trained
    return plan


# --- which subnets ----------------------------------------------------------------------------------------------------


def _choose(plan: Plan, folder: OutputFolder, *, count: int, seed: int) -> dict[Architecture, Role]:
    """The champion, the best other random candidate of the search where it has one, and subnets across the band."""
    best = plan.architecture(read_json(folder.path / "champion.json")["arch"])
    chosen: dict[Architecture, Role] = {best: "champion"}
    for row in best_rows(row for row in read_candidates(folder.path / CANDIDATES) if row.origin == "random"):
        arch = plan.architecture(row.arch)
        if arch != best:
            chosen[arch] = "best random"
            break
    drawn = across_band(plan.problem, count=count - len(chosen), seed=seed, exclude=list(chosen))
    if len(chosen) + len(drawn) < count:
        raise UserError(f"the band has no {count} subnets; give --subnets {len(chosen) + len(drawn)} or fewer")
    for arch in drawn:
        chosen[arch] = "drawn"
    return chosen


def across_band(problem: SearchProblem[Any], *, count: int, seed: int, exclude: Sequence[Architecture]) -> list[Architecture]:
    """Random subnets of the band, one in each of ``count`` equal ranges of parameters; fewer when the band has fewer.

    The ranges divide what :data:`POOL` times as many random subnets span. For a range without any of them, another of any size
    is taken.
    """
    pool: list[Architecture] = []
    taken = set(exclude)
    for i in range(POOL * count):
        arch = problem.sample(Random(f"{seed}/validate/{i}"), exclude=taken)
        if arch is None:
            break
        pool.append(arch)
        taken.add(arch)
    sizes = [problem.cost(arch).params for arch in pool]
    ranges: dict[int, Architecture] = {}
    for arch, size in zip(pool, sizes, strict=True):
        place = (size - min(sizes)) / max(1, max(sizes) - min(sizes))
        ranges.setdefault(min(count - 1, math.floor(count * place)), arch)
    drawn = [ranges[place] for place in sorted(ranges)]
    rest = (arch for arch in pool if arch not in drawn)
    return [*drawn, *itertools.islice(rest, count - len(drawn))]


# --- retraining -------------------------------------------------------------------------------------------------------


class _Lines:
    """``validation.jsonl``: the settings, then one line per retrained subnet; a line that a crash cut short is dropped.

    Raises UserError for a damaged line, and when the settings are not those that the file was started with.
    """

    def __init__(self, path: Path, settings: ValidationSettings) -> None:
        def retrained(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
            for name in ("inherited", "retrained"):
                outcome_from_dict(row[name])
            return row["id"], row

        self._lines = JsonLines(path, retrained, header={"settings": asdict(settings)}, remedy="remove that line")
        self.rows: dict[str, dict[str, Any]] = dict(self._lines.rows)
        """By architecture id."""
        earlier: dict[str, Any] = self._lines.header.get("settings") or {}
        if changed := [name for name, value in asdict(settings).items() if earlier.get(name) != value]:
            name = changed[0]
            raise UserError(
                f"{path} holds subnets retrained with {name} {earlier.get(name)}, not {getattr(settings, name)}; "
                "repeat its settings, or remove it to start anew"
            )

    def append(self, done: Retrained[Architecture]) -> None:
        """Keep one retrained subnet; on disk when this returns."""
        row = {
            "id": done.arch.id,
            "arch": done.arch.to_dict(),
            "inherited": outcome_to_dict(done.inherited),
            "retrained": outcome_to_dict(done.retrained),
            "loss": done.loss,
            "seconds": done.seconds,
        }
        self._lines.append(row)
        self.rows[done.arch.id] = row


def _retrain(
    plan: Plan,
    folder: OutputFolder,
    archs: Sequence[Architecture],
    lines: _Lines,
    *,
    epochs: int,
    seed: int,
    console: Console,
) -> None:
    """Train and score those of ``archs`` that have no line yet."""
    left = [arch for arch in archs if arch.id not in lines.rows]
    if not left:
        return
    recipe = plan.recipe
    cache = folder.path / "cache" / f"{SEARCH_SPLIT}.arrow"
    recipe.task.write_cache(plan.splits.search, cache)
    server = serve()
    job = RetrainingJob(
        family=recipe.family,
        settings=plan.settings,
        train=shortened(recipe.train, epochs),
        task=recipe.task,
        evaluators=recipe.evaluators,
        splits=plan.splits.digest,
        seed=seed,
        supernet=share(folder.supernet, server=server),
        images=share(cache, server=server),
        calibration=share(folder.calibration, server=server) if recipe.family.calibrates else None,
    )
    with phase(console, "retrain", len(archs) * epochs) as shown:

        def show(in_progress: float) -> None:
            step = f"{len(lines.rows)}/{len(archs)} subnets, epochs"
            shown.show(round(epochs * (len(lines.rows) + in_progress)), step=step)

        for done in retrain(job, left, on_steps=show, say=say_on(console)):
            lines.append(done)
            show(0)


# --- what it shows ----------------------------------------------------------------------------------------------------


def _summarise(
    plan: Plan, chosen: dict[Architecture, Role], rows: dict[str, dict[str, Any]], settings: ValidationSettings
) -> Validation:
    """Everything for ``validation.json``."""
    images, kind = len(plan.splits.search), "bits"
    subnets: list[RetrainedSubnet] = []
    results: dict[Role, tuple[Result, Result]] = {}
    failed: dict[str, str] = {}
    for arch, role in chosen.items():
        row = rows[arch.id]
        inherited, retrained = outcome_from_dict(row["inherited"]), outcome_from_dict(row["retrained"])
        if isinstance(inherited, Failure) or isinstance(retrained, Failure):
            failed[arch.id] = next(o.reason for o in (inherited, retrained) if isinstance(o, Failure))
            continue
        kind = inherited.kind
        if role != "drawn":
            results[role] = (inherited, retrained)
        subnets.append(
            RetrainedSubnet(
                id=arch.id,
                arch=arch.to_dict(),
                role=role,
                params=plan.problem.cost(arch).params,
                inherited=inherited.score,
                retrained=retrained.score,
                loss=row["loss"],
                seconds=row["seconds"],
            )
        )
    gap = None
    if len(results) == 2:
        gap = ChampionGap(
            *(
                paired_gap(first.by_item(images), second.by_item(images))
                for first, second in zip(results["champion"], results["best random"], strict=True)
            )
        )
    return Validation(
        settings=settings,
        recipe_epochs=plan.recipe.train.epochs,
        search_images=images,
        agreement=_agreement(subnets),
        gap=gap,
        failed=failed,
        subnets=subnets,
        score_name=plan.recipe.task.score_name,
        score_kind=kind,
    )


def _agreement(subnets: Sequence[RetrainedSubnet]) -> dict[str, Agreement]:
    """Tau-b with retrained scores over all subnets, and over the drawn ones alone, which no score chose."""
    agreement: dict[str, Agreement] = {}
    groups = {"all": list(subnets), "drawn": [subnet for subnet in subnets if subnet.role == "drawn"]}
    for group, members in groups.items():
        if len(members) < 3:
            continue
        rankings = {"inherited": [s.inherited for s in members], "params": [s.params for s in members]}
        taus, lead = kendall_intervals(rankings, [s.retrained for s in members])
        agreement[group] = Agreement(len(members), taus["inherited"], taus["params"], lead)
    return agreement


def _metrics(validation: Validation) -> dict[str, float | None]:
    """The numbers for MLflow: names with the group, so that a later reader knows what was correlated."""
    metrics: dict[str, float | None] = {}
    for group, taus in validation.agreement.items():
        for name, tau in (("inherited", taus.inherited), ("params", taus.params)):
            for end, value in ({} if tau is None else tau.to_dict()).items():
                metrics[f"validation/tau_{name}_{group}/{end}"] = value
    if validation.gap is not None:
        for name, gap in (("inherited", validation.gap.inherited), ("retrained", validation.gap.retrained)):
            for part, value in gap.to_dict().items():
                metrics[f"validation/gap_{name}/{part}"] = value
    return metrics
