"""The pictures of a report as plotly figures. Rows are those of ``candidates.parquet``."""

from __future__ import annotations

import html
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, cast

import plotly.graph_objects as go

from raysearch.report.tables import count_text, score_text

Row = Mapping[str, Any]

INK, FAINT, LINE, ACCENT = "#1f2933", "#7b8794", "#e4e7eb", "#c2410c"
BLUES = [[0.0, "#c9dcf0"], [0.5, "#5b8fc7"], [1.0, "#12365e"]]
"""Generations, early to late. Dark enough at the pale end to stay visible on white."""


def _figure(*, x_title: str, y_title: str, y_percent: bool) -> go.Figure:
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


def _is_share(scores: Sequence[float]) -> bool:
    return all(0 <= s <= 1 for s in scores)


def value_text(value: Any) -> str:
    """One choice of an architecture, short: numbers per block side by side, stages apart."""
    if isinstance(value, list):
        values = cast(list[Any], value)
        return (" | " if any(isinstance(v, list) for v in values) else " ").join(map(value_text, values))
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)  # noqa: RUF001


def _hover(row: Row) -> str:
    arch = "<br>".join(f"{name}: {html.escape(value_text(v))}" for name, v in json.loads(row["arch"]).items())
    return (
        f"<b>{row['id']}</b><br>score {score_text(row['score'])}<br>{count_text(row['params'])} parameters, "
        f"{count_text(row['macs'])} MACs<br>generation {row['generation']}, {html.escape(row['origin'])}<br>{arch}"
    )


def score_against_params(scored: Sequence[Row], front: Sequence[Row], champion_id: str) -> go.Figure:
    """Every scored candidate, the Pareto front among them, and the champion."""
    figure = _figure(x_title="parameters", y_title="search score", y_percent=_is_share([r["score"] for r in scored]))
    figure.update_layout(height=480, hovermode="closest")
    ordered = sorted(scored, key=lambda r: r["index"])
    generations = [r["generation"] for r in ordered]
    figure.add_scatter(
        name="candidate",
        x=[r["params"] for r in ordered],
        y=[r["score"] for r in ordered],
        mode="markers",
        marker={
            "size": 8,
            "color": generations,
            "cmin": 0,
            "cmax": max(1, *generations),
            "colorscale": BLUES,
            "line": {"width": 0.5, "color": "white"},
            "colorbar": {"title": {"text": "generation"}, "thickness": 10, "outlinewidth": 0, "tickformat": "d"},
        },
        text=[_hover(r) for r in ordered],
        hovertemplate="%{text}<extra></extra>",
    )
    edge = sorted(front, key=lambda r: r["params"])
    figure.add_scatter(
        name="Pareto front",
        x=[r["params"] for r in edge],
        y=[r["score"] for r in edge],
        mode="lines+markers",
        line={"color": ACCENT, "width": 2, "shape": "hv"},
        marker={"size": 9, "color": "white", "line": {"width": 2, "color": ACCENT}},
        text=[_hover(r) for r in edge],
        hovertemplate="%{text}<extra></extra>",
    )
    best = [r for r in scored if r["id"] == champion_id]
    figure.add_scatter(
        name="champion",
        x=[r["params"] for r in best],
        y=[r["score"] for r in best],
        mode="markers",
        marker={"size": 16, "symbol": "star", "color": ACCENT, "line": {"width": 1, "color": "white"}},
        text=[_hover(r) for r in best],
        hovertemplate="%{text}<extra></extra>",
    )
    return figure


def score_by_generation(scored: Sequence[Row]) -> go.Figure:
    """Best so far, best and median of each generation, and the span of its middle half."""
    groups: dict[int, list[float]] = {}
    for row in scored:
        groups.setdefault(row["generation"], []).append(row["score"])
    generations = sorted(groups)
    scores = [sorted(groups[g]) for g in generations]
    best = [max(s) for s in scores]
    quarters = [statistics.quantiles(s, n=4, method="inclusive") if len(s) > 1 else [s[0]] * 3 for s in scores]
    figure = _figure(x_title="generation", y_title="search score", y_percent=_is_share(best))
    figure.update_layout(hovermode="x unified", xaxis={"tickformat": "d"})
    half = {"x": generations, "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    figure.add_scatter(y=[q[0] for q in quarters], showlegend=False, **half)
    figure.add_scatter(y=[q[2] for q in quarters], name="middle half", fill="tonexty", fillcolor="#dbe7f3", **half)
    lines = (
        ("median", [q[1] for q in quarters], "#5b8fc7", "solid"),
        ("best of the generation", best, "#12365e", "solid"),
        ("best so far", [max(best[: i + 1]) for i in range(len(best))], ACCENT, "dot"),
    )
    for name, values, color, dash in lines:
        mode = "lines" if dash == "dot" else "lines+markers"
        figure.add_scatter(name=name, x=generations, y=values, mode=mode, line={"color": color, "width": 2, "dash": dash})
    return figure


def training_curve(history: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Loss of the supernet by epoch, with the learning rate behind it."""
    figure = _figure(x_title="epoch", y_title="training loss", y_percent=False)
    epochs = [record["epoch"] + 1 for record in history]
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
    rates, losses = [record["lr"] for record in history], [record["loss"] for record in history]
    pale, dark = {"color": "#b8c2cc", "width": 1.5}, {"color": "#12365e", "width": 2}
    figure.add_scatter(name="learning rate", x=epochs, y=rates, yaxis="y2", mode="lines", line=pale)
    figure.add_scatter(name="loss", x=epochs, y=losses, mode="lines", line=dark)
    return figure


def retrained_against_inherited(subnets: Sequence[Row]) -> go.Figure:
    """Each retrained subnet by the accuracy it inherits and the accuracy of its own training."""
    scores = [row[name] for row in subnets for name in ("inherited", "retrained")]
    figure = _figure(x_title="accuracy, inherited weights", y_title="accuracy, retrained", y_percent=_is_share(scores))
    figure.update_layout(hovermode="closest", xaxis={"tickformat": ".1%"} if _is_share(scores) else {})
    sizes = [row["params"] for row in subnets]
    # The champion and the best random candidate may be at the same place: one is drawn around the other.
    marks = {"drawn": ("circle", 10), "best random": ("diamond-open", 24), "champion": ("star", 16)}
    for role, (symbol, size) in marks.items():
        rows = [row for row in subnets if row["role"] == role]
        marker: dict[str, Any] = {"size": size, "symbol": symbol, "color": ACCENT, "line": {"width": 1, "color": "white"}}
        if role == "best random":
            marker |= {"color": INK, "line": {"width": 2, "color": INK}}
        if role == "drawn":
            bar = {"title": {"text": "parameters"}, "thickness": 10, "outlinewidth": 0, "tickformat": ".2s"}
            marker |= {"color": [r["params"] for r in rows], "cmin": min(sizes), "cmax": max(sizes), "colorscale": BLUES}
            marker |= {"colorbar": bar}
        figure.add_scatter(
            name=role,
            x=[r["inherited"] for r in rows],
            y=[r["retrained"] for r in rows],
            mode="markers",
            marker=marker,
            text=[
                f"<b>{r['id']}</b><br>inherited {score_text(r['inherited'])}<br>retrained {score_text(r['retrained'])}<br>"
                f"{count_text(r['params'])} parameters<br>"
                + "<br>".join(f"{name}: {html.escape(value_text(v))}" for name, v in r["arch"].items())
                for r in rows
            ],
            hovertemplate="%{text}<extra></extra>",
        )
    return figure
