"""A start from a zero-cost proxy: the best of random subnets by what one batch says of them before anything is trained."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raysearch.scoring.proxies import PROXIES, proxy_best
from raysearch.space import Architecture, SearchProblem
from raysearch.spaces import Family
from raysearch.statistics import kendall_intervals
from raysearch.store.summary import ProxyAgreement, Tau
from raysearch.tasks import Task
from raysearch.tasks.images.cache import open_cache
from raysearch.training.config import TrainingConfig
from raysearch.training.supernets import build_supernet

ITEMS = 16
"""Training items of the one batch."""
DRAWS = 100
"""Random subnets that a proxy looks at: 80 s for 6 M parameters and 224 px on 2 cores, a second for small networks."""


class ProxyStart:
    """One proxy, on subnets with a supernet's fresh weights and on a batch of training items.

    Args:
        name: of :data:`~raysearch.scoring.proxies.PROXIES`.
        family: of the supernet.
        settings: its constructor arguments.
        train: how its weights are drawn.
        task: how items become inputs, and the loss.
        items: the training split, of which a few are read.
        seed: of weights, items and subnets.

    """

    def __init__(
        self,
        name: str,
        *,
        family: Family[Any, Any],
        settings: Mapping[str, Any],
        train: TrainingConfig,
        task: Task,
        items: Any,
        seed: int,
    ) -> None:
        self.name, self.seed, self.loss = name, seed, task.loss
        self.supernet = build_supernet(
            family, settings, weight_init=train.weight_init, pos_embed_std=train.pos_embed_std, seed=seed
        ).eval()
        chosen = np.random.default_rng(seed).permutation(len(items))[:ITEMS]
        with tempfile.TemporaryDirectory(prefix="raysearch-") as folder:
            path = Path(folder) / "batch.arrow"
            task.write_cache(items.subset(chosen), path)
            cached = open_cache(path)
            self.inputs = task.normalise(torch.from_numpy(cached.images.copy()))
            self.targets = torch.from_numpy(cached.labels.copy())

    def best(self, problem: SearchProblem[Any], *, count: int) -> tuple[Architecture, ...]:
        """The ``count`` of :data:`DRAWS` random subnets that the proxy likes best, best first."""
        return proxy_best(
            problem,
            self.supernet,
            self.inputs,
            self.targets,
            proxy=PROXIES[self.name],
            loss=self.loss,
            count=min(count, DRAWS),
            draws=DRAWS,
            seed=self.seed,
        )

    def agreement(self, archs: Sequence[Architecture], scores: Sequence[float], params: Sequence[int]) -> ProxyAgreement:
        """Kendall tau of proxy and of parameter count with the scores of random subnets, at least 3, with 95 % intervals."""
        proxy = PROXIES[self.name]
        values = [proxy(self.supernet.extract(arch).eval(), self.inputs, self.targets, self.loss) for arch in archs]
        taus, _ = kendall_intervals({"proxy": values, "params": params}, scores)
        found = {name: None if tau is None else Tau(**tau.to_dict()) for name, tau in taus.items()}
        return ProxyAgreement(name=self.name, subnets=len(archs), **found)
