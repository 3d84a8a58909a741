"""``report.html``: one file that opens anywhere, without a network."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import plotly.graph_objects as go
import pyarrow.parquet as pq
from plotly.offline import get_plotlyjs

from raysearch.output import read_json, read_json_rows
from raysearch.report.pictures import (
    Row,
    retrained_against_inherited,
    score_against_params,
    score_by_generation,
    training_curve,
    value_text,
)
from raysearch.report.tables import (
    COLUMNS,
    closing_rows,
    count_text,
    duration_text,
    latency_line,
    racing_line,
    score_text,
    validation_lines,
)
from raysearch.search.record import CANDIDATES

STYLE = """
:root { color: #1f2933; background: #fff; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
body { max-width: 1040px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0; font-weight: 650; }
h2 { font-size: 1.15rem; margin: 48px 0 12px; font-weight: 650; }
p { margin: 8px 0; max-width: 46em; }
.quiet, th, figcaption { color: #616e7c; }
.facts { display: flex; flex-wrap: wrap; gap: 12px 56px; margin: 28px 0 20px; }
.facts b { display: block; font-size: 2rem; line-height: 1.2; font-weight: 600; font-variant-numeric: tabular-nums; }
.facts div:first-child b { color: #c2410c; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 28px 7px 0; text-align: right; border-bottom: 1px solid #e4e7eb; white-space: nowrap; }
th { font-weight: 500; font-size: .9rem; }
th:first-child, td:first-child { text-align: left; }
.closing tbody tr:first-child { font-weight: 650; }
.net tr:first-child td { color: #616e7c; font-size: .9rem; }
.net td { padding: 5px 14px 5px 0; }
figure { margin: 0; }
figcaption { max-width: 46em; font-size: .95rem; }
.bar { display: flex; height: 14px; border-radius: 3px; overflow: hidden; margin: 12px 0; gap: 2px; }
.key { display: flex; flex-wrap: wrap; gap: 4px 28px; font-variant-numeric: tabular-nums; }
.key i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 7px; }
pre { background: #f5f7fa; padding: 14px 16px; border-radius: 4px; overflow-x: auto; font-size: .88rem; }
@media print { body { padding: 0; } h2, figure { break-inside: avoid; } }
"""
PHASE_COLORS = ("#b8c2cc", "#5b8fc7", "#12365e", "#c2410c", "#7b8794")


def write_report(folder: Path, summary: Mapping[str, Any] | None = None) -> Path:
    """Write ``report.html`` into a search's folder, whole or not at all; returns its path.

    Reads ``candidates.parquet``, ``front.json``, ``validation.json`` where there is one and, unless ``summary`` is given,
    ``summary.json``. Raises ValueError that names a missing or damaged file.
    """
    if summary is None:
        summary = read_json(_existing(folder / "summary.json"))
    front = read_json_rows(_existing(folder / "front.json"))
    rows = pq.read_table(_existing(folder / CANDIDATES)).to_pylist()
    path = folder / "report.html"
    temporary = path.with_name(path.name + ".tmp")
    validation = folder / "validation.json"
    page = _page(summary, rows, front, validation=read_json(validation) if validation.exists() else None)
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)
    return path


def _existing(path: Path) -> Path:
    if not path.exists():
        raise ValueError(f"{path} is missing: a report needs the folder of a finished search")
    return path


def _page(
    summary: Mapping[str, Any], rows: Sequence[Row], front: Sequence[Row], *, validation: Mapping[str, Any] | None
) -> str:
    scored = [row for row in rows if row["status"] == "scored"]
    champion = summary["networks"]["champion"]
    sections = [_headline(summary), _closing(summary)]
    if scored:
        sections.append(
            _section(
                "Score against parameters",
                score_against_params(scored, front, champion["id"]),
                f"Each point is one subnet scored with inherited weights; darker is later. {len(front)} of "
                f"{len(scored):,} are on the front: no other candidate has a higher score with as few parameters. "
                "Point at one to see its architecture.",
                name="front",
            )
        )
        sections.append(
            _section(
                "Progress of the search",
                score_by_generation(scored),
                "A search that works lifts the median towards the best; a flat best means that more generations add little.",
                name="generations",
            )
        )
    if validation is not None:
        sections.append(_validation(validation))
    if history := summary.get("training", {}).get("history"):
        sections.append(
            _section(
                "Training of the supernet",
                training_curve(history),
                f"{len(history):,} epochs of {summary['counts']['train_images']:,} images; each step trained one random "
                f"subnet, so the loss is that of subnets of all sizes. Last loss: {history[-1]['loss']:.4f}.",
                name="training",
            )
        )
    if summary.get("racing"):
        line = racing_line(summary["racing"])
        sections.append(
            f"<h2>Racing</h2>\n<p>{html.escape(line[0].upper() + line[1:])}. Those are in no picture, and the front is that of "
            "the candidates scored on all images.</p>"
        )
    if summary.get("latency"):
        line = latency_line(summary["latency"])
        sections.append(f"<h2>Latency</h2>\n<p>{html.escape(line[0].upper() + line[1:])}.</p>")
    sections += [_seconds(summary["seconds"]), _failures(rows), _provenance(summary)]
    title = html.escape(f"{summary['recipe']}: report of a search")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n'
        f"<script>{get_plotlyjs()}</script>\n</head>\n<body>\n" + "\n".join(filter(None, sections)) + "\n</body>\n</html>\n"
    )


def _headline(summary: Mapping[str, Any]) -> str:
    champion, counts = summary["networks"]["champion"], summary["counts"]
    facts = (
        (score_text(champion["test_score"]), "test score of the champion"),
        (score_text(champion["score"]), "search score, inherited weights"),
        (count_text(champion["params"]), "parameters"),
        (count_text(champion["macs"]), "MACs per image"),
    )
    budget, finished = summary["constraint"].replace("<=", "≤"), summary["finished"][:16].replace("T", " ")
    cells = "".join(f"<div><b>{html.escape(value)}</b><span class=quiet>{name}</span></div>" for value, name in facts)
    return (
        f"<h1>{html.escape(summary['recipe'])}: the best of {counts['candidates'] - counts['failed']:,} subnets</h1>\n"
        f"<p class=quiet>{html.escape(budget)} · {counts['generations']} generations · "
        f"{duration_text(sum(summary['seconds'].values()))} · finished {html.escape(finished)} UTC</p>\n"
        f"<div class=facts>{cells}</div>\n{_architecture(champion)}"
    )


def _architecture(network: Mapping[str, Any]) -> str:
    """Scalar choices in a line, choices per block as a table with one column per block."""
    arch: Mapping[str, Any] = network["arch"]
    blocks = {name: cast(list[Any], v) for name, v in arch.items() if isinstance(v, list) and not _nested(cast(list[Any], v))}
    if len({len(values) for values in blocks.values()}) != 1:
        blocks = {}
    parts = [f"Champion <code>{html.escape(network['id'])}</code>"]
    parts += [f"{html.escape(name)} <b>{html.escape(value_text(v))}</b>" for name, v in arch.items() if name not in blocks]
    text = f"<p>{' · '.join(parts)}</p>"
    if not blocks:
        return text
    depth = len(next(iter(blocks.values())))
    rows = [("block", [str(i + 1) for i in range(depth)])]
    rows += [(name, [value_text(v) for v in values]) for name, values in blocks.items()]
    cells = [f"<td>{html.escape(name)}</td>" + "".join(f"<td>{html.escape(v)}</td>" for v in values) for name, values in rows]
    return text + f"\n<div class=scroll><table class=net>{''.join(f'<tr>{row}</tr>' for row in cells)}</table></div>"


def _nested(values: list[Any]) -> bool:
    return any(isinstance(v, list) for v in values)


def _closing(summary: Mapping[str, Any]) -> str:
    counts = summary["counts"]
    head = "".join(f"<th>{c}</th>" for c in COLUMNS)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in closing_rows(summary))
    return (
        f"<h2>Champion and comparison</h2>\n<div class=scroll><table class=closing><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>\n"
        f"<p class=quiet>All with inherited weights. The search saw {counts['search_images']:,} images; the "
        f"{counts['test_images']:,} test images were read once, after the champion was chosen. Random subnets keep the same "
        "budget; the largest and the smallest subnet need not.</p>"
    )


def _section(title: str, figure: go.Figure, sentence: str, *, name: str) -> str:
    picture = figure.to_html(
        full_html=False, include_plotlyjs=False, div_id=name, config={"displayModeBar": False, "responsive": True}
    )
    return f"<h2>{title}</h2>\n<figure>{picture}<figcaption>{sentence}</figcaption></figure>"


def _validation(validation: Mapping[str, Any]) -> str:
    """Whether the ranking holds when subnets are trained from scratch: picture and numbers."""
    lines = "<br>".join(html.escape(line) + "." for line in validation_lines(validation))
    title = "Is the ranking true?"
    if not validation["subnets"]:
        return f"<h2>{title}</h2>\n<p>{lines}</p>"
    caption = (
        f"{lines}<br>Each point is one subnet trained from scratch; both accuracies are those of the same search images. On a "
        "rising line inherited weights would rank as a training of its own does; drawn subnets are darker with more parameters."
    )
    return _section(title, retrained_against_inherited(validation["subnets"]), caption, name="validation")


def _seconds(seconds: Mapping[str, float]) -> str:
    total = sum(seconds.values())
    colors = [PHASE_COLORS[i % len(PHASE_COLORS)] for i in range(len(seconds))]
    parts = "".join(
        f'<div style="flex:{value:.3f};background:{color}"></div>'
        for value, color in zip(seconds.values(), colors, strict=True)
    )
    key = "".join(
        f'<span><i style="background:{color}"></i>{html.escape(name)} {duration_text(value)}</span>'
        for (name, value), color in zip(seconds.items(), colors, strict=True)
    )
    return (
        f"<h2>Time by phase</h2>\n<div class=bar>{parts}</div>\n<div class=key>{key}</div>\n"
        f"<p class=quiet>{duration_text(total)} in all; a search that was resumed counts every run.</p>"
    )


def _failures(rows: Sequence[Row]) -> str:
    """How many candidates could not be scored and why; nothing when all were."""
    reasons = Counter(str(row["reason"]) for row in rows if row["status"] == "failed")
    if not reasons:
        return ""
    items = "".join(f"<li>{number} × {html.escape(reason)}</li>" for reason, number in reasons.most_common(10))  # noqa: RUF001
    return f"<h2>Candidates that failed</h2>\n<p>{sum(reasons.values())} of {len(rows):,}:</p><ul>{items}</ul>"


def _provenance(summary: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    return (
        f"<h2>How to repeat it</h2>\n<pre>{html.escape(summary['command'])}</pre>\n"
        f"<p class=quiet>{html.escape(versions)}</p>\n"
        f"<p class=quiet>MLflow run <code>{html.escape(summary['mlflow_run_id'])}</code>, seed {summary['seed']}</p>"
    )
