"""Scores: what a network earns on cached images, whatever the batch size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raysearch.nn.precision import Precision
from raysearch.scoring.score import score
from raysearch.search.protocol import Failure, Result
from raysearch.search.racing import Race
from raysearch.space.cost import Cost
from raysearch.tasks.images import DIGITS, ArrayImages, CachedImages, Normalisation, open_cache, write_cache
from raysearch.tasks.images.classification import ImageClassification
from raysearch.tasks.images.device import DeviceImages

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
    race: Race | None = None,
) -> Result | Failure:
    return score(
        network,
        DeviceImages(cached, torch.device("cpu"), room_bytes=0),
        task=ImageClassification(),
        cost=Cost(params=320, macs=321),
        normalise=NORMALISE,
        batch_size=batch_size,
        precision=precision,
        race=race,
    )


@pytest.mark.parametrize("batch_size", [1, 10, 37, 1000])
def test_a_score_is_top1_accuracy_over_all_images(cached: CachedImages, batch_size: int) -> None:
    outputs = NORMALISE(torch.tensor(cached.images)).flatten(1) @ Linear().weight
    hits = (outputs.argmax(dim=1) == torch.tensor(cached.labels)).numpy()
    result = scored(Linear().train(), cached, batch_size=batch_size)
    assert isinstance(result, Result)
    assert result.score == hits.mean()
    assert result.items_seen == 37
    assert np.array_equal(np.unpackbits(np.frombuffer(result.outcomes, np.uint8))[:37], hits)
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


def bits(result: Result | Failure) -> np.ndarray:
    assert isinstance(result, Result)
    return np.unpackbits(np.frombuffer(result.outcomes, np.uint8), count=37).astype(bool)


@pytest.mark.parametrize(("block", "batch_size"), [(5, 10), (8, 3), (100, 10)])
def test_a_candidate_that_stays_in_the_race_has_its_full_result(cached: CachedImages, block: int, batch_size: int) -> None:
    """Against an incumbent with the same images right."""
    full = scored(Linear(), cached)
    assert isinstance(full, Result)
    raced = scored(
        Linear(), cached, batch_size=batch_size, race=Race("i", "0", error=0.02, block=block, outcomes=full.outcomes)
    )
    assert isinstance(raced, Result)
    assert raced.loss == pytest.approx(full.loss, rel=1e-6)
    assert replace(raced, loss=full.loss, seconds=full.seconds) == full


def test_a_candidate_out_of_the_race_keeps_what_it_has_seen(cached: CachedImages) -> None:
    """Against an incumbent that has everything right: out as soon as it has an image wrong, at the next look."""
    full = bits(scored(Linear(), cached))
    race = Race("i", "0", error=0.0, block=5, outcomes=np.packbits(np.ones(37, bool)).tobytes())
    raced = scored(Linear(), cached, race=race)
    assert isinstance(raced, Result)
    assert raced.excluded == "raced"
    order = race.order(37)
    first_wrong = int(np.argmin(full[order])) + 1
    assert raced.items_seen == 5 * -(-first_wrong // 5) < 37
    seen = order[: raced.items_seen]
    assert raced.score == full[seen].mean()
    assert np.array_equal(bits(raced)[seen], full[seen])
    assert bits(raced).sum() == full[seen].sum()
