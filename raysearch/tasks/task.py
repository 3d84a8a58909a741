"""What a network is trained for and judged by."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from raysearch.search.protocol import Direction


class Task(Protocol):
    """What a network is trained for and judged by."""

    @property
    def score_name(self) -> str:
        """What the score is called, as ``accuracy``."""
        ...

    @property
    def direction(self) -> Direction:
        """Whether a higher or a lower score is better."""
        ...

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Training loss (a scalar); ``targets`` are labels or, after Mixup, class probabilities."""
        ...

    def judge(self, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Per image: correct or not (bool) and the loss (float32), both of shape (batch,)."""
        ...

    def prepare(self, subnet: nn.Module, calibration: Tensor) -> nn.Module:
        """The subnet made ready for scoring, as by re-estimated BatchNorm statistics from calibration images."""
        ...
