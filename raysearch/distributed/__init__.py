"""All that imports ray: the trainer, the evaluators and their pool, the searcher.

:class:`TuneSearcher` is for anybody's ``ray.tune.Tuner`` (docs/tune.md). It is imported when it is named: the processes of a
pool import this package too, and pay for nothing that they do not use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raysearch.distributed.searcher import TuneSearcher

__all__ = ["TuneSearcher"]


def __getattr__(name: str) -> Any:
    if name == "TuneSearcher":
        from raysearch.distributed.searcher import TuneSearcher

        return TuneSearcher
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
