"""Numbers as people read them, and the tables and sentences of a search."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from raysearch.report.baselines import baseline_rows
from raysearch.report.common import in_common
from raysearch.report.places import choice_text
from raysearch.report.tuning import tuned_rows
from raysearch.statistics import Interval, Noise
from raysearch.store.candidates import CandidateRow
from raysearch.store.scores import NONE, Scale
from raysearch.store.summary import (
    Baseline,
    Finalists,
    InformativeUse,
    LatencyRecord,
    Network,
    Networks,
    ProxyAgreement,
    RacingSavings,
    RandomNetworks,
    Summary,
    Tau,
    Tuning,
    Usage,
)
from raysearch.store.validation import Regret, Validation

COLUMNS = ("network", "search score", "test score", "parameters", "MACs")
"""Of the closing table."""
NAME_WIDTH = 22
"""Letters of a network's name that stand in one line there."""
FINALIST_COLUMNS = ("network", "rank", "score in search", "fresh score", "interval", "behind", "p", "parameters", "MACs")
WORDS = {"params": "parameters", "macs": "MACs", "latency": "milliseconds"}
"""What networks cost, in words."""


def count_text(count: float) -> str:
    """A number of parameters or MACs with its unit: ``64,123``, ``5.89 M``, ``1.48 G``."""
    for limit, unit in ((1e9, "G"), (1e6, "M")):
        if count >= limit:
            return f"{count / limit:.2f} {unit}"
    return f"{count:,.0f}"


def duration_text(seconds: float) -> str:
    """Seconds as ``8.2 s``, ``4 min 12 s`` or ``3 h 05 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def interval_text(interval: Interval | None, scale: Scale) -> str:
    """The ends of an interval of scores, as ``97.1 to 99.5``; empty where there is none."""
    if interval is None:
        return ""
    if scale.is_share:
        return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"
    return f"{interval.low:.4g} to {interval.high:.4g}"


def _compared(
    networks: Networks, tuning: Tuning | None, baselines: Sequence[Baseline]
) -> list[tuple[str, Network | RandomNetworks]]:
    """The rows of the closing table, champion first; what was trained further below what it inherits, then baselines."""
    rows: list[tuple[str, Network | RandomNetworks]] = [
        ("champion", networks.champion),
        ("largest subnet", networks.largest),
        ("smallest subnet", networks.smallest),
    ]
    if (drawn := networks.random) is not None:
        rows.insert(2, (f"random, median of {drawn.subnets}", drawn))
    for name, network in tuned_rows(tuning).items():
        above = next(i for i, (title, _) in enumerate(rows) if title.startswith(name.split(",")[0]))
        rows.insert(above + 1, (name, network))
    largest = next(i for i, (title, _) in enumerate(rows) if title == "largest subnet")
    rows[largest:largest] = baseline_rows(baselines).items()
    return rows


def closing_table(summary: Summary) -> Table:
    """Champion, largest, median random and smallest subnet, side by side for the terminal, with 95 % intervals.

    Where latency was measured it takes the place of MACs: 80 columns hold one of them.
    """
    counts, networks, scale = summary.counts, summary.networks, summary.scale
    test = "" if counts.test_images is None else f", then once on {counts.test_images:,} test images"
    caption = f"{scale.titled('scored')} on {counts.search_images:,} search images{test}"
    rows = [] if networks is None else _compared(networks, summary.tuning, summary.baselines)  # none before the end of a search
    if any(each.score_interval or each.test_interval for _, each in rows):
        caption += "; below a score: its 95 % interval"
    table = Table(
        title=f"{summary.recipe}: {summary.constraint}",
        caption=caption,
        title_justify="left",
        caption_justify="left",
    )
    timed = any(each.latency_ms is not None for _, each in rows)
    for i, column in enumerate((*COLUMNS[:-1], "latency") if timed else COLUMNS):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    for name, each in rows:
        pairs = ((each.score, each.score_interval), (each.test_score, each.test_interval))
        cells = ["\n".join(filter(None, (scale.text(value), interval_text(sure, scale)))) for value, sure in pairs]
        size = count_text(each.macs) if not timed else "" if each.latency_ms is None else f"{each.latency_ms:.3g} ms"
        deployed = "champion, fine-tuned" if summary.tuning and summary.tuning.deployed == "fine-tuned" else "champion"
        table.add_row(
            name.replace(", ", ",\n") if len(name) > NAME_WIDTH else name,
            *cells,
            count_text(each.params),
            size,
            style="bold" if name == deployed else None,
        )
    return table


def verdict_line(summary: Summary) -> str | None:
    """In plain words what the test split says of the champion, beside the largest network and chance; None before the end.

    It is compared with nothing that it is itself, as the largest network, and with nothing that could not be scored.
    """
    networks = summary.networks
    if networks is None:
        return None
    champion, scale = networks.champion, summary.scale
    items = "these items" if summary.counts.test_images is None else f"{summary.counts.test_images:,} test images"
    parts: list[str] = []
    if networks.over_largest is not None:
        parts.append(f"{_beside(networks.over_largest, scale, 'the largest network', items)}, with {_times_fewer(networks)}")
    if networks.over_random is not None and networks.random is not None:
        drawn = networks.random
        which = f"{drawn.subnets} random networks"
        if drawn.within is not None:
            which += f" of the same number of {WORDS[networks.quantity]} within {drawn.within:.0%}".replace("%", " %")
        parts.append(_beside(networks.over_random, scale, f"the mean of {which}", items))
    if not parts:
        return None
    if champion.id == networks.largest.id:
        parts.insert(0, "itself the largest network")
    return f"champion {champion.id}: {'; '.join(parts)} (± 95 %)"


def _beside(lead: Interval, scale: Scale, other: str, items: str) -> str:
    """A lead over something: as good as these items can tell, or by how much above or below."""
    half = f"± {scale.difference(lead.half)}{scale.points}"
    good = "accurate" if scale.is_share else "good"
    if lead.low <= 0 <= lead.high:
        return f"as {good} as {other} as far as {items} tell (difference {scale.difference(lead.value, sign='+')} {half})"
    side = "above" if lead.value > 0 else "below"
    return f"{scale.difference(abs(lead.value))} {half} {side} {other} on {items}"


def _times_fewer(networks: Networks) -> str:
    """How much less the champion costs than the largest network."""
    champion, largest, unit = networks.champion, networks.largest, WORDS[networks.quantity]
    pairs = {
        "params": (champion.params, largest.params),
        "macs": (champion.macs, largest.macs),
        "latency": (champion.latency_ms, largest.latency_ms),
    }
    own, most = pairs[networks.quantity]
    if own is None or most is None:  # the largest is not always measured
        own, most, unit = champion.params, largest.params, WORDS["params"]
    ratio = most / own
    return f"{ratio:.1f} times fewer {unit}" if ratio >= 1.05 else f"{own / most:.2f} times its {unit}"


def smallest_line(sure: Interval | None, classes: int) -> str | None:
    """That the smallest subnet, whose accuracy with its interval is given, is no better than a guess; None where it is.

    ``classes``: between which it tells; 0 where there are none.
    """
    if sure is None or not classes or sure.low > 1 / classes:
        return None
    return (
        f"the smallest subnet knows {100 * sure.value:.1f} % of the search images (95 %: {100 * sure.low:.1f} to "
        f"{100 * sure.high:.1f}), no more than a guess between {classes:,} classes: subnets near it are not trained yet, and "
        "their scores tell little; more --train.epochs or larger --space options would help"
    )


def finalist_rows(finalists: Finalists, scale: Scale) -> list[tuple[str, ...]]:
    """The cells under :data:`FINALIST_COLUMNS`, the best on fresh images first.

    The last ones of :data:`FINALIST_COLUMNS` tell how often chance gives the best of the search such a lead, and the sizes.
    """
    return [
        (
            row.id,
            str(row.rank_in_search),
            scale.text(row.score_in_search),
            scale.text(row.score) if finalists.images else NONE,
            interval_text(row.interval, scale) or NONE,
            scale.difference(row.behind_champion),
            NONE if row.id == finalists.best or not finalists.images else f"{row.p_value:.2g}",
            count_text(row.params),
            count_text(row.macs),
        )
        for row in sorted(finalists.rows, key=lambda row: (row.behind_champion, row.rank_in_search))
    ]


def informative_line(use: InformativeUse) -> str:
    """How candidates were scored on the images that tell them apart."""
    again = "" if use.samples == 1 else f", drawn {use.samples} times"
    return (
        f"{use.candidates - use.sampled:,} candidates were scored on all {use.of:,} images, {use.sampled:,} on about "
        f"{use.images:,} that tell candidates apart{again}: the scores of these are estimates of those on all"
    )


def racing_line(racing: RacingSavings) -> str:
    """What racing saved."""
    saved = 1 - racing.images_seen / max(racing.images_of_full_scoring, 1)
    return (
        f"racing stopped {racing.raced:,} of {racing.candidates:,} candidates early and saved {saved:.1%} of the images "
        f"(error {racing.error:g}, blocks of {racing.block})"
    )


def finalists_line(finalists: Finalists, scale: Scale) -> str:
    """How the champion was chosen and how far chance goes: whom the best beats, and what being selected added to the scores."""
    if finalists.best is None:
        return _finalists_line_of_0_1_0(finalists, scale)
    if not finalists.images:
        return (
            f"finalists: no images are kept for them (dataset.finalist-images), so the champion is the best of the search on "
            f"its own {finalists.images_in_search:,} images and nothing tells how much of its lead is luck"
        )
    unit = WORDS[finalists.quantity]
    chosen = {
        "cheapest": f"the champion is the one with the fewest {unit} that it does not beat",
        "best": "the champion has the highest score there",
    }[finalists.choose]
    line = (
        f"finalists: on {finalists.images:,} images that chose nobody, the best of the search beats {finalists.beaten} of "
        f"{finalists.others} others beyond chance (tested from the cheapest up, all claims right with 95 %); {chosen}"
    )
    if (bias := finalists.bias_interval) is not None:
        line += (
            f"; beside those images the finalists' scores in the search, which chose them, are too high by "
            f"{scale.difference(bias.value)}{scale.points} on average "
            f"(95 %: {scale.difference(bias.low)} to {scale.difference(bias.high)})"
        )
    return line


def _finalists_line_of_0_1_0(finalists: Finalists, scale: Scale) -> str:
    """What a search of that version knows: the champion against each other, on images of which the search used some."""
    images, part = finalists.images, finalists.images_in_search
    line = (
        f"finalists: by a paired test on {images:,} search images the champion is better than {finalists.beaten} of "
        f"{finalists.others} others (p < 0.05, of each comparison alone)"
    )
    if part < images and finalists.selection_bias is not None:
        line += (
            f"; the search scored on {part:,} of them, and on all of them the finalists' scores changed by "
            f"{scale.difference(-finalists.selection_bias, sign='+')}{scale.points} on average"
        )
    return line


def common_line(rows: Sequence[CandidateRow]) -> str | None:
    """The three choices that tell the best candidates most from others; None while fewer than 20 competed.

    Named are choices that at least three quarters of the best share, and a quarter more of them than of the others.
    """
    found = in_common(rows)
    if found is None:
        return None
    telling = [
        (place, value, share)
        for place, values in found.shares.items()
        for value, share in values.items()
        if found.present[place] == 1 and share.best >= 0.75 and share.lead >= 0.25
    ]
    if not telling:
        return f"the best {found.best} share no choice that {found.compared_with} do not have about as often"
    telling.sort(key=lambda entry: -entry[2].lead)
    parts = [f"{choice_text(place, value)} ({share.best:.0%}, {share.others:.0%})" for place, value, share in telling[:3]]
    return f"what the best {found.best} share, in brackets how many of them and of {found.compared_with}: {', '.join(parts)}"


def utilisation_line(utilisation: Usage) -> str:
    """How much of the search its evaluators worked, and how much they waited where a generation ended."""
    count, waited = utilisation.evaluators, utilisation.waiting_at_barrier
    line = f"{count} evaluator{'s were' if count != 1 else ' was'} busy {utilisation.busy:.0%} of "
    line += duration_text(utilisation.seconds)
    return line if waited is None else f"{line}; {waited:.0%} went into waiting for the end of a generation"


def latency_line(latency: LatencyRecord) -> str:
    """The champion's latency, where it was measured, and how well the latency table predicts others."""
    champion = "not measured" if latency.champion_ms is None else f"{latency.champion_ms:.3g} ms"
    line = (
        f"latency of the champion: {champion} (predicted {latency.champion_predicted_ms:.3g}), batch of "
        f"{latency.batch_size} in {latency.precision} on {latency.device}"
    )
    if latency.median_error is not None:
        line += (
            f"; table of {latency.fitted} subnets is off by {latency.median_error:.1%} in the median and at most "
            f"{latency.largest_error:.1%} on {latency.held_out} others"
        )
    return line + (f"; {latency.slow} candidates were too slow when measured" if latency.slow else "")


def proxy_line(agreement: ProxyAgreement) -> str:
    """How well the proxy that opened a search, and parameter count, rank random subnets."""

    def text(tau: Tau | None) -> str:
        return "none" if tau is None else f"{tau.value:+.2f} ({tau.low:+.2f} to {tau.high:+.2f})"

    return (
        f"Kendall tau with the scores of {agreement.subnets} random subnets: proxy {agreement.name} "
        f"{text(agreement.proxy)}, parameter count {text(agreement.params)}"
    )


def validation_lines(validation: Validation) -> list[str]:
    """What retraining says of the ranking and of the champion, a sentence each."""
    lines: list[str] = []
    score, scale = validation.score_name, validation.scale
    epochs = f"{validation.settings.epochs} epochs"
    if validation.settings.epochs != validation.recipe_epochs:
        epochs += f" (the supernet had {validation.recipe_epochs})"
    if validation.rankings:
        drawn = sum(subnet.role == "drawn" for subnet in validation.subnets)
        lines.append(
            f"Kendall tau with the {score} after {epochs} from scratch, over {drawn} random subnets with {validation.band}, "
            "from all parts of their ranking by inherited score; then the partial tau given parameters"
        )
        lines += [f"{row[0]}: {row[1]}{f'; {row[2]}' if row[2] else ''}" for row in ranking_rows(validation)]
    if (noise := validation.noise) is not None:
        lines.append(_noise_line(noise, scale))
    if (regret := validation.regret) is not None:
        lines.append(_regret_line(validation, regret))
    if (over := validation.over_drawn) is not None:
        lines.append(
            f"champion minus the mean of the random subnets of equal cost, retrained: {scale.difference(over.value, sign='+')} "
            f"± {scale.difference(over.half)}{scale.points} (95 % over {validation.search_images:,} images; another training "
            "differs as well)"
        )
    titles = {"all": "all subnets retrained", "drawn": "those drawn across the band alone, which no score chose"}
    for group, taus in validation.agreement.items():
        lines.append(
            f"Kendall tau with the {score} after {epochs} from scratch, {titles[group]} ({taus.subnets}): "
            f"inherited {score} {_interval_text(taus.inherited)}, parameters {_interval_text(taus.params)}, "
            f"the lead of the first {_interval_text(taus.lead)}"
        )
    if (gap := validation.gap) is not None:
        parts = [
            f"{scale.difference(part.value, sign='+')} ± {scale.difference(part.standard_error)}{scale.points}"
            for part in (gap.inherited, gap.retrained)
        ]
        lines.append(
            f"champion minus best random candidate of the search: {parts[0]} with inherited weights, {parts[1]} retrained "
            f"(± one standard error from {validation.search_images:,} images; another training differs as well)"
        )
    if failed := validation.failed:
        reasons = "; ".join(f"{arch}: {reason}" for arch, reason in failed.items())
        lines.append(f"{len(failed)} subnets are left out ({reasons})")
    return lines


RANKINGS = {
    "inherited": "inherited {score}",
    "fine-tuned": "{score} after one epoch from inherited weights",
    "params": "parameters",
    "macs": "MACs",
}
"""What ranks subnets, in words; a proxy has its own name."""


def ranking_rows(validation: Validation) -> list[tuple[str, str, str]]:
    """Each ranking with its tau and, but for that of parameters, its partial tau given these; with 95 % intervals."""
    rows: list[tuple[str, str, str]] = []
    for name, found in validation.rankings.items():
        words = RANKINGS.get(name, f"proxy {name}").format(score=validation.score_name)
        rows.append((words, _interval_text(found.tau), "" if name == "params" else _interval_text(found.partial)))
    return rows


def _noise_line(noise: Noise, scale: Scale) -> str:
    """What chance of training leaves of any ranking."""
    line = (
        f"two trainings of the same subnet ({noise.repeated} were trained twice) have a standard deviation of "
        f"{scale.difference(noise.noise)}{scale.points}, the subnets themselves one of {scale.difference(noise.spread)}"
        f"{scale.points}"
    )
    if noise.between is not None:
        line += f"; tau between the two trainings is {_interval_text(noise.between)}"
    return f"{line}; with such noise a perfect ranking is expected to have a tau of {_interval_text(noise.highest)}"


def _regret_line(validation: Validation, regret: Regret) -> str:
    """How far the best subnet is above the champion, and how much of that is luck."""
    scale = validation.scale
    champion = next((subnet.id for subnet in validation.subnets if subnet.role == "champion"), None)
    if regret.best == champion:
        line = "retrained, the champion has the highest score of all"
    else:
        ahead = f"{scale.difference(regret.measured)}{scale.points}"
        line = f"retrained, the best subnet ({regret.best}) is {ahead} above the champion"
    if (true := regret.true) is not None:
        line += (
            f"; the best of them is also a lucky one: the champion's true regret is {scale.difference(true.value)} "
            f"({scale.difference(true.low)} to {scale.difference(true.high)}){scale.points}"
        )
    return line


def _interval_text(interval: Interval | None) -> str:
    if interval is None:
        return "undefined, as all values of one side are equal"
    return f"{interval.value:.2f} (95 %: {interval.low:.2f} to {interval.high:.2f})"
