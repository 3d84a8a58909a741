"""Stochastic depth: off where it must be, and without bias where it is on."""

import torch

from raysearch.nn.drop_path import drop_path


def test_off_in_evaluation_and_at_rate_zero() -> None:
    x = torch.randn(4, 3, 2)
    assert drop_path(x, 0.5, False) is x
    assert drop_path(x, 0.0, True) is x


def test_whole_images_are_left_out_and_the_mean_stays() -> None:
    torch.manual_seed(0)
    dropped = drop_path(torch.ones(10_000, 3, 2), 0.25, True)
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(4 / 3).item()}
    assert (dropped == dropped[:, :1, :1]).all()
    assert abs(dropped.mean().item() - 1) < 0.03
