"""``report.html``: one file that opens anywhere, without a network."""

from __future__ import annotations

import html
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq

from raysearch.report.common import InCommon, Place, Row, Share, in_common
from raysearch.report.pictures import (
    SIZES,
    front_rows,
    images_by_generation,
    latency_against_macs,
    retrained_against_inherited,
    score_against_size,
    score_by_generation,
    training_curve,
)
from raysearch.report.sheet import document, section
from raysearch.report.tables import (
    COLUMNS,
    FINALIST_COLUMNS,
    choice_text,
    closing_rows,
    count_text,
    duration_text,
    finalist_rows,
    finalists_line,
    latency_line,
    racing_line,
    score_text,
    utilisation_line,
    validation_lines,
    value_text,
)
from raysearch.search import Candidate
from raysearch.space.choice import Option
from raysearch.statistics import tau_b
from raysearch.store.candidates import CANDIDATES, best_rows, row_of
from raysearch.store.files import write_whole
from raysearch.store.folder import CONFIG, read_json
from raysearch.store.summary import Summary

PHASE_COLORS = ("#b8c2cc", "#5b8fc7", "#12365e", "#c2410c", "#7b8794")


def write_report(folder: Path, summary: Summary | None = None, *, candidates: Sequence[Candidate] | None = None) -> Path:
    """Write ``report.html`` into a search's folder, whole or not at all; returns its path.

    Args:
        folder: its ``config.json`` and ``validation.json`` are read where they are there.
        summary: what ``summary.json`` holds, which is read when this is not given. That of a search in progress has no
            ``networks`` and instead a ``progress``: generation and generations, candidates and total.
        candidates: those known so far; ``candidates.parquet`` is read when they are not given.

    Raises:
        ValueError: a file is missing or damaged; it is named.

    """
    if summary is None:
        path = _existing(folder / "summary.json")
        try:
            summary = Summary.from_dict(read_json(path))
        except ValueError as error:
            raise error if str(path) in str(error) else ValueError(f"{path} is damaged: {error}") from None
    if candidates is None:
        rows = cast(list[Row], pq.read_table(_existing(folder / CANDIDATES)).to_pylist())
    else:
        rows = [row_of(c) for c in candidates]
    validation, config = folder / "validation.json", folder / CONFIG
    page = _page(
        {name: value for name, value in summary.to_dict().items() if value is not None},
        rows,
        sizes=_sizes(read_json(config).get("recipe", {})) if config.exists() else ["params"],
        validation=read_json(validation) if validation.exists() else None,
    )
    path = folder / "report.html"
    write_whole(path, page)
    return path


def _existing(path: Path) -> Path:
    if not path.exists():
        raise ValueError(f"{path} is missing: a report needs the folder of a finished search")
    return path


def _sizes(recipe: Mapping[str, Any]) -> list[str]:
    """What the search weighed against the score: each has a picture of its own."""
    if recipe.get("algorithm") != "nsga2":
        return ["params"]
    weighed: Sequence[str] = recipe.get("nsga2", {}).get("objectives", ())
    return [size for size in weighed if size in SIZES] or ["params"]


def _page(
    summary: Mapping[str, Any], rows: Sequence[Row], *, sizes: Sequence[str], validation: Mapping[str, Any] | None
) -> str:
    scored = best_rows(rows)
    champion = summary["networks"]["champion"]["id"] if "networks" in summary else None
    sections = [_headline(summary, rows, scored)]
    if "networks" in summary:
        sections.append(_closing(summary))
    if summary.get("finalists"):
        sections.append(_finalists(summary["finalists"]))
    if scored:
        sections += [_front(scored, champion, size) for size in sizes]
        if (found := in_common(rows)) is not None:
            sections.append(_in_common(found))
        sections.append(
            section(
                "Progress of the search",
                score_by_generation(scored),
                "A search that works lifts the median towards the best; a flat best means that more generations add little.",
                name="generations",
            )
        )
    sections += [_racing(summary, rows), _latency(summary, scored, champion)]
    if validation is not None:
        sections.append(_validation(validation))
    if history := summary.get("training", {}).get("history"):
        sections.append(
            section(
                "Training of the supernet",
                training_curve(history),
                f"{len(history):,} epochs of {summary['counts']['train_images']:,} images; each step trained one random "
                f"subnet, so the loss is that of subnets of all sizes. Last loss: {history[-1]['loss']:.4f}.",
                name="training",
            )
        )
    sections += [_seconds(summary), _failures(rows), _provenance(summary)]
    return document(f"{summary['recipe']}: report of a search", sections)


def _headline(summary: Mapping[str, Any], rows: Sequence[Row], scored: Sequence[Row]) -> str:
    name, budget = html.escape(summary["recipe"]), html.escape(summary["constraint"].replace("<=", "≤"))
    spent = duration_text(sum(summary["seconds"].values()))
    if (progress := summary.get("progress")) is not None:
        written = summary["written"][:16].replace("T", " ")
        head = (
            f"<h1>{name}: in progress</h1>\n"
            f"<p><span class=state>generation {progress['generation']} of {progress['generations']}</span></p>\n"
            f"<p class=quiet>{budget} · {len(rows):,} of {progress['total']:,} candidates · {spent} · "
            f"written {html.escape(written)} UTC; reload this page for what came later</p>\n"
        )
        if not scored:
            return head
        best = scored[0]
        network = {**best, "arch": json.loads(best["arch"])}
        facts = ((score_text(best["score"]), "best search score so far, inherited weights"),)
        label = "Best so far"
    else:
        network, counts = summary["networks"]["champion"], summary["counts"]
        finished = summary["finished"][:16].replace("T", " ")
        head = (
            f"<h1>{name}: the best of {counts['candidates'] - counts['failed']:,} subnets</h1>\n"
            f"<p class=quiet>{budget} · {counts['generations']} generations · {spent} · "
            f"finished {html.escape(finished)} UTC</p>\n"
        )
        facts = (
            (score_text(network["test_score"]), "test score of the champion"),
            (score_text(network["score"]), "search score, inherited weights"),
        )
        label = "Champion"
    facts += ((count_text(network["params"]), "parameters"), (count_text(network["macs"]), "MACs per image"))
    cells = "".join(f"<div><b>{html.escape(value)}</b><span class=quiet>{words}</span></div>" for value, words in facts)
    return f"{head}<div class=facts>{cells}</div>\n{_architecture(network, label)}"


def _architecture(network: Mapping[str, Any], label: str) -> str:
    """Scalar choices in a line, choices per block as a table with one column per block."""
    arch: Mapping[str, Any] = network["arch"]
    blocks = {name: cast(list[Any], v) for name, v in arch.items() if isinstance(v, list) and not _nested(cast(list[Any], v))}
    if len({len(values) for values in blocks.values()}) != 1:
        blocks = {}
    parts = [f"{label} <code>{html.escape(network['id'])}</code>"]
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
    counts, part = summary["counts"], (summary.get("finalists") or {}).get("images_in_search")
    seen = f", of which the search used {part:,}" if part is not None and part < counts["search_images"] else ""
    head = "".join(f"<th>{c}</th>" for c in COLUMNS)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in closing_rows(summary))
    return (
        f"<h2>Champion and comparison</h2>\n<div class=scroll><table class=closing><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>\n"
        f"<p class=quiet>All with inherited weights, on all {counts['search_images']:,} search images{seen}; the "
        f"{counts['test_images']:,} test images were read once, after the champion was chosen. Random subnets keep the same "
        "budget; the largest and the smallest subnet need not.</p>"
    )


def _finalists(finalists: Mapping[str, Any]) -> str:
    """The best of the search, scored again, and how sure their order is."""
    head = "".join(f"<th>{c}</th>" for c in FINALIST_COLUMNS)
    body = "".join(
        f"<tr><td><code>{html.escape(row[0])}</code></td>" + "".join(f"<td>{html.escape(c)}</td>" for c in row[1:]) + "</tr>"
        for row in finalist_rows(finalists)
    )
    return (
        f"<h2>Finalists</h2>\n<div class=scroll><table class=closing><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
        f"</table></div>\n<p class=quiet>{_sentence(finalists_line(finalists))} Behind: points behind the champion; p: how "
        "often chance alone makes two equal networks differ so much on these images.</p>"
    )


def _front(scored: Sequence[Row], champion: str | None, size: str) -> str:
    title = SIZES[size][0]
    few = {"params": "as few parameters", "macs": "as few MACs", "latency": "as few milliseconds"}[size]
    return section(
        f"Score against {title}",
        score_against_size(scored, champion, size=size),
        f"Each point is one subnet scored with inherited weights; darker is later. {len(front_rows(scored, size))} of "
        f"{len(scored):,} are on the front: no other candidate has as high a score with {few}. "
        "Point at one to see its architecture.",
        name="front" if size == "params" else f"front_{size}",
    )


def _in_common(found: InCommon) -> str:
    """Choices of the best beside those of chance: bars for the whole net, one heat map for the blocks."""
    whole = [place for place in found.shares if place[1] is None and len(found.shares[place]) > 1]
    names = list(dict.fromkeys(name for name, block in found.shares if block is not None))
    parts: list[str] = []
    if whole:
        groups = ["".join(_share_row(place, value, share) for value, share in found.shares[place].items()) for place in whole]
        head = f"<th></th><th></th><th>best</th><th>{found.compared_with.split()[0]}</th>"
        body = "".join(f"<tbody>{rows}</tbody>" for rows in groups)
        parts.append(f"<div class=scroll><table class=shares><thead><tr>{head}</tr></thead>{body}</table></div>")
    if names:
        depth = 1 + max(block for _, block in found.shares if block is not None)
        head = "<th>block</th>" + "".join(f"<th>{block + 1}</th>" for block in range(depth))
        body = "".join(f"<tbody>{_heat_rows(found, name, depth)}</tbody>" for name in names)
        parts.append(f"<div class=scroll><table class=heat id=common><thead><tr>{head}</tr></thead>{body}</table></div>")
    caption = (
        f"Of the best {found.best} candidates, how many per cent chose each value (of those that have the block), beside "
        f"{found.others:,} {found.compared_with}: the dark mark in a bar is theirs; a cell is blue where the best chose the "
        "value more often than they did and orange where less often. The best are often relatives: what they share may be "
        "inherited and need not be why they are good."
    )
    return f"<h2>What the best have in common</h2>\n<figure>{''.join(parts)}<figcaption>{caption}</figcaption></figure>"


def _share_row(place: Place, value: Option, share: Share) -> str:
    mark = "" if share.others is None else f'<i style="left:{100 * share.others:.1f}%"></i>'
    others = "" if share.others is None else f"{share.others:.0%}"
    return (
        f"<tr><td>{html.escape(choice_text(place, value))}</td>"
        f'<td><div class=track><b style="width:{100 * share.best:.1f}%"></b>{mark}</div></td>'
        f"<td>{share.best:.0%}</td><td class=quiet>{others}</td></tr>"
    )


def _heat_rows(found: InCommon, name: str, depth: int) -> str:
    values = sorted(
        {value for (n, block), shares in found.shares.items() if n == name and block is not None for value in shares}
    )
    rows: list[str] = []
    for value in values:
        cells = [f"<td>{html.escape(name)} {value_text(value)}</td>"]
        for block in range(depth):
            share = found.shares.get((name, block), {}).get(value)
            if share is None:
                cells.append("<td></td>")
                continue
            color = "91,143,199" if share.lead > 0 else "217,119,66"
            others = "" if share.others is None else f"; {found.compared_with} {share.others:.0%}"
            cells.append(
                f'<td style="background:rgba({color},{min(1.0, 1.2 * abs(share.lead)):.2f})" '
                f'title="{html.escape(choice_text((name, block), value))}: best {share.best:.0%}{others}">'
                f"{100 * share.best:.0f}</td>"
            )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return "".join(rows)


def _racing(summary: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """What racing saved, and in which generations; nothing where it was off."""
    racing = summary.get("racing")
    if not racing and not any(row["status"] == "raced" for row in rows):
        return ""
    caption = (
        "100 % are the images that scoring all candidates of a generation in full would have read. Candidates that were "
        "stopped are in no other picture, and the front is that of those scored on all images."
    )
    if racing:
        caption = f"{_sentence(racing_line(racing))} {caption}"
    return section("Images saved by racing", images_by_generation(rows), caption, name="racing")


def _latency(summary: Mapping[str, Any], scored: Sequence[Row], champion: str | None) -> str:
    """Milliseconds against MACs where they were measured, and how latency was found; nothing where it was not asked for."""
    measured = [row for row in scored if row["latency_ms"] is not None]
    caption = f"{_sentence(latency_line(summary['latency']))} " if summary.get("latency") else ""
    if len(measured) < 2:
        return f"<h2>Latency</h2>\n<p>{caption}</p>" if caption else ""
    caption += "Each point is a candidate, darker with a higher score."
    tau = tau_b([row["macs"] for row in measured], [row["latency_ms"] for row in measured])
    if not math.isnan(tau):  # as it is where all have the same MACs
        caption += (
            f" Between MACs and milliseconds of these {len(measured):,} Kendall's tau is {tau:.2f}; at 1, MACs would always "
            "tell which of two networks is faster."
        )
    return section("Latency", latency_against_macs(measured, champion), caption, name="latency")


def _sentence(line: str) -> str:
    return html.escape(line[0].upper() + line[1:] + ".")


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
    return section(title, retrained_against_inherited(validation["subnets"]), caption, name="validation")


def _seconds(summary: Mapping[str, Any]) -> str:
    seconds: Mapping[str, float] = summary["seconds"]
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
    busy = f"<p>{_sentence(utilisation_line(summary['utilisation']))}</p>\n" if summary.get("utilisation") else ""
    return (
        f"<h2>Time by phase</h2>\n<div class=bar>{parts}</div>\n<div class=key>{key}</div>\n{busy}"
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
