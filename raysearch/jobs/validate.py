"""Is the ranking true? Subnets of a finished search are trained from scratch and ranked again."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Annotated, Any

import tyro
from rich.console import Console

from raysearch.bounds import Bounds, Count, Seed, at_least, check_numbers
from raysearch.distributed.cluster import carry
from raysearch.distributed.files import NodeFile, content_digest, serve, share
from raysearch.distributed.retraining import Retrained, Retraining, RetrainingJob, retrain
from raysearch.distributed.scoring import ScoringService
from raysearch.distributed.search_run import SEARCH_SPLIT
from raysearch.distributed.supernet_scorer import SupernetScorer
from raysearch.errors import UserError
from raysearch.invocation import command_line
from raysearch.jobs.connecting import connected_to_ray
from raysearch.jobs.latency_table import read_latency
from raysearch.jobs.plan import Plan, SearchCommand, plan_search
from raysearch.jobs.progress import phase, say_on
from raysearch.recipes.stored import stored_search
from raysearch.report import validation_lines, write_report
from raysearch.scoring.proxies import PROXIES
from raysearch.search import Failure, Result, SearchProblem
from raysearch.search.protocol import outcome_from_dict, outcome_to_dict
from raysearch.space import Architecture
from raysearch.spaces import find_family
from raysearch.statistics import Agreement, Interval, measured_noise, paired_difference, rank_agreement, regret
from raysearch.store.folder import CONFIG, OutputFolder, open_folder, read_json, write_json
from raysearch.store.lines import JsonLines
from raysearch.store.validation import VALIDATION, Regret, RetrainedSubnet, Role, Validation, ValidationSettings
from raysearch.tracking import Tracker, default_uri
from raysearch.training.alone import shortened
from raysearch.training.config import TrainingConfig
from raysearch.training.supernets import read_supernet

POOL = 5
"""Random subnets that are scored for each one that is drawn."""
EVERY = 3
"""Of so many subnets one is trained twice, the champion first."""
FINE_TUNING = 0.1
"""Highest learning rate of training from inherited weights, as a share of that of the supernet."""

WithinShare = Annotated[float, Bounds(above=0, below=1)]


@dataclass(frozen=True, slots=True)
class ValidateCommand:
    """Train subnets of a finished search from scratch, and ask how far what ranked them before agrees with that.

    The default of 60 subnets takes 80 trainings and 60 epochs of fine-tuning: with fewer, the interval of Kendall's tau is
    wide (at 60 about 0.17 to either side, at 20 about 0.3), and what is found in it may be chance.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """Output folder of the search; results are added to it."""
    subnets: Annotated[int, at_least(4)] = 60
    """How many: the champion, and random ones that cost as much, from all parts of their ranking by inherited score. A third
    of them is trained twice."""
    within: WithinShare = 0.1
    """How far costs may be from the champion's, as a share of it: size tells nothing where all have the same."""
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

    Every finished training is a line of ``validation.jsonl`` in the folder, every inherited score one of
    ``validation-scores.jsonl``; neither is repeated by a later call. The test split is not read. Raises UserError, in one line
    with the remedy, for what the user can mend.
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
        champion = plan.architecture(read_json(folder.path / "champion.json")["arch"])
        problem = _around(plan, champion, within=command.within)
        pool = _pool(problem, champion, count=command.subnets - 1, seed=command.seed)
        weights = content_digest(folder.supernet)
        settings = ValidationSettings(command.subnets, epochs, command.seed, weights, within=command.within)
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
            shared = _Shared.of(plan, folder)
            inherited = _inherited(plan, folder, shared, [champion, *pool], console=console)
            drawn = in_strata(
                {arch: inherited[arch].score for arch in pool if arch in inherited},
                count=command.subnets - 1,
                seed=command.seed,
            )
            if champion not in inherited:
                raise UserError(f"the champion of {path} could not be scored; is its supernet the one that the search trained?")
            trainings = _trainings(problem, [champion, *drawn])
            console.print(
                f"{recipe.name}: {1 + len(drawn)} subnets of {problem.constraint}, {epochs} epochs each on "
                f"{len(plan.splits.train):,} images and every {EVERY}rd twice, scored on {len(plan.splits.search):,} search "
                f"images; {len(lines.rows)} of {len(trainings)} trainings are done",
                highlight=False,
                soft_wrap=True,
            )
            _retrain(plan, shared, trainings, lines, epochs=epochs, seed=command.seed, console=console)
            validation = _summarise(plan, problem, champion, drawn, inherited, lines.rows, settings)
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


def _around(plan: Plan, champion: Architecture, *, within: float) -> SearchProblem[Any]:
    """The part of the search's budget that costs as much as the champion."""
    problem = plan.problem
    return SearchProblem(problem.space, problem.cost, problem.constraint.around(problem.cost(champion), within=within))


def _pool(problem: SearchProblem[Any], champion: Architecture, *, count: int, seed: int) -> list[Architecture]:
    """Random subnets from which ``count`` are drawn, the champion not among them. Raises UserError when there are fewer."""
    pool: dict[Architecture, None] = {champion: None}
    for i in range(POOL * count):
        arch = problem.sample(Random(f"{seed}/validate/{i}"), exclude=pool)
        if arch is None:
            break
        pool[arch] = None
    if len(pool) <= count:
        raise UserError(
            f"only {len(pool)} subnets were found with {problem.constraint}, the champion's cost; "
            f"give --subnets {len(pool)} or fewer, or a larger --within"
        )
    return [arch for arch in pool if arch != champion]


def in_strata(scores: Mapping[Architecture, float], *, count: int, seed: int) -> list[Architecture]:
    """One of the subnets from each of ``count`` equal parts of their ranking, worst first; all where there are not as many."""
    ranked = sorted(scores, key=lambda arch: (scores[arch], arch.id))
    count = min(count, len(ranked))
    parts = [ranked[len(ranked) * i // count : len(ranked) * (i + 1) // count] for i in range(count)]
    return [Random(f"{seed}/stratum/{i}").choice(part) for i, part in enumerate(parts)]


def _trainings(problem: SearchProblem[Any], archs: Sequence[Architecture]) -> list[Retraining[Any]]:
    """All that is to be done: each subnet from scratch, every third again, and each from its inherited weights."""
    costs = [problem.cost(arch) for arch in archs]
    return [
        *(Retraining(arch, cost) for arch, cost in zip(archs, costs, strict=True)),
        *(Retraining(arch, cost, repeat=1) for arch, cost in list(zip(archs, costs, strict=True))[::EVERY]),
        *(Retraining(arch, cost, start="inherited") for arch, cost in zip(archs, costs, strict=True)),
    ]


# --- on the cluster ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Shared:
    """Files that processes of the cluster fetch."""

    supernet: NodeFile
    images: NodeFile
    calibration: NodeFile | None

    @classmethod
    def of(cls, plan: Plan, folder: OutputFolder) -> _Shared:
        """Those of a search; the search images are decoded where that was not done."""
        cache = folder.path / "cache" / f"{SEARCH_SPLIT}.arrow"
        plan.recipe.task.write_cache(plan.splits.search, cache)
        server = serve()
        calibrates = plan.recipe.family.calibrates
        return cls(
            supernet=share(folder.supernet, server=server),
            images=share(cache, server=server),
            calibration=share(folder.calibration, server=server) if calibrates else None,
        )


def _inherited(
    plan: Plan, folder: OutputFolder, shared: _Shared, archs: Sequence[Architecture], *, console: Console
) -> dict[Architecture, Result]:
    """Results with inherited weights on all search images; those that failed are not among them."""
    recipe = plan.recipe
    make_scorer = partial(
        SupernetScorer,
        shared.supernet,
        family=recipe.family,
        task=recipe.task,
        config=recipe.evaluators,
        calibration=shared.calibration,
    )
    results: dict[Architecture, Result] = {}
    with (
        phase(console, "score", len(archs), at_first="evaluators start") as shown,
        ScoringService(
            make_scorer,
            recipe.evaluators,
            name=f"validation-{folder.search_id}",
            journal=folder.path / "validation-scores.jsonl",
            weights=shared.supernet.digest,
            calibration=None if shared.calibration is None else shared.calibration.digest,
            say=say_on(console),
        ) as service,
    ):
        service.add_images(SEARCH_SPLIT, shared.images)
        for done, (arch, outcome) in enumerate(service.score(SEARCH_SPLIT, archs), start=1):
            if isinstance(outcome, Result):
                results[arch] = outcome
            shown.show(done, step="subnets")
    return results


class _Lines:
    """``validation.jsonl``: the settings, then one line per training; a line that a crash cut short is dropped.

    Raises UserError for a damaged line, and when the settings are not those that the file was started with.
    """

    def __init__(self, path: Path, settings: ValidationSettings) -> None:
        def retrained(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
            outcome_from_dict(row["outcome"])
            return row["training"], row

        header = {"settings": asdict(settings)}
        # Before the lines are looked at: those of version 0.1.0 hold something else.
        earlier: dict[str, Any] = JsonLines(path, dict, header=header, remedy="remove it").header.get("settings") or {}
        if changed := [name for name, value in asdict(settings).items() if earlier.get(name) != value]:
            name = changed[0]
            raise UserError(
                f"{path} holds subnets retrained with {name} {earlier.get(name)}, not {getattr(settings, name)}; "
                "repeat its settings, or remove it to start anew"
            )
        self._lines = JsonLines(path, retrained, header=header, remedy="remove that line")
        self.rows: dict[str, dict[str, Any]] = dict(self._lines.rows)
        """By the name of the training."""

    def append(self, done: Retrained[Architecture]) -> None:
        """Keep one finished training; on disk when this returns."""
        row = {
            "training": done.training.name,
            "arch": done.training.arch.to_dict(),
            "outcome": outcome_to_dict(done.outcome),
            "loss": done.loss,
            "seconds": done.seconds,
            "proxies": done.proxies,
        }
        self._lines.append(row)
        self.rows[done.training.name] = row


def fine_tuning(train: TrainingConfig) -> TrainingConfig:
    """One epoch that begins with trained weights: a tenth of the learning rate, from its height down."""
    lr = FINE_TUNING * train.lr
    return replace(train, epochs=1, lr=lr, min_lr=min(train.min_lr, lr), warmup_lr=min(train.warmup_lr, lr), warmup_epochs=0)


def _retrain(
    plan: Plan,
    shared: _Shared,
    trainings: Sequence[Retraining[Any]],
    lines: _Lines,
    *,
    epochs: int,
    seed: int,
    console: Console,
) -> None:
    """Do those of ``trainings`` that have no line yet."""
    left = [training for training in trainings if training.name not in lines.rows]
    if not left:
        return
    recipe = plan.recipe
    job = RetrainingJob(
        family=recipe.family,
        settings=plan.settings,
        train=shortened(recipe.train, epochs),
        finetune=fine_tuning(recipe.train),
        task=recipe.task,
        evaluators=recipe.evaluators,
        splits=plan.splits.digest,
        seed=seed,
        supernet=shared.supernet,
        images=shared.images,
        calibration=shared.calibration,
    )
    with phase(console, "retrain", len(trainings)) as shown:

        def show(in_progress: float) -> None:
            shown.show(round(len(lines.rows) + in_progress), step="trainings")

        for done in retrain(job, left, on_steps=show, say=say_on(console)):
            lines.append(done)
            show(0)


# --- what it shows ----------------------------------------------------------------------------------------------------


def _summarise(
    plan: Plan,
    problem: SearchProblem[Any],
    champion: Architecture,
    drawn: Sequence[Architecture],
    inherited: Mapping[Architecture, Result],
    rows: Mapping[str, Mapping[str, Any]],
    settings: ValidationSettings,
) -> Validation:
    """Everything for ``validation.json``."""
    subnets: list[RetrainedSubnet] = []
    outcomes: dict[str, Result] = {}
    failed: dict[str, str] = {}
    for arch in (champion, *drawn):
        cost = problem.cost(arch)
        names = [Retraining(arch, cost, repeat=repeat).name for repeat in range(2)]
        scratch = [rows[name] for name in names if name in rows]
        results = [outcome_from_dict(row["outcome"]) for row in scratch]
        tuned = outcome_from_dict(rows[Retraining(arch, cost, start="inherited").name]["outcome"])
        first, *_ = results
        if isinstance(first, Failure):
            failed[arch.id] = first.reason
            continue
        scores = tuple(result.score for result in results if isinstance(result, Result))
        role: Role = "champion" if arch == champion else "drawn"
        outcomes[arch.id] = first
        subnets.append(
            RetrainedSubnet(
                id=arch.id,
                arch=arch.to_dict(),
                role=role,
                params=cost.params,
                macs=cost.macs,
                inherited=inherited[arch].score,
                retrained=statistics.fmean(scores),
                retrainings=scores,
                finetuned=tuned.score if isinstance(tuned, Result) else None,
                proxies=scratch[0]["proxies"],
                loss=scratch[0]["loss"],
                seconds=sum(row["seconds"] for row in scratch),
            )
        )
    chosen = next((subnet for subnet in subnets if subnet.role == "champion"), None)
    others = [subnet for subnet in subnets if subnet.role == "drawn"]
    items = len(plan.splits.search)
    over = None
    if chosen is not None and others:
        over = paired_difference(outcomes[chosen.id].by_item(items), [outcomes[s.id].by_item(items) for s in others])
    return Validation(
        settings=settings,
        recipe_epochs=plan.recipe.train.epochs,
        search_images=items,
        failed=failed,
        subnets=subnets,
        score_name=plan.recipe.task.score_name,
        score_kind=inherited[champion].kind,
        band=str(problem.constraint),
        rankings=agreements(others),
        noise=measured_noise([subnet.scores for subnet in others]),
        regret=None if chosen is None else regret_of(chosen, others),
        over_drawn=over,
    )


def agreements(subnets: Sequence[RetrainedSubnet]) -> dict[str, Agreement]:
    """What ranks subnets, with their retrained scores; a ranking that lacks one of them is left out. Empty below 3 subnets."""
    if len(subnets) < 3:
        return {}
    rankings: dict[str, list[float | None]] = {
        "inherited": [s.inherited for s in subnets],
        "fine-tuned": [s.finetuned for s in subnets],
        "params": [s.params for s in subnets],
        "macs": [s.macs for s in subnets],
        **{name: [s.proxies.get(name) for s in subnets] for name in PROXIES},
    }
    known = {name: [v for v in values if v is not None] for name, values in rankings.items()}
    whole = {name: values for name, values in known.items() if len(values) == len(subnets)}
    return rank_agreement(whole, [s.retrained for s in subnets], given="params")


def regret_of(champion: RetrainedSubnet, drawn: Sequence[RetrainedSubnet]) -> Regret:
    """How far the best of all is above the champion."""
    best = max((champion, *drawn), key=lambda subnet: subnet.retrained)
    return Regret(best.id, best.retrained - champion.retrained, regret([s.scores for s in drawn], champion.scores))


def _metrics(validation: Validation) -> dict[str, float | None]:
    """The numbers for MLflow."""
    metrics: dict[str, float | None] = {}

    def put(name: str, interval: Interval | None) -> None:
        for end, value in ({} if interval is None else interval.to_dict()).items():
            metrics[f"validation/{name}/{end}"] = value

    for name, found in validation.rankings.items():
        put(f"tau_{name}", found.tau)
        put(f"partial_tau_{name}", found.partial)
    if (noise := validation.noise) is not None:
        metrics |= {"validation/noise": noise.noise, "validation/spread": noise.spread}
        put("tau_between_seeds", noise.between)
        put("tau_highest", noise.highest)
    if (found := validation.regret) is not None:
        metrics["validation/regret_measured"] = found.measured
        put("regret", found.true)
    put("champion_over_drawn", validation.over_drawn)
    return metrics
