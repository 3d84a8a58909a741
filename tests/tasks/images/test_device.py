"""Images on a device: the same batches whether they stay there or come anew each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from raysearch.scoring.score import score
from raysearch.search.protocol import Result
from raysearch.space.cost import Cost
from raysearch.spaces.autoformer import AutoFormerArchitecture, AutoFormerSupernet
from raysearch.tasks.images import DIGITS, ArrayImages, CachedImages, Normalisation, open_cache, write_cache
from raysearch.tasks.images.classification import ImageClassification
from raysearch.tasks.images.device import DeviceImages, image_format, room_on

CPU = torch.device("cpu")
ROOM = 37 * 64


@pytest.fixture
def cached(tmp_path: Path) -> CachedImages:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 1, 8, 8), dtype=np.uint8)
    write_cache(ArrayImages(pixels, np.arange(37, dtype=np.int64) % 5), tmp_path / "images.arrow", DIGITS)
    return open_cache(tmp_path / "images.arrow")


def stays(images: DeviceImages) -> bool:
    """Whether two batches are the same memory: pixels that are kept, not staged for each."""
    one, two = images.batch(slice(0, 5))[0], images.batch(slice(0, 5))[0]
    return one.data_ptr() == two.data_ptr()


@pytest.mark.parametrize(("room_bytes", "resident"), [(ROOM, True), (ROOM - 1, False)])
def test_batches_are_the_cached_images_whether_or_not_they_stay(cached: CachedImages, room_bytes: int, resident: bool) -> None:
    images = DeviceImages(cached, CPU, room_bytes=room_bytes)
    assert (stays(images), len(images)) == (resident, 37)
    shuffled = np.random.default_rng(1).permutation(37)
    for chosen in (slice(0, 10), slice(30, 40), slice(0, 0), shuffled, shuffled[:5], np.array([3, 3, 0])):
        pixels, labels = images.batch(chosen)
        assert pixels.dtype == torch.uint8
        assert np.array_equal(pixels.numpy(), cached.images[chosen])
        assert np.array_equal(labels.numpy(), cached.labels[chosen])


def test_a_cpu_keeps_no_copy_of_what_is_mapped(cached: CachedImages) -> None:
    assert not stays(DeviceImages(cached, CPU, room_bytes=room_on(CPU)))


def test_scores_do_not_depend_on_where_the_images_are(cached: CachedImages) -> None:
    subnet = AutoFormerSupernet(
        img_size=8, patch_size=4, in_chans=1, num_classes=5, embed_dim=32, depth=1, num_heads=2, head_dim=16
    ).extract(AutoFormerArchitecture(embed_dim=32, num_heads=(2,), mlp_ratio=(2.0,)))
    results: list[Result] = []
    for room in (0, ROOM):
        result = score(
            subnet,
            DeviceImages(cached, CPU, room_bytes=room),
            task=ImageClassification(),
            cost=Cost(1, 1),
            normalise=Normalisation(DIGITS.mean, DIGITS.std),
            batch_size=10,
            precision="float32",
        )
        assert isinstance(result, Result)
        results.append(replace(result, seconds=0.0))
    assert results[0] == results[1]


def test_channels_last_changes_no_output() -> None:
    """Pixels and patch convolution as a GPU has them, computed here: only the order of the same numbers in memory differs."""
    assert image_format(torch.device("cuda")) == torch.channels_last
    assert image_format(CPU) == torch.contiguous_format
    sizes = {"img_size": 16, "patch_size": 4, "in_chans": 3, "num_classes": 5, "embed_dim": 32, "depth": 1, "num_heads": 2}
    subnet = AutoFormerSupernet(**sizes, head_dim=16).extract(
        AutoFormerArchitecture(embed_dim=32, num_heads=(2,), mlp_ratio=(2.0,))
    )
    pixels = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    normalise = Normalisation((0.5,) * 3, (0.25,) * 3)
    with torch.inference_mode():
        expected = subnet.eval()(normalise(pixels))
        images = normalise(pixels.to(memory_format=torch.channels_last))
        assert images.is_contiguous(memory_format=torch.channels_last)  # normalisation keeps it
        found = subnet.to(memory_format=torch.channels_last)(images)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
