"""A start from a zero-cost proxy: the best of random subnets by what one batch says of them before anything is trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from raysearch.scoring.proxies import PROXIES, proxy_best
from raysearch.search import SearchProblem
from raysearch.spaces.autoformer import AutoFormerArchitecture
from raysearch.statistics import kendall_intervals
from raysearch.tasks.images.config import DataConfig
from raysearch.tasks.images.images import ImageSet
from raysearch.tasks.images.transforms import Normalisation, evaluation_crop, to_array
from raysearch.training.config import TrainingConfig
from raysearch.training.supernets import build_supernet

IMAGES = 16
"""Training images of the one batch."""
DRAWS = 100
"""Random subnets that a proxy looks at: 80 s for AutoFormer-T on 2 cores, a second for small networks."""


class ProxyStart:
    """One proxy, on subnets with a supernet's fresh weights and on a batch of training images.

    Args:
        name: of :data:`~raysearch.scoring.proxies.PROXIES`.
        settings: constructor arguments of the supernet.
        train: how its weights are drawn.
        data: how images are seen.
        images: the training split, of which a few are read.
        seed: of weights, images and subnets.

    """

    def __init__(
        self, name: str, *, settings: dict[str, Any], train: TrainingConfig, data: DataConfig, images: ImageSet, seed: int
    ) -> None:
        self.name, self.seed = name, seed
        self.supernet = build_supernet(
            "autoformer", settings, weight_init=train.weight_init, pos_embed_std=train.pos_embed_std, seed=seed
        ).eval()
        chosen = np.random.default_rng(seed).permutation(len(images))[:IMAGES]
        crop = evaluation_crop(data)
        pixels = np.stack([to_array(crop(images.decode(int(index)))) for index in chosen])
        self.images = Normalisation(data.mean, data.std)(torch.from_numpy(pixels))
        self.labels = torch.from_numpy(np.asarray(images.labels)[chosen].copy())

    def best(self, problem: SearchProblem[AutoFormerArchitecture], *, count: int) -> tuple[AutoFormerArchitecture, ...]:
        """The ``count`` of :data:`DRAWS` random subnets that the proxy likes best, best first."""
        return proxy_best(
            problem,
            self.supernet,
            self.images,
            self.labels,
            proxy=PROXIES[self.name],
            count=min(count, DRAWS),
            draws=DRAWS,
            seed=self.seed,
        )

    def agreement(self, networks: list[dict[str, Any]]) -> dict[str, Any]:
        """Kendall tau of proxy and of parameter count with the scores of random subnets, at least 3, with 95 % intervals."""
        proxy = PROXIES[self.name]
        values = [proxy(self.supernet.extract(n["arch"]).eval(), self.images, self.labels) for n in networks]
        rankings = {"proxy": values, "params": [n["params"] for n in networks]}
        taus, _ = kendall_intervals(rankings, [n["score"] for n in networks], seed=self.seed)
        return {
            "name": self.name,
            "subnets": len(networks),
            **{which: None if tau is None else tau.to_dict() for which, tau in taus.items()},
        }


def proxy_line(agreement: dict[str, Any]) -> str:
    """What the search shows of the proxy that opened it."""

    def text(tau: dict[str, float] | None) -> str:
        return "none" if tau is None else f"{tau['value']:+.2f} ({tau['low']:+.2f} to {tau['high']:+.2f})"

    return (
        f"Kendall tau with the scores of {agreement['subnets']} random subnets: proxy {agreement['name']} "
        f"{text(agreement['proxy'])}, parameter count {text(agreement['params'])}"
    )
