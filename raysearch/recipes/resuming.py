"""Which settings of a search may change when it is resumed."""

from __future__ import annotations

ANYWHERE = frozenset(
    (
        *("evaluators.batch_size", "evaluators.cpus", "evaluators.compile", "evaluators.max_evaluators"),
        *("evaluators.deadline.medians", "evaluators.deadline.minutes"),
        *("train.workers", "train.loader_workers", "train.max_failures", "train.max_skipped_steps"),
        *("train.compile", "train.micro_batch", "train.save_epochs", "train.save_minutes", "dataset.stream"),
        *(f"{work}.nodes.{name}" for work in ("train", "evaluators") for name in ("most", "offer", "wait", "otherwise")),
        *("report.register", "report.baseline_epochs", "baselines"),
    )
)
"""How the work is done, on machines that may be others now, and what stands beside the results: these depend on it by rounding,
or not at all."""

WHILE_TRAINING = frozenset(f"train.{name}" for name in ("lr", "min_lr", "warmup_lr", "warmup_epochs", "clip_grad"))
"""What helps a training that diverged; its last good epoch goes on with it."""


def may_change(*, trained: bool) -> frozenset[str]:
    """The settings that a resumed search may have other than it was started with; all others make it another search.

    ``trained``: its supernet is trained, so that a setting of its training would state what is not so.
    """
    return ANYWHERE if trained else ANYWHERE | WHILE_TRAINING
