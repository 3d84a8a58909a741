"""The last choice of a search: finalists once more, on images on which nobody was chosen.

These are the finalists split and, where the search scored its candidates on a part of the search split, the rest of that split.
The test split plays no part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from rich.console import Console

from raysearch.distributed.scoring import ScoringService
from raysearch.errors import UserError
from raysearch.jobs.progress import phase
from raysearch.recipes.recipe import FinalistsConfig
from raysearch.search import Candidate, Result, ranked
from raysearch.search.finalists import Verdict, best_of, cost_of, finalists, judged
from raysearch.search.informative import Sample
from raysearch.search.protocol import pack
from raysearch.space import Quantity
from raysearch.statistics import Outcomes, score_interval, selection_bias
from raysearch.store.summary import Finalist, Finalists


def choose(
    candidates: Sequence[Candidate],
    service: ScoringService,
    console: Console,
    *,
    splits: Sequence[str],
    config: FinalistsConfig,
    quantity: Quantity,
    samples: Mapping[str, Sample],
) -> tuple[Candidate, Finalists]:
    """The champion, and how it was chosen.

    One that is too slow when measured again is passed over where others are not. Without fresh images the best of the search is
    the champion, whatever is asked for, as nothing shows who equals it. Raises UserError when no candidate competes.

    Args:
        candidates: all of the search.
        service: scores them.
        console: shows progress.
        splits: names of the splits with fresh images.
        config: how many finalists, and whom to choose.
        quantity: what counts as cost.
        samples: images that candidates were scored on instead of all, by their ids.

    """
    cheaper = config.count // 2 if config.choose == "cheapest" and splits else 0
    chosen = finalists(candidates, count=config.count, cheaper=cheaper, quantity=quantity, samples=samples)
    if not splits:
        return chosen[0], _unjudged(chosen, quantity)
    fresh = _on_fresh_images(chosen, service, console, splits=splits)
    if not fresh:
        raise UserError("no finalist could be scored on the images that are kept for them; start again with --resume")
    entries = [(c, r) for c, r in fresh if r.competes] or fresh
    costs = [cost_of(c, quantity) for c, _ in entries]
    verdict = judged([_outcomes(r) for _, r in entries], costs)
    index = verdict.champion if config.choose == "cheapest" else best_of([r for _, r in entries])
    return entries[index][0], _record(candidates, entries, verdict, champion=index, choose=config.choose, quantity=quantity)


def _on_fresh_images(
    chosen: Sequence[Candidate], service: ScoringService, console: Console, *, splits: Sequence[str]
) -> list[tuple[Candidate, Result]]:
    """Those that could be scored on all splits, with one result over the items of all of them."""
    parts: dict[str, list[Result]] = {c.proposal.arch.id: [] for c in chosen}
    with phase(console, "finalists", len(chosen) * len(splits)) as shown:
        done = 0
        for split in splits:
            for arch, outcome in service.score(split, [c.proposal.arch for c in chosen]):
                done += 1
                shown.show(done, step="images that chose nobody")
                if isinstance(outcome, Result):
                    parts[arch.id].append(outcome)
    return [(c, _joined(found)) for c in chosen if len(found := parts[c.proposal.arch.id]) == len(splits)]


def _joined(parts: Sequence[Result]) -> Result:
    """One result over the items of several, in their order. Excluded when one of them is, with the least of the latencies."""
    by_item = np.concatenate([_outcomes(part) for part in parts])
    latencies = [part.latency_ms for part in parts if part.latency_ms is not None]
    return Result(
        score=float(by_item.mean(dtype=np.float64)),
        items_seen=len(by_item),
        params=parts[0].params,
        macs=parts[0].macs,
        outcomes=pack(by_item),
        kind=parts[0].kind,
        latency_ms=min(latencies, default=None),
        excluded=next((part.excluded for part in parts if part.excluded is not None), None),
    )


def _outcomes(result: Result) -> Outcomes:
    return result.by_item(result.items_seen)


def _record(
    candidates: Sequence[Candidate],
    entries: Sequence[tuple[Candidate, Result]],
    verdict: Verdict,
    *,
    champion: int,
    choose: Literal["cheapest", "best"],
    quantity: Quantity,
) -> Finalists:
    """How the choice came about."""
    ranks = _ranks(candidates)
    in_search = [c.result.score for c, _ in entries if c.result is not None]
    of_champion = entries[champion][1].score
    rows = [
        Finalist(
            id=candidate.proposal.arch.id,
            rank_in_search=ranks[candidate.proposal.index],
            score_in_search=score,
            score=result.score,
            behind_champion=of_champion - result.score,
            p_value=p_value,
            params=result.params,
            macs=result.macs,
            interval=score_interval(_outcomes(result)),
            beaten=beaten,
            latency_ms=result.latency_ms,
        )
        for (candidate, result), score, p_value, beaten in zip(
            entries, in_search, verdict.p_values, verdict.beaten, strict=True
        )
    ]
    outcomes = [_outcomes(result) for _, result in entries]
    bias = selection_bias(in_search, outcomes)
    searched = entries[0][0].result
    return Finalists(
        images=len(outcomes[0]),
        images_in_search=0 if searched is None else searched.items_seen,
        selection_bias=None if bias is None else bias.value,
        beaten=sum(verdict.beaten),
        others=len(rows) - 1,
        rows=rows,
        best=rows[0].id,
        choose=choose,
        quantity=quantity,
        bias_interval=bias,
    )


def _unjudged(chosen: Sequence[Candidate], quantity: Quantity) -> Finalists:
    """The best of a search that keeps no images for them."""
    results = [(c, c.result) for c in chosen if c.result is not None]
    best = results[0][1]
    rows = [
        Finalist(
            id=c.proposal.arch.id,
            rank_in_search=rank,
            score_in_search=result.score,
            score=result.score,
            behind_champion=best.score - result.score,
            p_value=1.0,
            params=result.params,
            macs=result.macs,
            latency_ms=result.latency_ms,
        )
        for rank, (c, result) in enumerate(results, start=1)
    ]
    return Finalists(
        images=0,
        images_in_search=best.items_seen,
        selection_bias=None,
        beaten=0,
        others=len(rows) - 1,
        rows=rows,
        best=rows[0].id,
        choose="best",
        quantity=quantity,
    )


def _ranks(candidates: Sequence[Candidate]) -> dict[int, int]:
    """Place in the search, from 1, by place in the order asked."""
    return {c.proposal.index: rank for rank, c in enumerate(ranked(candidates), start=1)}
