"""Small image folders and IDX files, written by the test that reads them."""

import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Writer = Callable[..., Path]


@pytest.fixture
def write_classes() -> Writer:
    """Write ``count`` random images per class to ``folder/<class>/<i><suffix>``."""

    def write(folder: Path, counts: dict[str, int], *, suffix: str = ".png", size: tuple[int, int] = (20, 16)) -> Path:
        rng = np.random.default_rng(zlib.crc32(f"{folder.name}{counts}".encode()))  # no picture is in two folders
        for name, count in counts.items():
            (folder / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / name / f"{i:04}{suffix}")
        return folder

    return write


@pytest.fixture
def write_fashion_mnist() -> Writer:
    """Write the four published files with ``train`` and ``test`` images per class, packed or not.

    Training image i is filled with i, test image i with 100 + i.
    """

    def write(folder: Path, *, packed: bool, train: int = 4, test: int = 2) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for part, per_class in (("train", train), ("t10k", test)):
            count = 10 * per_class
            labels = np.arange(count, dtype=np.uint8) % 10
            pixels = np.repeat(np.arange(count, dtype=np.uint8) + 100 * (part == "t10k"), 28 * 28).astype(np.uint8)
            files = {
                f"{part}-images-idx3-ubyte": struct.pack(">IIII", 0x803, count, 28, 28) + pixels.tobytes(),
                f"{part}-labels-idx1-ubyte": struct.pack(">II", 0x801, count) + labels.tobytes(),
            }
            for name, content in files.items():
                path = folder / (f"{name}.gz" if packed else name)
                path.write_bytes(gzip.compress(content) if packed else content)
        return folder

    return write
