"""Distillation losses: their closed forms, their gradients, and where they are cut."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from raysearch.training.config import DistillConfig
from raysearch.training.distillation import (
    MOST,
    adaptive_alpha_divergence,
    alpha_divergence,
    distillation_loss,
    kl_divergence,
)


def logits(seed: int) -> Tensor:
    return torch.randn(7, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(student: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    q, p = student.softmax(1), teacher.softmax(1)
    return ((q * (p / q) ** alpha).sum(1) - 1) / (alpha * (alpha - 1))


@pytest.mark.parametrize("alpha", [-1.0, -0.5, 0.5, 2.0])
def test_value_and_gradient_are_those_of_the_definition(alpha: float) -> None:
    student, teacher = logits(0).requires_grad_(), logits(1)
    found, expected = alpha_divergence(student, teacher, alpha), by_definition(student, teacher, alpha)
    torch.testing.assert_close(found, expected)
    (gradient,), (wanted,) = (torch.autograd.grad(values.sum(), student) for values in (found, expected))
    torch.testing.assert_close(gradient, wanted)


def test_its_members_have_their_names() -> None:
    """Minus one is half of Pearson's chi-squared, 1 Kullback and Leibler's and the limit of others; none is negative."""
    student, teacher = logits(0), logits(1)
    q, p = student.softmax(1), teacher.softmax(1)
    torch.testing.assert_close(alpha_divergence(student, teacher, -1.0), ((q - p) ** 2 / p).sum(1) / 2)
    torch.testing.assert_close(alpha_divergence(student, teacher, 1.0), (p * (p / q).log()).sum(1))
    torch.testing.assert_close(alpha_divergence(student, teacher, 1 + 1e-5), kl_divergence(student, teacher), rtol=1e-3, atol=0)
    for alpha in (-1.0, 0.5, 1.0):
        assert (alpha_divergence(student, teacher, alpha) > 0).all()
        torch.testing.assert_close(alpha_divergence(teacher, teacher, alpha), torch.zeros(7, dtype=torch.float64))


@pytest.mark.parametrize("alpha", [-1.0, 0.5, 1.0, 2.0])
def test_of_two_normal_distributions_it_is_the_known_integral(alpha: float) -> None:
    """Densities on a fine grid as classes: of means one apart the integral has a closed form."""
    x = torch.linspace(-15, 15, 6_001, dtype=torch.float64)
    teacher, student = -((x - 0.5) ** 2) / 2, -((x + 0.5) ** 2) / 2
    known = 0.5 if alpha == 1 else (math.exp(alpha * (alpha - 1) / 2) - 1) / (alpha * (alpha - 1))
    assert alpha_divergence(student[None], teacher[None], alpha).item() == pytest.approx(known, rel=1e-6)


def test_the_adaptive_one_takes_the_greater_and_cuts_what_explodes() -> None:
    student = torch.tensor([[0.9, 0.1], [0.999, 0.001]], dtype=torch.float64).log()  # gives class 2 too much; too little
    teacher = torch.tensor([[0.98, 0.02], [0.7, 0.3]], dtype=torch.float64).log()
    low, high = (alpha_divergence(student, teacher, alpha, most=MOST) for alpha in (-1.0, 1.0))
    assert (low > high).tolist() == [True, False]
    assert torch.equal(adaptive_alpha_divergence(student, teacher), torch.stack((low[0], high[1])))
    sure, unsure = (torch.tensor([row], dtype=torch.float64) for row in ([5.0, 0.0, 0.0], [0.0, 10.0, 10.0]))
    sure.requires_grad_()
    (gradient,) = torch.autograd.grad(alpha_divergence(sure, unsure, -1.0, most=MOST).sum(), sure)
    assert gradient.abs().max() <= MOST
    (unbounded,) = torch.autograd.grad(alpha_divergence(sure, unsure, -1.0).sum(), sure)
    assert unbounded.abs().max() > 100


def test_temperature_softens_both_and_keeps_the_size_of_gradients() -> None:
    student, teacher = logits(4).float().requires_grad_(), logits(5).float()
    soft = distillation_loss(DistillConfig("largest", temperature=50.0), student, teacher)
    (gradient,) = torch.autograd.grad(soft, student)
    # Of very soft probabilities the loss is half the squared distance of centred logits over the classes (Hinton et al. 2015).
    centred = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    torch.testing.assert_close(gradient, centred.detach() / (5 * 7), rtol=0.1, atol=2e-3)


def test_hard_labels_are_the_best_classes_and_the_teacher_learns_nothing() -> None:
    student, teacher = logits(6).requires_grad_(), logits(7).requires_grad_()
    loss = distillation_loss(DistillConfig("largest", loss="hard"), student, teacher)
    expected = torch.nn.functional.cross_entropy(student.float(), teacher.argmax(1))
    torch.testing.assert_close(loss, expected)
    for kind in ("kl", "alpha", "hard"):
        distillation_loss(DistillConfig("largest", loss=kind), student, teacher).backward()  # pyright: ignore[reportArgumentType]
    assert teacher.grad is None
    assert student.grad is not None


def test_its_share_follows_from_who_teaches() -> None:
    assert DistillConfig("largest").share == 1
    assert DistillConfig("largest", weight=0.3).share == 0.3
