"""What a network is trained for and judged by."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Task(Protocol):
    """What a network is trained for and judged by."""

    @property
    def score_name(self) -> str:
        """What the score is called, as ``accuracy``."""
        ...

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Training loss (a scalar); ``targets`` are labels or, after Mixup, class probabilities."""
        ...

    def judge(self, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Per item its outcome (bool or float32, higher is better) and its loss (float32), both of shape (batch,).

        The score is the mean of the outcomes: a share of right answers, or for an error the mean of its negative.
        """
        ...
