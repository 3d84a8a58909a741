"""The evaluation cache: what went in comes out, mapped and not copied, or not at all."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from raysearch.tasks.images import DIGITS, IMAGES, ArrayImages, DataConfig, load_splits, open_cache, write_cache


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return write_cache(load_splits(DIGITS).search, tmp_path / "search.arrow", DIGITS).path


def test_round_trip_of_arrays(digits: Path) -> None:
    search = load_splits(DIGITS).search
    assert isinstance(search, ArrayImages)
    cached = open_cache(digits)
    np.testing.assert_array_equal(cached.images, search.pixels)
    np.testing.assert_array_equal(cached.labels, search.labels)
    assert cached.info.shape == (397, 1, 8, 8)
    assert [p.name for p in digits.parent.iterdir()] == ["search.arrow"]


def test_files_are_resized_and_cropped(tmp_path: Path) -> None:
    # Left third black, the middle white, right third black: the centre crop of a 3:1 image is all white.
    stripes = np.zeros((30, 90, 3), np.uint8)
    stripes[:, 30:60] = 255
    for name in "ab":
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(4):
            stripes[0, 0] = i, ord(name), 0  # copies would stay in one split
            Image.fromarray(stripes).save(tmp_path / "images" / name / f"{i}.png")
    config = replace(IMAGES, root=tmp_path / "images", img_size=14)
    cached = open_cache(write_cache(load_splits(config).test, tmp_path / "test.arrow", config).path)
    assert cached.images.shape == (2, 3, 14, 14)
    assert cached.images.min() > 250
    assert sorted(cached.labels.tolist()) == [0, 1]


def test_opened_images_are_the_mapped_file(digits: Path) -> None:
    cached = open_cache(digits)
    address = cached.images.__array_interface__["data"][0]
    assert not cached.images.flags.owndata
    assert not cached.images.flags.writeable
    with Path("/proc/self/maps").open() as maps:
        ranges = [line.split() for line in maps if line.rstrip().endswith(str(digits))]
    assert any(int(low, 16) <= address < int(high, 16) for low, high in (fields[0].split("-") for fields in ranges))


@pytest.mark.parametrize("length", [0, 7, 500, -1, -500])
def test_cut_off_file_is_refused(digits: Path, length: int) -> None:
    digits.write_bytes(digits.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"search\.arrow is not a whole image cache"):
        open_cache(digits)


def test_changed_byte_is_noticed(digits: Path) -> None:
    content = bytearray(digits.read_bytes())
    content[len(content) // 2] ^= 1  # one pixel, by one
    digits.write_bytes(content)
    with pytest.raises(ValueError, match=r"search\.arrow is damaged"):
        open_cache(digits)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.arrow"
    with pytest.raises(ValueError, match=r"no image cache .*other\.arrow"):
        open_cache(path)
    path.write_text("not Arrow at all")
    with pytest.raises(ValueError, match=r"other\.arrow is not"):
        open_cache(path)
    table = pa.table({"image": [1, 2], "label": [0, 1]})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ValueError, match=r"other\.arrow is not"):
        open_cache(path)


class Flat:
    """Grey images made when asked for; counts how often."""

    def __init__(self, count: int, *, side: int = 64) -> None:
        self.labels = np.arange(count, dtype=np.int64) % 7
        self.side = side
        self.decoded = 0

    def digest(self) -> str:
        return f"{len(self)} flat images of {self.side}"

    def __len__(self) -> int:
        return len(self.labels)

    def decode(self, index: int) -> Image.Image:
        self.decoded += 1
        return Image.new("L", (self.side, self.side), index % 256)

    def subset(self, indices: Sequence[int] | np.ndarray) -> "Flat":
        raise NotImplementedError


def grey(side: int) -> DataConfig:
    return replace(DIGITS, img_size=side)


def test_images_are_decoded_once(tmp_path: Path) -> None:
    path, images = tmp_path / "flat.arrow", Flat(100)
    first = write_cache(images, path, grey(64))
    assert write_cache(images, path, grey(64)) == first
    assert images.decoded == 100
    path.write_bytes(path.read_bytes()[:-9])
    assert write_cache(images, path, grey(64)) == first
    assert images.decoded == 200
    assert write_cache(images, path, grey(32)).digest != first.digest


def test_writing_holds_a_few_images_at_a_time(tmp_path: Path) -> None:
    write_cache(Flat(1), tmp_path / "warm.arrow", grey(64))
    peaks: list[int] = []
    for count in (500, 4_000):
        tracemalloc.start()
        info = write_cache(Flat(count), tmp_path / f"{count}.arrow", grey(64))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert open_cache(info.path).images[-1, 0, 0, 0] == (count - 1) % 256
    pixels = 4_000 * 64 * 64
    assert peaks[1] < pixels / 8
    assert peaks[1] < 1.5 * peaks[0]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, write_classes) -> None:
    config = replace(IMAGES, root=write_classes(tmp_path / "images", {"a": 4, "b": 4}), img_size=16)
    path = tmp_path / "cache" / "test.arrow"
    images = load_splits(config).test
    before = write_cache(images, path, config)
    victim = images.path(1)
    victim.write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=victim.name):
        write_cache(images, path, replace(config, img_size=8))
    assert open_cache(path).info == before
    assert [p.name for p in path.parent.iterdir()] == ["test.arrow"]
