"""Searches side by side: which found better networks, and which needed less for it."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from raysearch.bounds import FINITE, Positive, check_numbers
from raysearch.errors import UserError
from raysearch.invocation import command_line
from raysearch.recipes.recipe import SETTINGS_OF, Recipe, flat_settings
from raysearch.recipes.stored import stored_search
from raysearch.report.comparison import (
    WARM_START,
    ComparedGroup,
    ComparedRun,
    Comparison,
    comparison_lines,
    comparison_tables,
    difference_text,
    write_comparison,
)
from raysearch.search import Candidate, Proposal, Result, pareto_front
from raysearch.search.front import hypervolume
from raysearch.search.protocol import Kind
from raysearch.space import Architecture, Cost
from raysearch.spaces import Family, find_family
from raysearch.statistics import Interval, over_seeds, share_interval
from raysearch.store.candidates import CANDIDATES, CandidateRow, read_candidates
from raysearch.store.folder import CONFIG, read_json, read_record
from raysearch.store.paths import expanded, of_home
from raysearch.store.scores import Scale
from raysearch.store.summary import Summary
from raysearch.tracking import TrackingError, artifact_of_run, default_uri

BY_TIME = "as time allows"
"""In the place of a setting that followed from a timed step: it differs a little from one search to the next."""

Settings = dict[str, Any]
"""Settings by name, as ``train.epochs``."""

SPLIT_SEED = "dataset.split_seed"
"""Decides the division of the data; repetitions may differ in it as in the seed of the search."""

NUMBERS = ("best", "test", "random_test", "hypervolume", "evaluations_to_score", "seconds_to_score", "evaluations", "seconds")


@dataclass(frozen=True, slots=True)
class CompareCommand:
    """Compare finished searches on the same images: fronts, hypervolume, candidates and seconds to a score."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN RUN ...")]
    """Two or more output folders or MLflow run ids. Those that differ in their seeds alone are one group."""
    score: Annotated[float, FINITE] | None = None
    """Score to be reached, as 0.95. Default: the lowest of the runs' best scores, which all reach."""
    reference: tuple[Annotated[float, FINITE], Positive] | None = None
    """Score and parameters from which hypervolumes are measured. Default: worst score and most parameters of all runs."""
    output: Path = Path("compare.html")
    """The page that is written."""
    family: str | None = None
    """File or module of their family, where it is one of your own."""
    tracking_uri: str | None = None
    """MLflow store of run ids. Default: MLFLOW_TRACKING_URI, or SQLite in the folder runs."""

    def __post_init__(self) -> None:
        """``~`` becomes the home. Raises UserError for numbers that cannot be and a page that cannot be written."""
        check_numbers(self)
        object.__setattr__(self, "runs", tuple(map(of_home, self.runs)))
        object.__setattr__(self, "output", expanded(self.output))
        if len(self.runs) < 2:
            raise UserError("give two or more searches: output folders or MLflow run ids")
        if self.output.is_dir() or self.output.suffix != ".html":
            raise UserError(f"--output {self.output} is no page; name a file that ends in .html")
        if not self.output.absolute().parent.is_dir():
            raise UserError(f"--output {self.output}: there is no folder {self.output.parent}; make it first")


def compare_searches(command: CompareCommand, *, line: str, console: Console) -> Comparison:
    """Print the table and write the page; returns what they hold.

    Raises UserError, in one line with the remedy, for runs that are not there, not finished or not comparable.
    """
    held = [_read(run, command) for run in command.runs]
    if repeated := [name for name, count in Counter(h.search_id for h in held).items() if count > 1]:
        names = [h.name for h in held if h.search_id == repeated[0]]
        raise UserError(f"{' and '.join(names)} are the same search; give each once")
    for other in held[1:]:
        if (difference := _difference(held[0], other)) is not None:
            raise UserError(
                f"{held[0].name} and {other.name} cannot be compared: {difference}; compare searches on the same images"
            )
    comparison = _compare(held, command, line=line)
    for table in comparison_tables(comparison, width=console.width):
        console.print(table)
    for words in comparison_lines(comparison):
        console.print(words, highlight=False, soft_wrap=True)
    write_comparison(command.output, comparison)
    console.print(f"page: {command.output}", highlight=False, soft_wrap=True)
    return comparison


# --- what is read -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Held:
    """A finished search as its folder or its MLflow run holds it."""

    name: str
    search_id: str
    recipe: Recipe[Any, Any]
    images: str | None
    """Digest of the images and their splits."""
    given: bool
    """Whether the supernet was given; else the search trained it."""
    weights: str | None
    """Digest of the supernet; None for one that the search trained and of which only the MLflow run is left."""
    warm_start: int
    """How many architectures it was started with."""
    candidates: tuple[Candidate, ...]
    flags: frozenset[str] | None = None
    """Names of the settings that stood on the command line; None where an earlier version did not write them down."""
    time: str | None = None
    """In which the search was to end, as given."""
    summary: Summary | None = None
    """None where it is not there, as that of an MLflow run of version 0.1.0."""

    @property
    def kind(self) -> Kind:
        """What its scores are means of; without a summary, numbers from 0 to 1 are taken for shares."""
        if self.summary is not None:
            return self.summary.score_kind
        return "bits" if all(0 <= result.score <= 1 for result in self.competing) else "float32"

    @property
    def by_time(self) -> frozenset[str]:
        """Names of the settings that followed from a timed step of this search, on this machine at that moment."""
        if self.flags is None or not (self.recipe.fits or self.time):
            return frozenset()
        group = next((group for group, algorithms in SETTINGS_OF.items() if self.recipe.algorithm in algorithms), "")
        timed = {"train.epochs", "train.warmup_epochs", f"{group}.generations", f"{group}.candidates"}
        return frozenset(timed - self.flags)

    @property
    def competing(self) -> list[Result]:
        return [c.result for c in self.candidates if c.result is not None and c.result.competes]


def _read(run: str, command: CompareCommand) -> _Held:
    path = Path(run)
    family = None if command.family is None else find_family(command.family)
    if path.is_dir():
        if not (path / CONFIG).is_file():
            raise UserError(f"{path} is no output folder of a search; give the folder that `{command_line('search')}` named")
        if not (path / CANDIDATES).is_file():
            raise UserError(f"the search in {path} is not finished; continue it with --resume first")
        held = _held(run, path / CONFIG, path / CANDIDATES, family=family, journal=path / "journal.jsonl")
        summary = path / "summary.json"
        return replace(held, summary=read_record(summary, Summary)) if summary.exists() else held
    if path.exists() or not re.fullmatch("[0-9a-f]{32}", run):
        raise UserError(f"{run} is neither an output folder of a search nor an MLflow run id (32 characters 0-9a-f)")
    uri = command.tracking_uri or default_uri(Path("runs"))
    with tempfile.TemporaryDirectory(prefix="raysearch-") as folder:
        config, candidates = (artifact_of_run(uri, run, name, folder=Path(folder)) for name in (CONFIG, CANDIDATES))
        held = _held(run, config, candidates, family=family)
        try:
            summary = artifact_of_run(uri, run, "summary.json", folder=Path(folder))
        except TrackingError:  # which 0.1.0 did not record; its test scores are unknown then
            return held
        return replace(held, summary=read_record(summary, Summary))


def _held(name: str, config: Path, table: Path, *, family: Family[Any, Any] | None, journal: Path | None = None) -> _Held:
    values = read_json(config)
    if not isinstance(values.get("recipe"), dict) or not isinstance(values.get("search_id"), str):
        raise UserError(f"{config} is no configuration of raysearch; restore it")
    stored = stored_search(values["recipe"], config, family)
    weights = stored.supernet if journal is None or not journal.is_file() else _weights(journal)
    held = _Held(
        name=str(Path(name)),
        search_id=values["search_id"],
        recipe=stored.recipe,
        images=stored.images,
        given=stored.supernet is not None,
        weights=weights,
        warm_start=len(stored.warm_start),
        flags=None if values.get("given") is None else frozenset(values["given"]),
        time=values.get("time"),
        candidates=tuple(_candidate(row, stored.recipe.family.architecture) for row in read_candidates(table)),
    )
    if not held.competing:
        raise UserError(f"{name} has no candidate that was scored on all images; leave it out")
    return held


def _weights(journal: Path) -> str:
    """Digest of the supernet that a search's journal names in its first line."""
    with journal.open() as lines:
        try:
            return str(json.loads(lines.readline())["weights"])[:12]
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{journal} line 1 is damaged; restore it") from None


def _candidate(row: CandidateRow, architecture: type[Architecture]) -> Candidate:
    """A row of the table as the search had it, without what each image said. What failed counts as a result that excludes."""
    result = Result(
        score=0.0 if row.score is None else row.score,
        items_seen=row.images_seen,
        params=row.params,
        macs=row.macs,
        loss=row.loss,
        latency_ms=row.latency_ms,
        excluded=None if row.status == "scored" else "slow" if row.status == "slow" else "raced",
        seconds=row.seconds,
    )
    proposal = Proposal(architecture.from_dict(row.arch), index=row.index, generation=row.generation, origin=row.origin)
    return Candidate(proposal, Cost(row.params, row.macs), result)


# --- what may be compared ---------------------------------------------------------------------------------------------


def _difference(one: _Held, other: _Held) -> str | None:
    """Why the scores of two searches do not mean the same; None when they do."""
    first, second = one.recipe, other.recipe
    if first.name != second.name:
        return f"one is of recipe {first.name}, the other of {second.name}"
    same_images = one.images is not None and one.images == other.images
    mine, theirs = (flat_settings(_of_items(recipe)) for recipe in (first, second))
    for name, value in mine.items():
        if name == SPLIT_SEED:
            continue  # as the search's own seed, it is what repetitions may differ in
        if value != theirs[name] and not (same_images and name == "dataset.root"):
            return f"{name} is {value} in one and {theirs[name]} in the other"
    if first.finalists.search_images != second.finalists.search_images:
        scored = [h.competing[0].items_seen for h in (one, other)]
        return f"one scored its candidates on {scored[0]:,} search images, the other on {scored[1]:,}"
    splits = first.task.split_seed, second.task.split_seed
    if splits[0] == splits[1] and None not in (one.images, other.images) and not same_images:
        return f"split seed {splits[0]} divided other images in one than in the other (digests {one.images} and {other.images})"
    return None


def _seeds(run: _Held) -> tuple[int, int]:
    """Of the search and of the division of its images. One of 0.1.0 has the same for both."""
    return run.recipe.seed, run.recipe.task.split_seed


def _of_items(recipe: Recipe[Any, Any]) -> dict[str, Any]:
    """Settings that decide what is scored and how; augmentation varies training items alone."""
    task = {f.name for f in fields(recipe.task)} - {"augment"}
    return {name: value for name, value in recipe.to_dict().items() if name in task or name == "task"}


def _share_supernets(held: Sequence[_Held]) -> bool:
    """Whether searches of one seed are known to have searched one supernet: then it does not matter who trained it."""
    by_seed: dict[tuple[int, int], set[str | None]] = {}
    for run in held:
        by_seed.setdefault(_seeds(run), set()).add(run.weights)
    return all(len(weights) == 1 and None not in weights for weights in by_seed.values())


def _settings(held: _Held, *, supernets_shared: bool) -> Settings:
    """What decides a search beside its seeds: no settings of algorithms that it did not use, no digests of images."""
    recipe = held.recipe
    unused = [group for group, algorithms in SETTINGS_OF.items() if recipe.algorithm not in algorithms]
    # What came after the last candidate changes nothing, nor do settings of what was not done.
    skipped = {"name", "seed", "report", *unused}
    if held.given or supernets_shared:
        skipped |= {"train", "augment"}
    if not recipe.measures_latency:
        skipped.add("latency")
    values = {name: value for name, value in recipe.to_dict().items() if name not in skipped}
    if not recipe.racing.enabled:
        values["racing"] = {"enabled": False}
    flat = {
        name: BY_TIME if name in held.by_time else value
        for name, value in flat_settings(values).items()
        if name not in (SPLIT_SEED, "dataset.root", "finalists.count", "finalists.choose")
    }
    flat |= {"time": held.time} if held.by_time else {}
    return {**flat, WARM_START: held.warm_start, **({} if supernets_shared else {"given supernet": held.given})}


def _grouped(held: Sequence[_Held]) -> list[tuple[Settings, list[_Held]]]:
    """Searches that differ in their seeds alone. Raises UserError for a group that has the same ones twice."""
    groups: dict[str, tuple[Settings, list[_Held]]] = {}
    shared = _share_supernets(held)
    for run in held:
        settings = _settings(run, supernets_shared=shared)
        groups.setdefault(json.dumps(settings), (settings, []))[1].append(run)
    found: list[tuple[Settings, list[_Held]]] = []
    for settings, runs in groups.values():
        if len({_seeds(run) for run in runs}) == len(runs):
            found.append((settings, runs))
            continue
        # The same seed with several supernets: these are what differs.
        parts: dict[str | None, list[_Held]] = {}
        for run in runs:
            parts.setdefault(run.weights, []).append(run)
        for digest, part in parts.items():
            seeds = Counter(_seeds(run) for run in part)
            if twice := [seed for seed, count in seeds.items() if count > 1]:
                names = " and ".join(run.name for run in part if _seeds(run) == twice[0])
                raise UserError(f"{names} have the same settings and seed {twice[0][0]}: a repetition; leave one out")
            found.append(({**settings, "supernet": digest}, part))
    return found


def _labels(groups: Sequence[Settings], *, recipe: str) -> list[str]:
    """In what each group differs from others that have the setting, the algorithm first; the recipe where nothing differs."""
    if len(groups) == 1:
        return [recipe]
    names = list(dict.fromkeys(name for settings in groups for name in settings))
    telling = [name for name in names if len({json.dumps(s[name]) for s in groups if name in s}) > 1]
    labels: list[str] = []
    for settings in groups:
        parts = [settings["algorithm"]] if "algorithm" in telling else []
        differing = [name for name in telling if name in settings and name != "algorithm"]
        parts += [difference_text(name, settings[name]) for name in differing[:4]]
        labels.append(", ".join(parts) + (f" and {len(differing) - 4} more" if len(differing) > 4 else ""))
    return [f"{label} ({i})" if labels.count(label) > 1 else label for i, label in enumerate(labels, start=1)]


# --- numbers ----------------------------------------------------------------------------------------------------------


def _compare(held: Sequence[_Held], command: CompareCommand, *, line: str) -> Comparison:
    groups = _grouped(held)
    results = [result for run in held for result in run.competing]
    score = min(max(r.score for r in run.competing) for run in held) if command.score is None else command.score
    worst, most = min(r.score for r in results), max(r.params for r in results)
    reference = (worst, float(most)) if command.reference is None else command.reference
    ideal = (max(r.score for r in results), float(min(r.params for r in results)))
    labels = _labels([settings for settings, _ in groups], recipe=held[0].recipe.name)
    name = held[0].recipe.task.score_name
    scale = Scale(name, "float32" if any(run.kind == "float32" for run in held) else "bits")
    compared: list[ComparedGroup] = []
    for label, (_, members) in zip(labels, groups, strict=True):
        ordered = sorted(members, key=_seeds)
        runs = tuple(_compared(run, score=score, reference=reference, ideal=ideal) for run in ordered)
        compared.append(ComparedGroup(label, runs, _values(runs, scale)))
    return Comparison(
        recipe=held[0].recipe.name,
        groups=tuple(compared),
        score=score,
        reference=reference,
        ideal=ideal,
        command=line,
        notes=(*_notes(held), *_timed([members for _, members in groups])),
        scale=scale,
    )


def _values(runs: Sequence[ComparedRun], scale: Scale) -> dict[str, Interval]:
    """Each number over the seeds of a group, without those that some run does not have.

    Of one seed an accuracy has the exact interval that its number of images gives; the other numbers have none.
    """
    values: dict[str, Interval] = {}
    for name in NUMBERS:
        found: list[float | None] = [getattr(run, name) for run in runs]
        known = [value for value in found if value is not None]
        if len(known) == len(runs):
            values[name] = over_seeds(known)
    if len(runs) == 1 and scale.is_share:
        for name, images in (("best", runs[0].search_images), ("test", runs[0].test_images)):
            if name in values and images:
                score = values[name].value
                values[name] = replace(share_interval(round(score * images), images), value=score)
    return values


def _compared(held: _Held, *, score: float, reference: tuple[float, float], ideal: tuple[float, float]) -> ComparedRun:
    best: list[float | None] = []
    for candidate in held.candidates:
        result, before = candidate.result, best[-1] if best else None
        competes = result is not None and result.competes
        best.append(max(result.score, -math.inf if before is None else before) if result and competes else before)
    seconds = list(accumulate(c.result.seconds if c.result else 0.0 for c in held.candidates))
    reached = next((i for i, found in enumerate(best) if found is not None and found >= score), None)
    box = (ideal[0] - reference[0]) * (reference[1] - ideal[1])
    given = reached is not None and held.candidates[reached].proposal.origin == "seed"
    summary = held.summary
    networks = None if summary is None else summary.networks
    front = [(c.cost.params, c.result.score, c.proposal.arch.id) for c in pareto_front(held.candidates) if c.result is not None]
    return ComparedRun(
        name=held.name,
        seed=held.recipe.seed,
        front=tuple(front),
        best_so_far=tuple(best),
        best=max(result.score for result in held.competing),
        hypervolume=hypervolume(held.candidates, reference) / box if ideal[0] > reference[0] and box > 0 else 0.0,
        evaluations=len(held.candidates),
        seconds=seconds[-1],
        # A network that the search was given is no find of its own, whatever it costs to score it again.
        evaluations_to_score=math.inf if reached is None else 0 if given else reached + 1,
        seconds_to_score=math.inf if reached is None else 0.0 if given else seconds[reached],
        search_images=max(result.items_seen for result in held.competing),
        test=None if networks is None else networks.champion.test_score,
        test_images=None if summary is None else summary.counts.test_images,
        random_test=None if networks is None or networks.random is None else networks.random.test_score,
    )


def _training(run: _Held) -> Settings:
    """Its settings of training, but for those that followed from time."""
    return {
        name: value for name, value in flat_settings({"train": asdict(run.recipe.train)}).items() if name not in run.by_time
    }


def _timed(groups: Sequence[Sequence[_Held]]) -> list[str]:
    """In which settings searches of one group differ, as they followed from time, a sentence for each group."""
    notes: list[str] = []
    for members in groups:
        flat = [flat_settings(run.recipe.to_dict()) for run in members]
        differing = {
            name: sorted({str(values[name]) for values in flat}, key=float)
            for name in sorted(members[0].by_time & flat[0].keys())
            if len({values[name] for values in flat}) > 1 and not (members[0].given and name.startswith("train."))
        }
        if differing:
            names = f"{members[0].name} and its like" if len(groups) > 1 else "these searches"
            told = ", ".join(f"{name} {values[0]} to {values[-1]}" for name, values in differing.items())
            notes.append(f"settings that followed from a timed step differ among the seeds of {names}: {told}")
    return notes


def _notes(held: Sequence[_Held]) -> tuple[str, ...]:
    """What a reader must know about these runs."""
    notes: list[str] = []
    weights = {run.weights for run in held} - {None}
    trained = {json.dumps(_training(run)) for run in held if not run.given}
    if _share_supernets(held):
        notes.append("searches of one seed share their supernet, so differences between them are those of the searches")
    elif any(run.given for run in held) or len(trained) > 1:
        notes.append("they had several supernets, some given or trained otherwise: differences may be those of the supernets")
    else:
        notes.append("each search trained a supernet of its own: differences hold those of its training")
    if any(len({run.images for run in held if run.weights == digest}) > 1 for digest in weights):
        notes.append(
            "seeds that divide the images differently share a supernet: it may have learned some of their search images"
        )
    if warm := [run for run in held if run.warm_start]:
        begun = ", ".join(f"{run.name} with {run.warm_start}" for run in warm)
        notes.append(
            f"some searches were given architectures to start with ({begun}): what these cost to find is not counted, and a "
            "score that one of them has counts as given at the start"
        )
    if len({run.recipe.constraint for run in held}) > 1:
        notes.append("their budgets differ, so a higher score may only mean a larger one")
    return tuple(notes)
