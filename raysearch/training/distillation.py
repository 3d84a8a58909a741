"""Losses by which one network learns from another's logits."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from raysearch.training.config import DistillConfig

Logits = Float[Tensor, "batch classes"]

ALPHAS = (-1.0, 1.0)
"""Lower and upper alpha of the adaptive divergence, as AlphaNet sets them (Wang et al., ICML 2021)."""
MOST = 5.0
"""Greatest importance weight of it."""


def distillation_loss(config: DistillConfig, outputs: Logits, soft: Logits) -> Float[Tensor, ""]:
    """Mean over the batch of what ``outputs`` differ by from a teacher's logits ``soft``; no gradient reaches those.

    In float32, whatever the passes were computed in.
    """
    soft = soft.detach().float()
    outputs = outputs.float()
    if config.loss == "hard":
        return F.cross_entropy(outputs, soft.argmax(dim=1))
    student, teacher = (logits / config.temperature for logits in (outputs, soft))
    divergence = kl_divergence if config.loss == "kl" else adaptive_alpha_divergence
    # Gradients of softened probabilities shrink with the square of the temperature (Hinton et al. 2015, section 2).
    return divergence(student, teacher).mean() * config.temperature**2


def kl_divergence(student: Logits, teacher: Logits) -> Float[Tensor, " batch"]:
    """``sum p log(p / q)`` per item, of the teacher's probabilities p from the student's q."""
    log_q, log_p = student.log_softmax(dim=1), teacher.log_softmax(dim=1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)


def alpha_divergence(student: Logits, teacher: Logits, alpha: float, *, most: float = float("inf")) -> Float[Tensor, " batch"]:
    """Alpha-divergence of the teacher's probabilities p from the student's q per item.

    ``D = (sum q (p / q)^alpha - 1) / (alpha (alpha - 1))`` (Minka 2005; Wang et al. 2021), which for alpha 1 is the
    Kullback-Leibler divergence. Its gradient is ``-1 / alpha sum q w grad(log q)`` with the importance weights
    ``w = (p / q)^alpha``, which are unbounded where q is far above p for a negative alpha, or far below for one above 1: those
    above ``most`` count as ``most``, in value and gradient. For alpha 1, ``q w`` is p itself, and nothing is cut.

    Args:
        student: logits; gradients reach these alone.
        teacher: logits.
        alpha: neither 0 nor, but for 1 itself, near 1.
        most: greatest importance weight.

    """
    if alpha == 1:
        return kl_divergence(student, teacher)
    log_q, log_p = student.log_softmax(dim=1), teacher.detach().log_softmax(dim=1)
    fixed_q = log_q.detach().exp()
    weights = (alpha * (log_p - log_q.detach())).exp().clamp(max=most)
    value = ((fixed_q * weights).sum(dim=1) - 1) / (alpha * (alpha - 1))
    descent = -(fixed_q * weights * log_q).sum(dim=1) / alpha
    return value + descent - descent.detach()  # the value of one, the gradient of the other


def adaptive_alpha_divergence(student: Logits, teacher: Logits) -> Float[Tensor, " batch"]:
    """The greater of the divergences of :data:`ALPHAS` for each item (Wang et al. 2021).

    A negative alpha weighs classes of which the student is surer than the teacher, alpha 1 those of which it is less sure:
    learning from the greater leaves neither be. Importance weights are at most :data:`MOST`.
    """
    low, high = (alpha_divergence(student, teacher, alpha, most=MOST) for alpha in ALPHAS)
    return torch.maximum(low, high)
