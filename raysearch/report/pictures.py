"""The pictures of a report as plotly figures."""

from __future__ import annotations

import html
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go

from raysearch.report.places import value_text
from raysearch.report.tables import count_text
from raysearch.search.front import nondominated, spread
from raysearch.statistics import share_interval
from raysearch.store.candidates import CandidateRow, best_rows
from raysearch.store.palette import CHAMPION, EARLY, FRONT, LATE, MIDDLE
from raysearch.store.scores import Scale
from raysearch.store.summary import EpochRecord
from raysearch.store.validation import RetrainedSubnet, Validation

INK, FAINT, LINE = "#1f2933", "#697786", "#e4e7eb"
EDGE = "#7f9cbd"
"""Around points, so that pale ones stay visible on white."""
BLUES = [[0.0, EARLY], [0.5, MIDDLE], [1.0, LATE]]
"""Generations, early to late."""
BAR: Mapping[str, Any] = {"thickness": 8, "outlinewidth": 0, "x": 1.01, "xpad": 4}
"""Every colour bar."""
MOST_POINTS = 5_000
"""Points of a picture at most: each has its architecture under the pointer, some 300 bytes of the page."""
LARGEST_POINT = 26
"""Diameter in pixels of a point for very many candidates."""


def plain_figure(*, x_title: str, y_title: str, y_percent: bool) -> go.Figure:
    """An empty picture in the style of all others."""
    axis = {
        "gridcolor": LINE,
        "linecolor": LINE,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": LINE,
        "title_standoff": 12,
    }
    figure = go.Figure()
    figure.update_layout(
        height=420,
        margin={"l": 70, "r": 20, "t": 40, "b": 60},
        paper_bgcolor="white",
        plot_bgcolor="white",
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        hoverlabel={"bgcolor": "white", "bordercolor": FAINT, "font": {"size": 12, "color": INK}, "align": "left"},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        xaxis={"title": {"text": x_title}, **axis},
        yaxis={"title": {"text": y_title}, **axis, **({"tickformat": ".1%"} if y_percent else {})},
    )
    return figure


def _arch_text(arch: Mapping[str, Any]) -> str:
    """A line per choice, as plotly's labels are written."""
    return "<br>".join(f"{html.escape(name)}: {html.escape(value_text(value))}" for name, value in arch.items())


def _hover(row: CandidateRow, scale: Scale) -> str:
    return (
        f"<b>{row.id}</b><br>score {scale.text(row.score)}<br>{count_text(row.params)} parameters, "
        f"{count_text(row.macs)} MACs{'' if row.latency is None else f'<br>{row.latency:.3g} ms'}<br>"
        f"generation {row.generation}, {html.escape(row.origin)}<br>{_arch_text(row.arch)}"
    )


def _score(row: CandidateRow) -> float:
    """The score of one that competed."""
    assert row.score is not None
    return row.score


SIZES: Mapping[str, tuple[str, Callable[[CandidateRow], float | None]]] = {
    "params": ("parameters", lambda row: row.params),
    "macs": ("MACs", lambda row: row.macs),
    "latency": ("milliseconds", lambda row: row.latency),
}
"""What a front weighs against the score: title of its axis, and the value of a candidate."""


def front_rows(scored: Sequence[CandidateRow], size: str) -> list[CandidateRow]:
    """The candidates that no other beats in score and this one of :data:`SIZES`, smallest first."""
    value = SIZES[size][1]
    known = [(row, v) for row in best_rows(scored) if (v := value(row)) is not None]
    return nondominated([row for row, _ in known], [(-_score(row), v) for row, v in known])


def size_text(value: float, size: str) -> str:
    """A value of :data:`SIZES` with its unit, as ``64,123 parameters`` or ``1.5 milliseconds``."""
    return f"{value:.3g} milliseconds" if size == "latency" else f"{count_text(value)} {SIZES[size][0]}"


def drawn(scored: Sequence[CandidateRow], size: str) -> list[list[CandidateRow]]:
    """What is drawn as one point each: the candidates of one score and size, in the order asked; at most :data:`MOST_POINTS`.

    Of more, an even sample over the scores.
    """
    value = SIZES[size][1]
    places: dict[tuple[float, float], list[CandidateRow]] = {}
    for row in sorted(scored, key=lambda row: row.index):
        if (found := value(row)) is not None:
            places.setdefault((_score(row), found), []).append(row)
    kept = {id(group[0]) for group in spread([places[place] for place in sorted(places)], MOST_POINTS)}
    return [group for group in places.values() if id(group[0]) in kept]


def _group_hover(group: Sequence[CandidateRow], scale: Scale) -> str:
    """What is under the pointer at a point: the first candidate of its score and size, and how many more there are."""
    if len(group) == 1:
        return _hover(group[0], scale)
    return f"<b>{len(group)} candidates of this score and size</b>, the first of them:<br>{_hover(group[0], scale)}"


def score_against_size(
    scored: Sequence[CandidateRow], champion_id: str | None, scale: Scale, *, size: str = "params"
) -> go.Figure:
    """Every scored candidate, the Pareto front among them, and the champion with the interval of its score.

    Candidates of one score and size are one point, whose area is their number; bars at the side count candidates by score.
    """
    title, value = SIZES[size]
    figure = plain_figure(x_title=title, y_title=scale.titled("search score"), y_percent=scale.is_share)
    figure.update_layout(height=480, hovermode="closest", bargap=0.15, xaxis={"domain": [0, 0.86]})
    figure.update_layout(
        xaxis2={
            "domain": [0.88, 1],
            "showgrid": False,
            "zeroline": False,
            "title": {"text": "count"},
            "nticks": 3,
            "tickangle": 0,
            "anchor": "y",
        }
    )
    groups = drawn(scored, size)
    generations = [group[0].generation for group in groups]
    last = max(1, *generations)
    bar = {**BAR, "title": {"text": "generation", "side": "right"}, "tick0": 0, "dtick": -(-last // 8), "tickformat": "d"}
    figure.add_scatter(
        name="candidate",
        x=[value(group[0]) for group in groups],
        y=[_score(group[0]) for group in groups],
        mode="markers",
        marker={
            "size": [min(LARGEST_POINT, round(8 * len(group) ** 0.5, 1)) for group in groups],
            "color": generations,
            "cmin": 0,
            "cmax": last,
            "colorscale": BLUES,
            "line": {"width": 0.5, "color": EDGE},
            "colorbar": bar,
        },
        text=[_group_hover(group, scale) for group in groups],
        hovertemplate="%{text}<extra></extra>",
    )
    edge = front_rows(scored, size)
    figure.add_scatter(
        name="Pareto front",
        x=[value(r) for r in edge],
        y=[_score(r) for r in edge],
        mode="lines+markers",
        line={"color": FRONT, "width": 2, "shape": "hv"},
        marker={"size": 9, "color": "white", "line": {"width": 2, "color": FRONT}},
        text=[_hover(r, scale) for r in edge],
        hovertemplate="%{text}<extra></extra>",
    )
    best = [r for r in scored if r.id == champion_id and value(r) is not None]
    if best:
        figure.add_scatter(
            name="champion",
            x=[value(r) for r in best],
            y=[_score(r) for r in best],
            mode="markers",
            marker={"size": 16, "symbol": "star", "color": CHAMPION, "line": {"width": 1, "color": "white"}},
            error_y=_error(best, scale),
            text=[_hover(r, scale) for r in best],
            hovertemplate="%{text}<extra></extra>",
        )
    _count_scores(figure, [_score(r) for r in scored], scale)
    return figure


def _error(rows: Sequence[CandidateRow], scale: Scale) -> dict[str, Any]:
    """The 95 % intervals of scores that are shares, as plotly draws them; nothing for others."""
    if not scale.is_share:
        return {"visible": False}
    sure = [share_interval(round(_score(r) * r.images_seen), r.images_seen) for r in rows]
    above = [interval.high - _score(r) for r, interval in zip(rows, sure, strict=True)]
    below = [_score(r) - interval.low for r, interval in zip(rows, sure, strict=True)]
    return {"type": "data", "array": above, "arrayminus": below, "color": CHAMPION, "thickness": 1.5, "width": 5}


def _count_scores(figure: go.Figure, scores: Sequence[float], scale: Scale) -> None:
    """Bars at the right that say how many candidates have each score, or a score of each of 40 equal spans."""
    counts = Counter(scores)
    lowest, highest = min(scores), max(scores)
    if len(counts) > 40:
        width = (highest - lowest) / 40
        spans = Counter(min(39, int((score - lowest) / width)) for score in scores)
        bars = {lowest + (span + 0.5) * width: number for span, number in spans.items()}
        words = f"about {{}}, within {scale.difference(width / 2)}{scale.points}"
    else:
        gaps = [later - earlier for earlier, later in pairwise(sorted(counts))]
        width = max(min(gaps, default=0.0), (highest - lowest) / 120) or max(abs(highest), 1.0) / 100
        bars, words = dict(counts), "{}"
    figure.add_bar(
        name="candidates by score",
        orientation="h",
        xaxis="x2",
        x=list(bars.values()),
        y=list(bars),
        width=0.85 * width,
        marker={"color": MIDDLE, "line": {"width": 0}},
        showlegend=False,
        text=[f"{number:,} × {words.format(scale.text(score))}" for score, number in bars.items()],  # noqa: RUF001
        textposition="none",
        hovertemplate="%{text}<extra></extra>",
    )


def latency_against_macs(measured: Sequence[CandidateRow], champion_id: str | None, scale: Scale) -> go.Figure:
    """Each measured candidate by its multiply-accumulates and its milliseconds, darker with a higher score."""
    figure = plain_figure(x_title="MACs", y_title="milliseconds, measured", y_percent=False)
    figure.update_layout(hovermode="closest")
    ordered = sorted(measured, key=_score)
    scores = [_score(r) for r in ordered]
    figure.add_scatter(
        name="candidate",
        x=[r.macs for r in ordered],
        y=[r.latency_ms for r in ordered],
        mode="markers",
        marker={
            "size": 8,
            "color": scores,
            "cmin": scores[len(scores) // 10],  # so that a few poor ones do not make all others look alike
            "cmax": scores[-1],
            "colorscale": BLUES,
            "line": {"width": 0.5, "color": EDGE},
            "colorbar": {
                **BAR,
                "title": {"text": "score", "side": "right"},
                **({"tickformat": ".1%"} if scale.is_share else {}),
            },
        },
        text=[_hover(r, scale) for r in ordered],
        hovertemplate="%{text}<extra></extra>",
    )
    best = [r for r in ordered if r.id == champion_id]
    if best:
        figure.add_scatter(
            name="champion",
            x=[r.macs for r in best],
            y=[r.latency_ms for r in best],
            mode="markers",
            marker={"size": 16, "symbol": "star", "color": CHAMPION, "line": {"width": 1, "color": "white"}},
            text=[_hover(r, scale) for r in best],
            hovertemplate="%{text}<extra></extra>",
        )
    return figure


def images_by_generation(rows: Sequence[CandidateRow]) -> go.Figure:
    """Share of the images of full scoring that each generation saw."""
    groups: dict[int, list[int]] = {}
    for row in rows:
        if row.status != "failed":
            groups.setdefault(row.generation, []).append(row.images_seen)
    generations, whole = sorted(groups), max(max(seen) for seen in groups.values())
    shares = [statistics.fmean(groups[g]) / whole for g in generations]
    figure = plain_figure(x_title="generation", y_title="images", y_percent=False)
    figure.update_layout(height=300, barmode="stack", bargap=0.25, hovermode="x unified")
    figure.update_layout(yaxis={"range": [0, 1], "tickformat": ".0%"}, xaxis={"tickformat": "d"})
    counts = [f"{sum(groups[g]):,} of {len(groups[g]) * whole:,} images" for g in generations]
    bars = (("scored", shares, MIDDLE, counts), ("saved by racing", [1 - s for s in shares], "#dbe7f3", [""] * len(shares)))
    for name, values, color, texts in bars:
        figure.add_bar(
            name=name,
            x=generations,
            y=values,
            marker={"color": color},
            customdata=texts,
            hovertemplate="%{y:.1%}  %{customdata}",
        )
    return figure


def score_by_generation(scored: Sequence[CandidateRow], scale: Scale) -> go.Figure:
    """Best so far, best and median of each generation, and the span of its middle half."""
    groups: dict[int, list[float]] = {}
    for row in scored:
        groups.setdefault(row.generation, []).append(_score(row))
    generations = sorted(groups)
    scores = [sorted(groups[g]) for g in generations]
    best = [max(s) for s in scores]
    quarters = [statistics.quantiles(s, n=4, method="inclusive") if len(s) > 1 else [s[0]] * 3 for s in scores]
    figure = plain_figure(x_title="generation", y_title=scale.titled("search score"), y_percent=scale.is_share)
    figure.update_layout(hovermode="x unified", xaxis={"tickformat": "d"})
    half = {"x": generations, "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    figure.add_scatter(y=[q[0] for q in quarters], showlegend=False, **half)
    figure.add_scatter(y=[q[2] for q in quarters], name="middle half", fill="tonexty", fillcolor="#dbe7f3", **half)
    lines = (
        ("median", [q[1] for q in quarters], MIDDLE, "solid"),
        ("best of the generation", best, LATE, "solid"),
        ("best so far", [max(best[: i + 1]) for i in range(len(best))], INK, "dot"),
    )
    for name, values, color, dash in lines:
        mode = "lines" if dash == "dot" else "lines+markers"
        figure.add_scatter(name=name, x=generations, y=values, mode=mode, line={"color": color, "width": 2, "dash": dash})
    return figure


def training_curve(history: Sequence[EpochRecord]) -> go.Figure:
    """Loss of the supernet by epoch, with the learning rate behind it."""
    figure = plain_figure(x_title="epoch", y_title="training loss", y_percent=False)
    epochs = [record.epoch + 1 for record in history]
    figure.update_layout(
        hovermode="x unified",
        margin={"r": 80},
        xaxis={"tickformat": "d"},
        yaxis={"rangemode": "tozero"},
        yaxis2={
            "overlaying": "y",
            "side": "right",
            "title": {"text": "learning rate", "font": {"color": FAINT}},
            "tickfont": {"color": FAINT},
            "tickformat": ".2~g",
            "tickmode": "auto",
            "nticks": 5,
            "showgrid": False,
            "zeroline": False,
            "rangemode": "tozero",
        },
    )
    rates, losses = [record.lr for record in history], [record.loss for record in history]
    pale, dark = {"color": "#b8c2cc", "width": 1.5}, {"color": LATE, "width": 2}
    figure.add_scatter(name="learning rate", x=epochs, y=rates, yaxis="y2", mode="lines", line=pale)
    figure.add_scatter(name="loss", x=epochs, y=losses, mode="lines", line=dark)
    return figure


MOST_CELLS = 96
"""Columns of a picture of what parts are worth: more are averaged, neighbours in their order."""


def worth_by_block(values: Sequence[Sequence[float]], part: str) -> go.Figure:
    """What the parts of each block are worth, the best of each first: a row per block, from the input on."""
    rows = [_averaged(sorted(row, reverse=True)) for row in values]
    figure = plain_figure(x_title=f"{part} of a block, best first", y_title="block", y_percent=False)
    figure.update_layout(
        height=140 + 26 * len(rows), yaxis={"autorange": "reversed", "dtick": 1}, xaxis={"showticklabels": len(values[0]) < 20}
    )
    figure.add_heatmap(
        z=rows,
        x=[*range(1, len(rows[0]) + 1)],
        y=[*range(1, len(rows) + 1)],
        colorscale=BLUES,
        colorbar={**BAR, "tickformat": ".2~g"},
        hovertemplate="block %{y}: %{z:.3g}<extra></extra>",
    )
    return figure


def worth(values: Sequence[float], part: str) -> go.Figure:
    """What single parts are worth: few as they stand in the network, many in their order."""
    few = len(values) <= MOST_CELLS
    shown = [*values] if few else _averaged(sorted(values, reverse=True))
    figure = plain_figure(x_title=part if few else f"{part}, best first", y_title="worth", y_percent=False)
    figure.update_layout(height=300, yaxis={"tickformat": ".2~g"}, xaxis={"showticklabels": few})
    figure.add_bar(x=[*range(1, len(shown) + 1)], y=shown, marker_color=LATE, hovertemplate="%{y:.3g}<extra></extra>")
    return figure


def _averaged(values: Sequence[float]) -> list[float]:
    """At most :data:`MOST_CELLS` means of neighbours."""
    size = -(-len(values) // MOST_CELLS)
    return [statistics.fmean(values[i : i + size]) for i in range(0, len(values), size)]


def retrained_against_inherited(validation: Validation) -> go.Figure:
    """Each retrained subnet by the score it inherits and the score of its own training."""
    subnets, scale, score = validation.subnets, validation.scale, validation.score_name
    figure = plain_figure(x_title=f"{score}, inherited weights", y_title=f"{score}, retrained", y_percent=scale.is_share)
    figure.update_layout(hovermode="closest", xaxis={"tickformat": ".1%"} if scale.is_share else {})
    sizes = [subnet.params for subnet in subnets]
    # The champion and the best random candidate may be at the same place: one is drawn around the other.
    marks = {"drawn": ("circle", 10), "best random": ("diamond-open", 24), "champion": ("star", 16)}
    for role, (symbol, size) in marks.items():
        members = [subnet for subnet in subnets if subnet.role == role]
        if not members:
            continue
        marker: dict[str, Any] = {"size": size, "symbol": symbol, "color": CHAMPION, "line": {"width": 1, "color": "white"}}
        if role == "best random":
            marker |= {"color": INK, "line": {"width": 2, "color": INK}}
        if role == "drawn":
            bar = {**BAR, "title": {"text": "parameters", "side": "right"}, "tickformat": ".2s"}
            marker |= {"color": [s.params for s in members], "cmin": min(sizes), "cmax": max(sizes), "colorscale": BLUES}
            marker |= {"colorbar": bar}
        figure.add_scatter(
            name=role,
            x=[s.inherited for s in members],
            y=[s.retrained for s in members],
            # Of a subnet that was trained twice, from the one score to the other.
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [max(s.scores) - s.retrained for s in members],
                "arrayminus": [s.retrained - min(s.scores) for s in members],
                "color": FAINT,
                "thickness": 1.5,
                "width": 0,
            },
            mode="markers",
            marker=marker,
            text=[_retrained_hover(s, scale) for s in members],
            hovertemplate="%{text}<extra></extra>",
        )
    return figure


def _retrained_hover(subnet: RetrainedSubnet, scale: Scale) -> str:
    retrained = " and ".join(scale.text(score) for score in subnet.scores)
    return (
        f"<b>{subnet.id}</b><br>inherited {scale.text(subnet.inherited)}<br>retrained {retrained}<br>"
        f"{count_text(subnet.params)} parameters<br>{_arch_text(subnet.arch)}"
    )
