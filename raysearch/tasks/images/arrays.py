"""Data sets held in memory in the size that the network sees: digits and Fashion-MNIST."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from raysearch.errors import UserError
from raysearch.tasks.images.config import DataConfig
from raysearch.tasks.images.images import ArrayImages
from raysearch.tasks.images.parts import cut_parts, without_judged
from raysearch.tasks.task import Splits

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""


def digits(config: DataConfig) -> Splits:
    """scikit-learn's handwritten digits."""
    # Imported here: scikit-learn takes seconds to import, which every process of a run would spend.
    from sklearn.datasets import load_digits

    digits = cast(Any, load_digits())  # a Bunch, or a pair when asked for one
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = _array_images(pixels, digits.target.astype(np.int64), config)
    classes = tuple(str(name) for name in digits.target_names)
    parts, notes = cut_parts(images, classes, config, test=config.test_images)
    return Splits(**parts, classes=classes, notes=notes)


def fashion_mnist(config: DataConfig) -> Splits:
    """Fashion-MNIST from torchvision's or Debian's files. Raises UserError where they are missing or damaged."""
    files = fashion_mnist_files(config.root)
    from torchvision.datasets import FashionMNIST  # takes two seconds to import, for this data set only

    classes = tuple(FashionMNIST.classes)
    published = {part: read_idx(files, part, classes=len(classes)) for part in ("train", "t10k")}
    train, test = (_array_images(*published[part], config) for part in ("train", "t10k"))
    return with_published_test(train, test, classes, config)


def with_published_test(train: ArrayImages, test: ArrayImages, classes: tuple[str, ...], config: DataConfig) -> Splits:
    """Splits of a set whose test images are given; pictures that are among these are left out of all others."""
    train, copies = without_judged(train, [test], config)
    parts, notes = cut_parts(train, classes, config)
    return Splits(**parts, test=test, classes=classes, notes=(*copies, *notes))


def fashion_mnist_files(root: Path | None) -> dict[str, Path]:
    """The four files, packed or not, of the first folder that has them all."""
    folders = [root / "FashionMNIST" / "raw", root] if root else [DEBIAN_FASHION_MNIST]
    stems = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    for folder in folders:
        found = {
            stem: path for stem in stems for path in (folder / f"{stem}.gz", folder / stem) if path.is_file()
        }  # an unpacked file comes last and wins
        if len(found) == len(stems):
            return found
    raise UserError(
        f"no Fashion-MNIST in {' or '.join(str(f) for f in folders)} (looked for {', '.join(stems)}, each also with .gz): "
        '`apt-get install dataset-fashion-mnist` on Debian, or `python -c "import torchvision; '
        "torchvision.datasets.FashionMNIST('DIR', download=True)\"` and give DIR as --data"
    )


def read_idx(files: dict[str, Path], part: str, *, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (uint8, n x height x width) and labels (int64, n) of one published part."""
    from torchvision.datasets.mnist import read_image_file, read_label_file  # see above

    loaded: list[np.ndarray] = []
    for kind, read in (("images-idx3-ubyte", read_image_file), ("labels-idx1-ubyte", read_label_file)):
        path = files[f"{part}-{kind}"]
        try:
            if path.suffix == ".gz":
                with tempfile.NamedTemporaryFile() as unpacked, gzip.open(path) as packed:
                    shutil.copyfileobj(packed, unpacked)
                    unpacked.flush()
                    loaded.append(read(unpacked.name).numpy())
            else:
                loaded.append(read(str(path)).numpy())
        # torchvision's reader asserts what it expects; a cut file ends early in gzip or in the reader.
        except (OSError, EOFError, zlib.error, AssertionError, ValueError, TypeError, RuntimeError, KeyError) as error:
            reason = f" ({error})" if str(error) else ""
            raise UserError(f"{path} is not a whole IDX file{reason}: fetch it again") from None
    pixels, labels = loaded
    if len(pixels) != len(labels) or (len(labels) and labels.max() >= classes):
        raise UserError(
            f"{files[f'{part}-labels-idx1-ubyte']} does not belong to {files[f'{part}-images-idx3-ubyte']}: fetch both again"
        )
    return pixels, labels


def _array_images(
    pixels: UInt8[np.ndarray, "n height width"], labels: Int64[np.ndarray, " n"], config: DataConfig
) -> ArrayImages:
    """Grey images in the size and number of channels that the network sees."""
    size = (config.img_size, config.img_size)
    if pixels.shape[1:] != size:
        method = Image.Resampling[config.interpolation.upper()]
        pixels = np.stack([np.asarray(Image.fromarray(image).resize(size, method)) for image in pixels])
    return ArrayImages(np.repeat(pixels[:, None], config.in_chans, axis=1), labels)
