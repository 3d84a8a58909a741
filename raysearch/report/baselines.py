"""What stands beside the champion besides subnets of its space: rows of the closing table, and in words."""

from __future__ import annotations

from collections.abc import Sequence

from raysearch.report.tuning import difference_text
from raysearch.store.scores import Scale
from raysearch.store.summary import Baseline, Network


def baseline_rows(baselines: Sequence[Baseline]) -> dict[str, Network]:
    """Those that could be trained, by what the closing table calls them."""
    return {
        each.title: Network(
            id="",
            arch={},
            score=each.score,
            test_score=each.test,
            params=each.params,
            macs=each.macs,
            latency_ms=each.latency_ms,
            score_interval=each.score_interval,
            test_interval=each.test_interval,
        )
        for each in baselines
        if each.failed is None
    }


def baselines_line(baselines: Sequence[Baseline], scale: Scale) -> str | None:
    """How far the champion, as deployed, is above each of them on the test split; None where there is none."""
    parts = [part for each in baselines if (part := _beside(each, scale)) is not None]
    return f"champion, as deployed, on the test split: {'; '.join(parts)} (± 95 %, in pairs of items)" if parts else None


def _beside(each: Baseline, scale: Scale) -> str | None:
    epochs = f"{each.epochs} epoch{'s' * (each.epochs != 1)}"
    if each.failed is not None:
        return f"{each.name} could not be trained ({each.failed})"
    if each.lead is None:
        return None
    return f"{difference_text(each.lead, scale)} from {each.title} ({epochs})"
