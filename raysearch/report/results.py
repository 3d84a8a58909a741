"""Tables of a finished search's page: champion, baselines and finalists, each number with how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from raysearch.report.baselines import baseline_rows, baselines_line
from raysearch.report.classes import Classes
from raysearch.report.intervals import score_words
from raysearch.report.sheet import sentence
from raysearch.report.tables import (
    FINALIST_COLUMNS,
    WORDS,
    count_text,
    finalist_rows,
    finalists_line,
    interval_text,
    smallest_line,
)
from raysearch.report.tuning import tuned_rows
from raysearch.store.candidates import CandidateRow
from raysearch.store.scores import NONE, Scale
from raysearch.store.summary import Finalists, Network, Networks, Summary


@dataclass(frozen=True, slots=True)
class Cell:
    """A number of a table, and what stands small below it."""

    text: str
    below: str = ""
    code: bool = False
    """Whether it is the id of an architecture, which is not broken."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of numbers and what stands below it."""

    columns: list[str]
    rows: list[list[Cell]]
    words: list[str]
    references: list[list[Cell]] = field(default_factory=list[list[Cell]])
    """Rows of what is no network."""


def closing(summary: Summary, networks: Networks, classes: Classes | None) -> Table:
    """Champion, largest, smallest and median random subnet, beside what no network is needed for."""
    scale, counts = summary.scale, summary.counts
    named = [("champion", networks.champion), ("largest subnet", networks.largest), ("smallest subnet", networks.smallest)]
    timed = summary.latency is not None or any(network.latency_ms is not None for _, network in named)
    columns = ["network", "search score", "test score", "parameters", "MACs", *(["latency"] if timed else [])]

    def score(value: float | None, items: int | None) -> Cell:
        return Cell(scale.text(value), score_words(value, items, scale))

    def row(name: str, network: Network) -> list[Cell]:
        return [
            Cell(name),
            score(network.score, counts.search_images),
            score(network.test_score, counts.test_images),
            Cell(count_text(network.params)),
            Cell(count_text(network.macs)),
            *([Cell(_milliseconds(network.latency_ms))] if timed else []),
        ]

    rows = [row(name, network) for name, network in named]
    if (drawn := networks.random) is not None:
        rows.insert(
            2,  # as in the terminal, before the smallest
            [
                Cell(f"random, median of {drawn.subnets}"),
                Cell(scale.text(drawn.score), interval_text(drawn.score_interval, scale) or _span(drawn.scores, scale)),
                Cell(
                    scale.text(drawn.test_score), interval_text(drawn.test_interval, scale) or _span(drawn.test_scores, scale)
                ),
                Cell(count_text(drawn.params)),
                Cell(count_text(drawn.macs)),
                *([Cell(_milliseconds(drawn.latency_ms))] if timed else []),
            ],
        )
    for name, network in tuned_rows(summary.tuning).items():
        above = next(i for i, row in enumerate(rows) if row[0].text.startswith(name.split(",")[0]))
        rows.insert(above + 1, row(name, network))
    largest = next(i for i, row in enumerate(rows) if row[0].text == "largest subnet")
    rows[largest:largest] = [row(name, network) for name, network in baseline_rows(summary.baselines).items()]
    references: list[list[Cell]] = []
    if classes is not None:
        largest = classes.majority_name
        named_class = largest if len(largest) <= 40 else f"{largest[:37]}..."
        guesses = ((f"always {named_class}", classes.majority), (f"chance, 1 of {classes.count:,} classes", classes.chance))
        rest = [Cell("")] * (len(columns) - 3)
        references = [[Cell(name), Cell(""), Cell(scale.text(share)), *rest] for name, share in guesses]
    return Table(columns, rows, _closing_words(summary, classes), references)


def _milliseconds(latency: float | None) -> str:
    return NONE if latency is None else f"{latency:.3g} ms"


def _span(scores: Sequence[float], scale: Scale) -> str:
    """The lowest and the highest of several scores."""
    return f"{scale.text(min(scores), unit='')} to {scale.text(max(scores), unit='')}" if len(scores) > 1 else ""


def _closing_words(summary: Summary, classes: Classes | None) -> list[str]:
    counts, finalists = summary.counts, summary.finalists
    part = None if finalists is None else finalists.images_in_search
    seen = f", of which the search used {part:,}" if part is not None and part < counts.search_images else ""
    scores = "All" if summary.scale.is_share else f"Scores are {summary.score_name}; all"
    trained = summary.tuning is not None or summary.baselines
    but = ", but for the rows that say fine-tuned or from scratch" if trained else ""
    lines = [
        f"{scores} with inherited weights{but}, on all {counts.search_images:,} search images{seen}; the "
        f"{counts.test_images or 0:,} test images were read once, after the champion was chosen. {_of_random(summary)}; "
        "the largest and the smallest subnet need not."
    ]
    if summary.scale.is_share:
        lines.append(
            "Small below a score: its 95 % interval in per cent, from the number of images alone (exact, Clopper and Pearson); "
            f"below a median: {_below_median(summary)}. The champion was chosen among many for its "
            "search score, which is too high for that by more than the interval says; its test score is not."
        )
    small = None if summary.networks is None or classes is None else summary.networks.smallest.score_interval
    if classes is not None and (warning := smallest_line(small, classes.count)) is not None:
        lines.append(sentence(warning))
    if (beside := baselines_line(summary.baselines, summary.scale)) is not None:
        lines.append(sentence(beside))
    if classes is not None:
        lines.append(
            "Below the networks: what always saying the class with the most test images gets, and a guess among all classes "
            f"alike. Each class counting the same, the champion has {summary.scale.text(classes.balanced)} (balanced accuracy)."
        )
    return lines


def _of_random(summary: Summary) -> str:
    drawn = None if summary.networks is None else summary.networks.random
    if drawn is None or drawn.within is None:
        return "Random subnets keep the same budget"
    assert summary.networks is not None
    return (
        f"Random subnets have as many {WORDS[summary.networks.quantity]} as the champion within {100 * drawn.within:.0f} % "
        "and keep the budget"
    )


def _below_median(summary: Summary) -> str:
    drawn = None if summary.networks is None else summary.networks.random
    if drawn is None or drawn.test_interval is None:
        return "the lowest and the highest of the random subnets"
    if drawn.subnets < 6:
        return "the lowest and the highest of the random subnets, too few for an interval of 95 %"
    return "its 95 % interval over subnets (exact, of order statistics)"


def finalists(chosen: Finalists, summary: Summary, rows: Sequence[CandidateRow]) -> Table:
    """The best of the search, scored again, and how sure their order is."""
    scale = summary.scale
    behind = "points behind the champion" if scale.is_share else "what the champion's score is higher by"
    chance = (
        "how often chance alone gives the best of the search such a lead over an equal network on these images, no less than "
        "for any cheaper one, as the tests go from the cheapest up"
    )
    if chosen.best is None:  # a search of 0.1.0
        chance = "how often chance alone makes two equal networks differ so much on these images"
    words = f"{sentence(finalists_line(chosen, scale))} Behind: {behind}; p: {chance}."
    measured = {row.id: row.latency for row in rows}
    latency = {row.id: measured.get(row.id) if row.latency_ms is None else row.latency_ms for row in chosen.rows}
    timed = summary.latency is not None
    champion = None if summary.networks is None else summary.networks.champion.id
    cells = [
        [
            Cell(row[0], below=_role(row[0], champion, chosen.best), code=True),
            *map(Cell, row[1:]),
            *([Cell(_milliseconds(latency[row[0]]))] if timed else []),
        ]
        for row in finalist_rows(chosen, scale)
    ]
    return Table([*FINALIST_COLUMNS, *(["latency"] if timed else [])], cells, [words])


def _role(arch: str, champion: str | None, best: str | None) -> str:
    """What a finalist is beside that."""
    return ", ".join(name for name, of in (("champion", champion), ("best of the search", best)) if arch == of)
