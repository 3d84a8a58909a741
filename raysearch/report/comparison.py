"""Two or more searches side by side: a table for the terminal, and one page that opens anywhere."""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from rich.markup import escape
from rich.table import Table

from raysearch.report.intervals import score_words
from raysearch.report.pictures import plain_figure
from raysearch.report.places import value_text
from raysearch.report.sheet import picture, render
from raysearch.report.tables import count_text, duration_text
from raysearch.statistics import Interval, median_level
from raysearch.store.files import write_whole
from raysearch.store.scores import NONE, Scale

COLORS = ("#0072b2", "#d55e00", "#009e73", "#a6538a", "#1f2933", "#b07d00", "#56a0d3")
"""Of the groups, in their order; they begin again after the last. Okabe and Ito's colours, which stay apart for people who do
not tell red from green, the pale ones darker for white paper."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "cross")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
"""Of the groups as well, so that colour is not all that tells them apart."""
WARM_START = "warm start"
"""Name of the number of architectures that a search was given to start with, as a setting in which groups differ."""
NARROWEST = 16
"""Characters of a group's column in the terminal at least; groups that do not fit stand in a further table."""


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One search."""

    name: str
    seed: int
    front: tuple[tuple[int, float, str], ...]
    """Parameters, score and id of the candidates that no other beats, smallest first."""
    best_so_far: tuple[float | None, ...]
    """Best score after each candidate, in the order asked; None before the first that competes."""
    best: float
    hypervolume: float
    """Share of the rectangle between the reference and the best score at the fewest parameters of all runs."""
    evaluations: int
    seconds: float
    """Of all evaluators, summed over the candidates."""
    evaluations_to_score: float
    """Candidates asked until one has the score; infinite where none has."""
    seconds_to_score: float
    """Of all evaluators, summed over those candidates; infinite where none has the score. Both are 0 where one has it that the
    search was given."""
    search_images: int = 0
    """On which its best score is; 0 where it is not known."""
    test: float | None = None
    """Test score of its champion."""
    test_images: int | None = None
    random_test: float | None = None
    """Median test score of random subnets of the same budget."""


@dataclass(frozen=True, slots=True)
class ComparedGroup:
    """Searches that differ in their seed alone."""

    label: str
    """In what it differs from the other groups, in words."""
    runs: tuple[ComparedRun, ...]
    values: Mapping[str, Interval]
    """Median over the seeds, with its interval, by the name of a number of :class:`ComparedRun`."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Groups of searches on the same images."""

    recipe: str
    groups: tuple[ComparedGroup, ...]
    score: float
    """That is to be reached."""
    reference: tuple[float, float]
    """Score and parameters from which the hypervolume is measured."""
    ideal: tuple[float, float]
    """Best score and fewest parameters of all runs."""
    command: str
    notes: tuple[str, ...] = ()
    """What a reader must know about these runs, a sentence each."""
    scale: Scale = field(default_factory=Scale)
    """How their scores are written."""


def interval_words(groups: Sequence[ComparedGroup]) -> str:
    """Which intervals stand below the medians."""
    kinds: list[str] = []
    if any(len(group.runs) > 5 for group in groups):
        kinds.append("95 % of the median, exact, with 6 seeds or more")
    for count in sorted({len(group.runs) for group in groups if 1 < len(group.runs) < 6}):
        level = f"{median_level(count):.0%}".replace("%", " %")
        kinds.append(f"smallest and largest value with {count} seeds, which hold the median with {level} and not with 95 %")
    if any(len(group.runs) == 1 for group in groups):
        kinds.append(
            "with one seed none, but of accuracies the exact 95 % of their number of images, which holds neither the chance "
            "of other seeds nor that the best was chosen"
        )
    return "medians over seeds; intervals: " + ", ".join(kinds)


def words_of_score(comparison: Comparison) -> str:
    """What the reached score, the seconds and the hypervolume mean here."""
    (score, params), (best, fewest), scale = comparison.reference, comparison.ideal, comparison.scale
    return (
        f"to {scale.text(comparison.score)}: candidates asked until one has this score, and the seconds that all evaluators "
        "together spent on them (no wall time: several work at once, and waiting is not counted); hypervolume: what the front "
        f"covers of the rectangle from {scale.text(score)} and {count_text(params)} parameters to {scale.text(best)} and "
        f"{count_text(fewest)}"
    )


def columns(comparison: Comparison) -> dict[str, str]:
    """Titles of the table's columns by the name of the number."""
    goal = comparison.scale.text(comparison.score)
    return {
        "best": comparison.scale.titled("best score"),
        "test": comparison.scale.titled("test score, champion"),
        "random_test": comparison.scale.titled("test score, random median"),
        "hypervolume": "hypervolume",
        "evaluations_to_score": f"candidates to {goal}",
        "seconds_to_score": f"evaluator time to {goal}",
        "evaluations": "candidates",
        "seconds": "evaluator time",
    }


def number_text(name: str, value: float | None, scale: Scale) -> str:
    """A number of a run as people read it; a dash for one that is not known."""
    if value is None:
        return NONE
    if math.isinf(value):
        return "not reached"
    if name in ("best", "test", "random_test"):
        return scale.text(value)
    if name.endswith("_to_score") and value == 0:
        return "given at the start"
    if name == "hypervolume":
        return f"{value:.1%}"
    return duration_text(value) if name.startswith("seconds") else f"{value:,.0f}"


def cell_texts(group: ComparedGroup, name: str, scale: Scale) -> tuple[str, str]:
    """Median and interval of one number; the interval is empty with one seed."""
    if (found := group.values.get(name)) is None:
        return NONE, ""
    middle = number_text(name, found.value, scale)
    if found.low == found.high:
        return middle, ""
    reached = ""
    if missed := sum(math.isinf(getattr(run, name)) for run in group.runs):
        reached = f", {len(group.runs) - missed} of {len(group.runs)} reach it"
    return middle, f"{number_text(name, found.low, scale)} to {number_text(name, found.high, scale)}{reached}"


def comparison_tables(comparison: Comparison, *, width: int) -> list[Table]:
    """A column for each group, for a terminal of so many characters: no text is cut, groups that do not fit come below."""
    titles = columns(comparison)
    room = width - max(map(len, titles.values())) - 4
    beside = max(1, room // (NARROWEST + 3))
    groups = comparison.groups
    return [_table(comparison, groups[i : i + beside]) for i in range(0, len(groups), beside)]


def _table(comparison: Comparison, groups: Sequence[ComparedGroup]) -> Table:
    table = Table(title=f"{escape(comparison.recipe)}: {_searches(comparison)} side by side", title_justify="left")
    table.add_column("", overflow="fold")
    for group in groups:
        table.add_column(escape(group.label), justify="right", overflow="fold")
    table.add_row("seeds", *(str(len(group.runs)) for group in groups))
    for name, title in columns(comparison).items():
        cells = [cell_texts(group, name, comparison.scale) for group in groups]
        table.add_row(title, *("\n".join(filter(None, texts)) for texts in cells))
    return table


def comparison_lines(comparison: Comparison) -> list[str]:
    """What stands below the table, a sentence each."""
    lines = [interval_words(comparison.groups), words_of_score(comparison), *comparison.notes]
    return [line[0].upper() + line[1:] + "." for line in lines]


def _searches(comparison: Comparison) -> str:
    return f"{sum(len(group.runs) for group in comparison.groups)} searches"


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write the page to ``path``, whole or not at all."""
    names, scale = columns(comparison), comparison.scale
    page = render(
        "comparison.html",
        recipe=comparison.recipe,
        searches=_searches(comparison),
        groups=[(_color(i), group) for i, group in enumerate(comparison.groups)],
        rows=[(title, [cell_texts(group, name, scale) for group in comparison.groups]) for name, title in names.items()],
        words=comparison_lines(comparison),
        fronts=picture(_fronts(comparison), name="fronts"),
        progress=picture(_progress(comparison), name="progress"),
        titles=[*names.values()],
        runs=[
            (_color(i), run, [(number_text(name, getattr(run, name), scale), _exact(run, name, scale)) for name in names])
            for i, group in enumerate(comparison.groups)
            for run in group.runs
        ],
        command=comparison.command,
    )
    write_whole(path, page)


def _exact(run: ComparedRun, name: str, scale: Scale) -> str:
    """The 95 % interval of an accuracy of one search; empty for other numbers."""
    images = {"best": run.search_images, "test": run.test_images}.get(name)
    return score_words(getattr(run, name), images, scale) if images else ""


def _color(index: int) -> str:
    return COLORS[index % len(COLORS)]


def _fronts(comparison: Comparison) -> go.Figure:
    scale = comparison.scale
    figure = plain_figure(x_title="parameters", y_title=scale.titled("search score"), y_percent=scale.is_share)
    figure.update_layout(height=480, hovermode="closest")
    for i, group in enumerate(comparison.groups):
        for n, run in enumerate(group.runs):
            figure.add_scatter(
                name=html.escape(group.label),
                legendgroup=str(i),
                showlegend=n == 0,
                x=[params for params, _, _ in run.front],
                y=[score for _, score, _ in run.front],
                mode="lines+markers",
                line={"color": _color(i), "width": 2, "shape": "hv", "dash": DASHES[i % len(DASHES)]},
                marker={
                    "size": 8,
                    "symbol": SYMBOLS[i % len(SYMBOLS)],
                    "color": "white",
                    "line": {"width": 2, "color": _color(i)},
                },
                opacity=0.85,
                text=[
                    f"<b>{html.escape(group.label)}</b><br>{html.escape(run.name)}, seed {run.seed}<br>{arch}<br>"
                    f"score {scale.text(score)}<br>{count_text(params)} parameters"
                    for params, score, arch in run.front
                ],
                hovertemplate="%{text}<extra></extra>",
            )
    return figure


def _progress(comparison: Comparison) -> go.Figure:
    title, percent = comparison.scale.titled("best search score"), comparison.scale.is_share
    figure = plain_figure(x_title="candidates asked", y_title=f"{title} so far", y_percent=percent)
    figure.update_layout(hovermode="closest")
    for i, group in enumerate(comparison.groups):
        curves = [run.best_so_far for run in group.runs]
        for run in group.runs if len(curves) > 1 else ():
            figure.add_scatter(
                name=html.escape(run.name),
                legendgroup=str(i),
                showlegend=False,
                x=list(range(1, len(run.best_so_far) + 1)),
                y=list(run.best_so_far),
                mode="lines",
                line={"color": _color(i), "width": 1, "shape": "hv"},
                opacity=0.35,
                hoverinfo="skip",
            )
        middle = [_median(at) for at in zip(*curves, strict=False)]
        figure.add_scatter(
            name=html.escape(group.label),
            legendgroup=str(i),
            x=list(range(1, len(middle) + 1)),
            y=middle,
            mode="lines",
            line={"color": _color(i), "width": 2.5, "shape": "hv", "dash": DASHES[i % len(DASHES)]},
            hovertemplate="%{y} after %{x}",
        )
    figure.add_hline(y=comparison.score, line={"color": "#7b8794", "width": 1, "dash": "dot"})
    return figure


def _median(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return statistics.median(known) if len(known) == len(scores) else None


def difference_text(name: str, value: Any) -> str:
    """A setting in which groups differ: ``population 25``, ``racing.enabled``."""
    if isinstance(value, bool) or (name == WARM_START and value == 0):
        return name if value else f"no {name}"
    return f"{name} {value_text(list(value) if isinstance(value, tuple) else value)}"
