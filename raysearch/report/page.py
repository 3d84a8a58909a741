"""``report.html``: one file that opens anywhere, without a network. Here is what it says; how it looks is a template."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from safetensors import SafetensorError
from safetensors.numpy import load_file

from raysearch.errors import UserError
from raysearch.report.classes import Classes
from raysearch.report.common import InCommon, Share, in_common
from raysearch.report.intervals import score_words
from raysearch.report.pictures import (
    MOST_POINTS,
    SIZES,
    drawn,
    front_rows,
    images_by_generation,
    latency_against_macs,
    retrained_against_inherited,
    score_against_size,
    score_by_generation,
    training_curve,
    worth_by_block,
)
from raysearch.report.pictures import worth as worth_alone
from raysearch.report.places import Blocks, Place, Value, in_tables, ordered
from raysearch.report.results import closing, finalists
from raysearch.report.sheet import picture, render, sentence
from raysearch.report.standing import choice_words, standing_lines
from raysearch.report.tables import (
    count_text,
    duration_text,
    finalists_line,
    informative_line,
    latency_line,
    racing_line,
    utilisation_line,
    validation_lines,
    verdict_line,
)
from raysearch.report.tuning import tuning_line
from raysearch.search import Candidate
from raysearch.statistics import tau_b
from raysearch.store.candidates import CANDIDATES, CandidateRow, best_rows, read_candidates
from raysearch.store.files import write_whole
from raysearch.store.folder import CONFIG, read_json, read_record
from raysearch.store.palette import LATE, MIDDLE
from raysearch.store.predictions import PREDICTIONS, read_predictions
from raysearch.store.scores import Scale
from raysearch.store.summary import Summary
from raysearch.store.validation import VALIDATION, Validation

IMPORTANCE = "importance.safetensors"
"""What the parts of a pretrained network are worth, where a search began with one."""
PHASE_COLORS = ("#b8c2cc", MIDDLE, LATE, "#e0c38a", "#7b8794")


def write_report(folder: Path, summary: Summary | None = None, *, candidates: Sequence[Candidate] | None = None) -> Path:
    """Write ``report.html`` into a search's folder, whole or not at all; returns its path.

    Args:
        folder: its ``config.json``, ``validation.json`` and ``test-predictions.parquet`` are read where they are there.
        summary: what ``summary.json`` holds, which is read when this is not given.
        candidates: those known so far; ``candidates.parquet`` is read when they are not given.

    Raises:
        UserError: a file is missing or damaged; it is named.

    """
    if summary is None:
        summary = read_record(_existing(folder / "summary.json"), Summary)
    if candidates is None:
        rows = read_candidates(_existing(folder / CANDIDATES))
    else:
        rows = [CandidateRow.of(candidate) for candidate in candidates]
    validation, config = folder / VALIDATION, folder / CONFIG
    sizes = _sizes(read_json(config).get("recipe", {})) if config.exists() else ["params"]
    known = read_record(validation, Validation) if validation.exists() else None
    said = folder / PREDICTIONS
    classes = Classes.of(read_predictions(said)) if summary.networks is not None and said.exists() else None
    path = folder / "report.html"
    contents = _contents(summary, rows, sizes=sizes, validation=known, classes=classes, worth=_worth(folder / IMPORTANCE))
    write_whole(path, render("report.html", **contents))
    return path


def _existing(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path} is missing: a report needs the folder of a finished search")
    return path


def _sizes(recipe: Mapping[str, Any]) -> list[str]:
    """What the search weighed against the score: each has a picture of its own."""
    if recipe.get("algorithm") != "nsga2":
        return ["params"]
    weighed: Sequence[str] = recipe.get("nsga2", {}).get("objectives", ())
    return [size for size in weighed if size in SIZES] or ["params"]


def _contents(
    summary: Summary,
    rows: Sequence[CandidateRow],
    *,
    sizes: Sequence[str],
    validation: Validation | None,
    classes: Classes | None,
    worth: Mapping[str, Sequence[Any]],
) -> dict[str, object]:
    """Everything that the template prints, by its names there."""
    scored = best_rows(rows)
    found = in_common(rows)
    reasons = Counter(str(row.reason) for row in rows if row.status == "failed")
    return {
        "summary": summary,
        "candidates": len(rows),
        "budget": summary.constraint.replace("<=", "≤"),
        "spent": duration_text(sum(summary.seconds.values())),
        "written": _minute(summary.written),
        "finished": _minute(summary.finished),
        "best": _best(summary, scored),
        "verdict": [*map(sentence, _verdict(summary))],
        "interim": _interim_words(summary, scored),
        "closing": None if summary.networks is None else closing(summary, summary.networks, classes),
        "finalists": None if summary.finalists is None else finalists(summary.finalists, summary, rows),
        "classes": classes,
        "fronts": [_front(summary, scored, size) for size in sizes] if scored else [],
        "common": None if found is None else _Common.of(found),
        "parts": [*_parts(summary, rows, scored, validation), *_importance(worth)],
        "phases": [
            _Phase(name, seconds, PHASE_COLORS[i % len(PHASE_COLORS)])
            for i, (name, seconds) in enumerate(summary.seconds.items())
        ],
        "busy": None if summary.utilisation is None else utilisation_line(summary.utilisation),
        "failed": reasons.total(),
        "failures": reasons.most_common(10),
    }


def _verdict(summary: Summary) -> Iterator[str]:
    """What the search found, in words: the champion beside the largest network and chance, and how it was chosen."""
    if (line := verdict_line(summary)) is not None:
        yield line
    if summary.tuning is not None:
        yield tuning_line(summary.tuning, summary.scale)
    if summary.finalists is not None:
        yield finalists_line(summary.finalists, summary.scale)


def _minute(time: str | None) -> str:
    """An ISO time to the minute; empty where there is none."""
    return "" if time is None else time[:16].replace("T", " ")


# --- parts of the page ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Fact:
    """A large number, what it is, and its 95 % interval where it has one."""

    value: str
    words: str
    interval: str = ""

    @classmethod
    def of(cls, score: float | None, items: int | None, words: str, scale: Scale) -> _Fact:
        return cls(scale.text(score), words, score_words(score, items, scale))


@dataclass(frozen=True, slots=True)
class _Best:
    """The network that the page is about: the champion, or the best so far."""

    label: str
    id: str
    facts: list[_Fact]
    """Large numbers and what they are."""
    line: list[tuple[str, str]]
    """Choices of the whole net."""
    tables: list[Blocks]


def _best(summary: Summary, scored: Sequence[CandidateRow]) -> _Best | None:
    scale, counts = summary.scale, summary.counts
    if summary.networks is not None:
        network, label, tuning = summary.networks.champion, "Champion", summary.tuning
        of_test = [(network.test_score, "test score of the champion")]
        if tuning is not None and tuning.deployed == "fine-tuned":
            of_test = [
                (tuning.champion.test, "test score of the champion, fine-tuned as it is deployed"),
                (network.test_score, "test score with the weights that it inherits"),
            ]
        facts = [_Fact.of(score, counts.test_images, scale.titled(words), scale) for score, words in of_test]
        words = f"{scale.titled('search score')}, inherited weights"
        facts.append(_Fact.of(network.score, counts.search_images, words, scale))
    elif scored:
        network, label = scored[0], "Best so far"
        words = f"{scale.titled('best search score')} so far, inherited weights"
        facts = [_Fact.of(network.score, scored[0].images_seen, words, scale)]
    else:
        return None
    facts += [_Fact(count_text(network.params), "parameters"), _Fact(count_text(network.macs), "MACs per image")]
    if network.latency_ms is not None:
        facts.append(_Fact(f"{network.latency_ms:.3g} ms", "measured latency"))
    return _Best(label, network.id, facts, *in_tables(network.arch))


def _interim_words(summary: Summary, scored: Sequence[CandidateRow]) -> list[str]:
    """What the page of a search in progress does not know yet."""
    lines = ["This is an interim report: the search goes on, no champion is chosen, and no test image was read."]
    if len(scored) > 1:
        lines.append(
            f"The best so far is the highest of {len(scored):,} scores on the same {scored[0].images_seen:,} search images, so "
            "it is partly the luckiest; finalists are compared when the search ends."
        )
    return lines if summary.progress is not None else []


@dataclass(frozen=True, slots=True)
class _Part:
    """A heading, a picture where there is one, and lines of text."""

    title: str
    picture: Markup | None
    captions: list[str]


def _front(summary: Summary, scored: Sequence[CandidateRow], size: str) -> _Part:
    few = {"params": "as few parameters", "macs": "as few MACs", "latency": "as few milliseconds"}[size]
    name, scale = "front" if size == "params" else f"front_{size}", summary.scale
    champion = None if summary.networks is None else summary.networks.champion.id
    points = len(drawn(scored, size))
    part = f"; drawn are {points:,} points, evenly over the scores" if points == MOST_POINTS else ""
    star = " The bar at the star is the 95 % interval of the champion's score." if champion and scale.is_share else ""
    caption = (
        f"Each point is one subnet scored with inherited weights, a larger one several of the same score and size{part}; "
        f"darker is later. {len(front_rows(scored, size))} of {len(scored):,} are on the front: no other candidate has as high "
        f"a score with {few}. At the right: how many candidates have each score.{star} Point at one to see its architecture."
    )
    stars = [row for row in scored if row.id == champion]
    chosen = None if summary.finalists is None else choice_words(summary.finalists)
    standing = [line for row in stars for line in standing_lines(row, scored, scale, size=size, chosen=chosen)]
    shown = picture(score_against_size(scored, champion, scale, size=size), name=name)
    return _Part(f"Score against {SIZES[size][0]}", shown, [*standing, caption])


@dataclass(frozen=True, slots=True)
class _Common:
    """Choices of the best beside those of chance: bars for the whole net and stages, one heat map for the blocks."""

    found: InCommon
    whole: list[tuple[Place, Mapping[Value, Share]]]
    kind: str
    """What the columns of the heat map are."""
    columns: list[str]
    heat: list[tuple[str, list[tuple[Value, list[tuple[Place, Share | None]]]]]]
    """By name and value: a cell per block; None where no subnet of the best has the block."""

    @classmethod
    def of(cls, found: InCommon) -> _Common:
        whole = [(place, shares) for place, shares in found.shares.items() if place.block is None and len(shares) > 1]
        blocks = {(place.stage, place.block): place for place in found.shares if place.block is not None}
        at = sorted(blocks, key=lambda where: tuple(-1 if part is None else part for part in where))
        heat: list[tuple[str, list[tuple[Value, list[tuple[Place, Share | None]]]]]] = []
        for name in dict.fromkeys(place.name for place in found.shares if place.block is not None):
            cells = [(place := Place(name, *where), found.shares.get(place, {})) for where in at]
            values = ordered({value for _, shares in cells for value in shares})
            heat.append((name, [(value, [(place, shares.get(value)) for place, shares in cells]) for value in values]))
        staged = any(place.stage is not None for place in blocks.values())
        return cls(found, whole, "stage.block" if staged else "block", [blocks[where].column for where in at], heat)


def _parts(
    summary: Summary, rows: Sequence[CandidateRow], scored: Sequence[CandidateRow], validation: Validation | None
) -> Iterator[_Part]:
    """The sections from the search's progress to the supernet's training; those that do not apply are left out."""
    scale = summary.scale
    if scored:
        captions = [
            "A search that works lifts the median towards the best; a flat best means that more generations add little."
        ]
        if summary.informative is not None:
            captions.append(f"{sentence(informative_line(summary.informative))} Finalists were scored on all images.")
        progress = picture(score_by_generation(scored, scale), name="generations")
        yield _Part("Progress of the search", progress, captions)
    if summary.racing is not None or any(row.status == "raced" for row in rows):
        saved = "" if summary.racing is None else f"{sentence(racing_line(summary.racing))} "
        caption = (
            f"{saved}100 % are the images that scoring all candidates of a generation in full would have read. Candidates that "
            "were stopped are in no other picture, and the front is that of those scored on all images."
        )
        yield _Part("Images saved by racing", picture(images_by_generation(rows), name="racing"), [caption])
    yield from _latency(summary, scored)
    if validation is not None:
        yield _validation(validation)
    if history := summary.training.history:
        caption = (
            f"{len(history):,} epochs of {summary.counts.train_images:,} images; each step trained one random subnet, so the "
            f"loss is that of subnets of all sizes. Last loss: {history[-1].loss:.4f}."
        )
        yield _Part("Training of the supernet", picture(training_curve(history), name="training"), [caption])


def _latency(summary: Summary, scored: Sequence[CandidateRow]) -> Iterator[_Part]:
    """Milliseconds against MACs where they were measured, and how latency was found; nothing where it was not asked for."""
    measured = [(row, row.latency_ms) for row in scored if row.latency_ms is not None]
    caption = "" if summary.latency is None else f"{sentence(latency_line(summary.latency))} "
    if len(measured) < 2:
        if caption:
            yield _Part("Latency", None, [caption])
        return
    caption += "Each point is a candidate, darker with a higher score."
    tau = tau_b([row.macs for row, _ in measured], [latency for _, latency in measured])
    if not math.isnan(tau):  # as it is where all have the same MACs
        caption += (
            f" Between MACs and milliseconds of these {len(measured):,} Kendall's tau is {tau:.2f}; at 1, MACs would always "
            "tell which of two networks is faster."
        )
    champion = None if summary.networks is None else summary.networks.champion.id
    figure = latency_against_macs([row for row, _ in measured], champion, summary.scale)
    yield _Part("Latency", picture(figure, name="latency"), [caption])


def _validation(validation: Validation) -> _Part:
    """Whether the ranking holds when subnets are trained from scratch: picture and numbers."""
    title, lines = "Is the ranking true?", [f"{line}." for line in validation_lines(validation)]
    if not validation.subnets:
        return _Part(title, None, lines)
    scores = "accuracies" if validation.scale.is_share else "scores"
    caption = (
        f"Each point is one subnet trained from scratch; both {scores} are those of the same search images. On a rising line "
        "inherited weights would rank as a training of its own does; drawn subnets are darker with more parameters. A bar "
        "joins the two trainings of a subnet that was trained twice."
    )
    return _Part(title, picture(retrained_against_inherited(validation), name="validation"), [*lines, caption])


def _worth(path: Path) -> Mapping[str, Sequence[Any]]:
    """By kind of part, what each is worth, a list for each block or one for all; empty where nothing was measured.

    Raises UserError that names a damaged file.
    """
    if not path.exists():
        return {}
    try:
        return {name: values.tolist() for name, values in sorted(load_file(path).items())}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is damaged ({error}); restore it, or move it away") from None


def _importance(worth: Mapping[str, Sequence[Any]]) -> Iterator[_Part]:
    """What the parts of a pretrained network are worth, before any of it was cut."""
    for part, values in worth.items():
        by_block = isinstance(values[0], list)
        figure = worth_by_block(values, part) if by_block else worth_alone(values, part)
        caption = (
            f"Measured on training images, before the whole network was fine-tuned: subnets keep the best {part}. Numbers of "
            f"{part} compare with one another, not with those of other parts."
        )
        yield _Part(f"What {part} are worth", picture(figure, name=f"worth_{part}"), [caption])


@dataclass(frozen=True, slots=True)
class _Phase:
    """A phase of the search in the bar of its time."""

    name: str
    seconds: float
    color: str
