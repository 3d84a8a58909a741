"""The last choice of a search: its best candidates once more, on all images of the search split, compared in pairs.

The best of hundreds of scores is partly the luckiest. Finalists that were scored on a part of the split meet images on which
nobody was chosen, and what their scores lose there is the selection bias. The paired test says which differences between them
are more than chance; the test split plays no part.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich.console import Console

from raysearch.distributed.scoring import ScoringService
from raysearch.errors import UserError
from raysearch.jobs.progress import phase
from raysearch.search import Candidate, Result, ranked
from raysearch.search.front import preference
from raysearch.statistics import paired_p_value
from raysearch.store.summary import Finalist, Finalists


def choose(
    candidates: Sequence[Candidate], service: ScoringService, console: Console, *, split: str, count: int
) -> tuple[Candidate, Finalists]:
    """The champion, and how it was chosen.

    The ``count`` best candidates of the search are scored on the images of ``split``; the order of these scores decides, by the
    rule that ranks candidates. One that is too slow when measured again is passed over where others are not. Raises UserError
    when no candidate competes.
    """
    best = ranked(candidates)[:count]
    if not best:
        raise UserError("no candidate competes, so there is no champion: the reasons stand in the candidate table")
    scored: list[tuple[Candidate, Result]] = []
    with phase(console, "finalists", len(best)) as shown:
        outcomes = service.score(split, [c.proposal.arch for c in best])
        for done, (candidate, (_, outcome)) in enumerate(zip(best, outcomes, strict=True), start=1):
            shown.show(done, step="all search images")
            if isinstance(outcome, Result):
                scored.append((candidate, outcome))
    if not scored:
        raise UserError("no finalist could be scored on all search images; start again with --resume")
    in_time = [(c, r) for c, r in scored if r.competes] or scored
    champion, of_champion = min(in_time, key=lambda entry: preference(entry[1], index=entry[0].proposal.index))
    right = of_champion.by_item(of_champion.items_seen)
    rows: list[Finalist] = []
    for rank, (candidate, result) in enumerate(scored, start=1):
        assert candidate.result is not None
        rows.append(
            Finalist(
                id=candidate.proposal.arch.id,
                rank_in_search=rank,
                score_in_search=candidate.result.score,
                score=result.score,
                behind_champion=of_champion.score - result.score,
                p_value=paired_p_value(right, result.by_item(result.items_seen)),
                params=result.params,
                macs=result.macs,
            )
        )
    others = [row for row in rows if row.id != champion.proposal.arch.id]
    return champion, Finalists(
        images=of_champion.items_seen,
        images_in_search=champion.result.items_seen if champion.result else 0,
        selection_bias=statistics.mean(row.score_in_search - row.score for row in rows),
        beaten=sum(row.p_value < 0.05 and row.behind_champion > 0 for row in others),
        others=len(others),
        rows=rows,
    )
