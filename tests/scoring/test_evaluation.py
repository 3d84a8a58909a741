"""Scores: what a network earns on cached images, whatever the batch size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raysearch.nn.precision import Precision
from raysearch.scoring.score import score
from raysearch.search.informative import Sample
from raysearch.search.protocol import Failure, Result, pack
from raysearch.search.racing import Part, Race
from raysearch.space.cost import Cost
from raysearch.tasks.images import DIGITS, ArrayImages, CachedImages, Normalisation, open_cache, write_cache
from raysearch.tasks.images.classification import ImageClassification
from raysearch.tasks.images.device import DeviceImages
from raysearch.tasks.task import Task

NORMALISE = Normalisation(DIGITS.mean, DIGITS.std)


@pytest.fixture
def cached(tmp_path: Path) -> CachedImages:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 1, 8, 8), dtype=np.uint8)
    write_cache(ArrayImages(pixels, np.arange(37, dtype=np.int64) % 5), tmp_path / "images.arrow", DIGITS)
    return open_cache(tmp_path / "images.arrow")


class Linear(nn.Module):
    """Five classes from the pixels; ``scale`` makes its outputs as large as one likes."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(scale * torch.randn(64, 5, generator=generator))
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        return self.dropout(images.flatten(1)) @ self.weight


def scored(
    network: nn.Module,
    cached: CachedImages,
    *,
    batch_size: int = 10,
    precision: Precision = "auto",
    part: Part | None = None,
    task: Task | None = None,
) -> Result | Failure:
    return score(
        network,
        DeviceImages(cached, torch.device("cpu"), room_bytes=0),
        task=task or ImageClassification(),
        cost=Cost(params=320, macs=321),
        normalise=NORMALISE,
        batch_size=batch_size,
        precision=precision,
        part=part,
    )


@pytest.mark.parametrize("batch_size", [1, 10, 37, 1000])
def test_a_score_is_top1_accuracy_over_all_images(cached: CachedImages, batch_size: int) -> None:
    outputs = NORMALISE(torch.tensor(cached.images)).flatten(1) @ Linear().weight
    hits = (outputs.argmax(dim=1) == torch.tensor(cached.labels)).numpy()
    result = scored(Linear().train(), cached, batch_size=batch_size)
    assert isinstance(result, Result)
    assert result.score == hits.mean()
    assert result.items_seen == 37
    assert np.array_equal(by_item(result), hits)
    assert result.loss == pytest.approx(F.cross_entropy(outputs, torch.tensor(cached.labels)).item(), rel=1e-6)
    assert (result.params, result.macs) == (320, 321)


def test_bfloat16_scores_too(cached: CachedImages) -> None:
    exact, rounded = scored(Linear(), cached, precision="float32"), scored(Linear(), cached, precision="bfloat16")
    assert isinstance(exact, Result)
    assert isinstance(rounded, Result)
    assert exact.loss != rounded.loss
    assert rounded.loss == pytest.approx(exact.loss, rel=0.02)
    auto = scored(Linear(), cached)
    assert isinstance(auto, Result)
    assert auto.loss == exact.loss  # on a CPU


def test_outputs_that_are_not_finite_fail_the_candidate(cached: CachedImages) -> None:
    assert scored(Linear(scale=float("nan")), cached) == Failure("outputs are not finite")
    assert scored(Linear(scale=1e39), cached) == Failure("outputs are not finite")


def test_the_training_loss_smooths_labels_once() -> None:
    """Mixup's targets carry their smoothing already."""
    task, outputs, labels = ImageClassification(), torch.randn(6, 5), torch.arange(6) % 5
    smooth = F.one_hot(labels, 5) * 0.9 + 0.1 / 5
    assert task.loss(outputs, labels, label_smoothing=0.1) == pytest.approx(
        F.cross_entropy(outputs, labels, label_smoothing=0.1).item()
    )
    assert task.loss(outputs, smooth, label_smoothing=0.1) == pytest.approx(
        task.loss(outputs, labels, label_smoothing=0.1).item()
    )


def by_item(result: Result | Failure) -> np.ndarray:
    assert isinstance(result, Result)
    return result.by_item(37)


@pytest.mark.parametrize(("block", "batch_size"), [(5, 10), (8, 3), (100, 10)])
def test_a_candidate_that_stays_in_the_race_has_its_full_result(cached: CachedImages, block: int, batch_size: int) -> None:
    """Against an incumbent with the same images right."""
    full = scored(Linear(), cached)
    assert isinstance(full, Result)
    raced = scored(
        Linear(), cached, batch_size=batch_size, part=Race("i", "0", error=0.02, block=block, outcomes=full.outcomes)
    )
    assert isinstance(raced, Result)
    assert raced.loss == pytest.approx(full.loss, rel=1e-6)
    assert replace(raced, loss=full.loss, seconds=full.seconds) == full


def test_a_candidate_out_of_the_race_keeps_what_it_has_seen(cached: CachedImages) -> None:
    """Against an incumbent that has everything right: out as soon as it has an image wrong, at the next look."""
    full = by_item(scored(Linear(), cached))
    race = Race("i", "0", error=0.0, block=5, outcomes=pack(np.ones(37, bool)))
    raced = scored(Linear(), cached, part=race)
    assert isinstance(raced, Result)
    assert raced.excluded == "raced"
    order = race.order(37)
    first_wrong = int(np.argmin(full[order])) + 1
    assert raced.items_seen == 5 * -(-first_wrong // 5) < 37
    seen = order[: raced.items_seen]
    assert raced.score == full[seen].mean()
    assert np.array_equal(by_item(raced)[seen], full[seen])
    assert by_item(raced).sum() == full[seen].sum()


@pytest.mark.parametrize("batch_size", [4, 100])
def test_a_candidate_of_a_sample_sees_its_images_alone(cached: CachedImages, batch_size: int) -> None:
    full = scored(Linear(), cached)
    pilots = [by_item(scored(Linear(scale), cached)) for scale in (1.0, -1.0)]
    sample = Sample.draw(pilots, size=15, stream="0")
    result = scored(Linear(), cached, batch_size=batch_size, part=sample)
    assert isinstance(result, Result)
    assert (result.items_seen, result.sample, result.competes, result.partial) == (len(sample), sample.id, True, True)
    assert len(sample) < 37
    whole = by_item(full)
    assert (by_item(result)[sample.index] == whole[sample.index]).all()
    assert not np.delete(by_item(result), sample.index).any()
    assert result.score == pytest.approx(sample.score(whole[sample.index]))
    raced = scored(Linear(), cached, part=Race("a", "0/a/b", error=0.0, block=5, outcomes=pack(whole), sample=sample))
    assert isinstance(raced, Result)
    assert (raced.score, raced.outcomes, raced.excluded) == (pytest.approx(result.score), result.outcomes, None)


@dataclass(frozen=True)
class Distance:
    """A task of numbers: how near the first output comes to the label; an error is judged as its negative."""

    score_name: str = "negative distance"
    spoil: Callable[[Tensor], Tensor] = lambda distances: distances

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.judge(outputs, targets)[1].mean()

    def judge(self, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        away = (outputs[:, 0].float() - labels).abs()
        return self.spoil(-away), away**2


def distances(cached: CachedImages) -> np.ndarray:
    outputs = NORMALISE(torch.tensor(cached.images)).flatten(1) @ Linear().weight
    return -(outputs[:, 0] - torch.tensor(cached.labels)).abs().detach().numpy()


@pytest.mark.parametrize("batch_size", [1, 10, 37])
def test_a_score_of_numbers_is_their_mean(cached: CachedImages, batch_size: int) -> None:
    result, expected = scored(Linear(), cached, batch_size=batch_size, task=Distance()), distances(cached)
    assert isinstance(result, Result)
    assert result.kind == "float32"
    assert by_item(result) == pytest.approx(expected, rel=1e-5)
    assert result.score == by_item(result).astype(np.float64).mean()
    assert result.loss == pytest.approx((expected.astype(np.float64) ** 2).mean(), rel=1e-5)


def test_a_race_of_numbers_keeps_what_was_seen(cached: CachedImages) -> None:
    """Against an incumbent whose distances are all a half, more and less."""
    full, outcomes = scored(Linear(), cached, task=Distance()), distances(cached)
    level = Race("i", "0", error=0.05, block=5, kind="float32", outcomes=pack(outcomes))
    stays = scored(Linear(), cached, part=level, task=Distance())
    assert isinstance(full, Result)
    assert isinstance(stays, Result)
    assert stays.competes
    assert by_item(stays) == pytest.approx(by_item(full), rel=1e-5)
    assert (stays.score, stays.loss) == pytest.approx((full.score, full.loss), rel=1e-6)
    ahead = replace(level, outcomes=pack(outcomes + np.float32(0.5)), block=12, error=0.4)
    raced = scored(Linear(), cached, part=ahead, task=Distance())
    assert isinstance(raced, Result)
    assert raced.excluded == "raced"
    assert raced.items_seen < 37
    seen = ahead.order(37)[: raced.items_seen]
    assert by_item(raced)[seen] == pytest.approx(outcomes[seen], rel=1e-5)
    assert np.isnan(by_item(raced)).sum() == 37 - raced.items_seen
    assert raced.score == pytest.approx(outcomes[seen].mean(), rel=1e-5)


@pytest.mark.parametrize("block", [5, 100])
def test_outcomes_that_are_not_finite_fail_the_candidate(cached: CachedImages, block: int) -> None:
    race = Race("i", "0", error=0.5, block=block, kind="float32", outcomes=pack(distances(cached)))
    spoiled = Distance(spoil=lambda outcomes: torch.where(outcomes < outcomes.median(), torch.inf, outcomes))
    for running in (None, race):
        assert scored(Linear(), cached, part=running, task=spoiled) == Failure("outcomes are not finite")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda outcomes: outcomes.double(),
            r"Distance.judge returned outcomes of shape \(10,\) and torch.float64 for 10 items",
        ),
        (lambda outcomes: outcomes[:, None], r"shape \(10, 1\) .* return shape \(10,\), bool or float32"),
        (lambda outcomes: outcomes.mean(), r"shape \(\)"),
    ],
)
def test_a_task_that_does_not_judge_item_by_item_is_named(
    cached: CachedImages, spoil: Callable[[Tensor], Tensor], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        scored(Linear(), cached, task=Distance(spoil=spoil))
