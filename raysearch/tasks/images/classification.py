"""Images to classes."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Classification:
    """Images to classes, judged by top-1 accuracy."""

    label_smoothing: float = 0.0
    score_name: str = "accuracy"

    def loss(self, outputs: Float[Tensor, "batch classes"], targets: Tensor) -> Float[Tensor, ""]:
        """Cross entropy. Probabilities (Mixup) carry their smoothing already; labels are smoothed here."""
        smoothing = 0.0 if targets.is_floating_point() else self.label_smoothing
        return F.cross_entropy(outputs.float(), targets, label_smoothing=smoothing)

    def judge(self, outputs: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> tuple[Tensor, Tensor]:
        """Top-1 correctness and cross entropy of each image."""
        outputs = outputs.float()
        return outputs.argmax(dim=1) == labels, F.cross_entropy(outputs, labels, reduction="none")
