"""From a configuration to splits: the known data sets and folders of one's own. Nothing is downloaded."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from raysearch.errors import UserError
from raysearch.tasks.images.config import DataConfig
from raysearch.tasks.images.folders import check_images, is_image, list_images, subfolders
from raysearch.tasks.images.images import ArrayImages, FolderImages, ImageSet, Mode
from raysearch.tasks.images.splits import cut
from raysearch.tasks.task import Splits

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""


def load_splits(config: DataConfig, *, expected_digest: str | None = None) -> Splits:
    """The data set's splits: a function of ``config`` and the files, on every machine.

    Args:
        config: which images, and how many in each part.
        expected_digest: digest of the splits that the run started with. The images of a folder are then not decoded
            again for checking, and other images than those are an error.

    Raises:
        UserError: for missing files, classes that are absent or too small, unreadable images (all images of a folder of one's
            own are read once) and images that are not those of ``expected_digest``; names the file or folder.

    """
    if config.dataset == "digits":
        splits = _digits(config)
    elif config.dataset == "fashion-mnist":
        splits = _fashion_mnist(config)
    elif config.dataset == "imagenet":
        splits = _imagenet(config)
    else:
        splits = _own_images(config)
    if config.dataset == "images" and expected_digest is None:
        check_images(*(cast(FolderImages, images) for images in (splits.train, splits.search, splits.finalists, splits.test)))
    if expected_digest not in (None, splits.digest):
        raise UserError(
            f"the {config.dataset} images{f' in {config.root}' if config.root else ''} are not those that this run started "
            "with, or not divided in the same way: restore the files and settings, or start a new run"
        )
    return splits


# --- sets held in memory ----------------------------------------------------------------------------------------------


def _digits(config: DataConfig) -> Splits:
    # Imported here: scikit-learn takes seconds to import, which every process of a run would spend.
    from sklearn.datasets import load_digits

    digits = cast(Any, load_digits())  # a Bunch, or a pair when asked for one
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = _array_images(pixels, digits.target.astype(np.int64), config)
    classes = tuple(str(name) for name in digits.target_names)
    return Splits(**_cut(images, classes, config, test=config.test_images), classes=classes)


def _fashion_mnist(config: DataConfig) -> Splits:
    files = _fashion_mnist_files(config.root)
    from torchvision.datasets import FashionMNIST  # takes two seconds to import, for this data set only

    classes = tuple(FashionMNIST.classes)
    published = {part: _read_idx(files, part, classes=len(classes)) for part in ("train", "t10k")}
    images = _array_images(*published["train"], config)
    return Splits(**_cut(images, classes, config), test=_array_images(*published["t10k"], config), classes=classes)


def _fashion_mnist_files(root: Path | None) -> dict[str, Path]:
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


def _read_idx(files: dict[str, Path], part: str, *, classes: int) -> tuple[np.ndarray, np.ndarray]:
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


# --- folders ----------------------------------------------------------------------------------------------------------


def _root(config: DataConfig) -> Path:
    if config.root is None:
        raise UserError(f"the data set {config.dataset!r} needs --data DIR, the folder of its images")
    if not config.root.is_dir():
        raise UserError(f"--data is {config.root}, which is not a folder: give the folder of the images")
    return config.root


def _mode(config: DataConfig) -> Mode:
    return "L" if config.in_chans == 1 else "RGB"


def _classes(folder: Path) -> list[str]:
    classes = subfolders(folder)
    if len(classes) < 2:
        raise UserError(
            f"{folder} has {len(classes)} class folders: expected one folder of images for each of at least 2 classes"
        )
    return classes


def _check_same_classes(folder: Path, train: Path) -> None:
    for here, there in ((train, folder), (folder, train)):
        absent = sorted(set(subfolders(here)) - set(subfolders(there)))
        if absent:
            raise UserError(
                f"no folder {there / absent[0]}, but {here / absent[0]}: both need the same classes, add or remove one"
            )


def _imagenet(config: DataConfig) -> Splits:
    root, mode = _root(config), _mode(config)
    for name in ("train", "val"):
        if not (root / name).is_dir():
            raise UserError(f"no folder {root / name}: ImageNet is expected as train/<wnid>/*.JPEG and val/<wnid>/*.JPEG")
    classes = _classes(root / "train")
    _check_same_classes(root / "val", root / "train")
    train = list_images(root / "train", classes, mode=mode, at_least=2 + bool(config.finalist_images))
    test = list_images(root / "val", classes, mode=mode, at_least=1)
    return Splits(**_cut(train, classes, config), test=test, classes=tuple(classes))


def _own_images(config: DataConfig) -> Splits:
    """Either DIR/<class>/ or DIR/train/<class>/, the latter with val/ or test/ for the test, or both: val/ for the search.

    Images of val/ that are for the search are divided between search and finalists, in the ratio that their settings have.
    """
    root, mode = _root(config), _mode(config)
    source, val, test = root, None, None
    folders = subfolders(root)
    # A class may be called "train" as well; then the folder holds images, not folders.
    if "train" in folders and not any(is_image(file.name) for file in (root / "train").iterdir()):
        unknown = sorted(set(folders) - {"train", "val", "test"})
        if unknown:
            raise UserError(
                f"{root / unknown[0]} stands beside {root / 'train'}, where only val and test may: rename or move it"
            )
        source = root / "train"
        given = {name: root / name for name in ("val", "test") if name in folders}
        val, test = (given["val"], given["test"]) if len(given) == 2 else (None, *given.values(), None)[:2]

    classes = _classes(source)
    for folder in (val, test):
        if folder is not None:
            _check_same_classes(folder, source)
    chosen = 1 + bool(config.finalist_images)  # parts that choose networks
    at_least = 1 + (chosen if val is None else 0) + (test is None)
    images = list_images(source, classes, mode=mode, at_least=at_least)
    sets: dict[str, ImageSet] = {}
    if test is not None:
        sets["test"] = list_images(test, classes, mode=mode, at_least=1)
    if val is not None:
        ready = list_images(val, classes, mode=mode, at_least=chosen)
        sets |= {"train": images, **_halves(ready, classes, config)}
    else:
        sets |= _cut(images, classes, config, test=config.test_images if test is None else 0)
    return Splits(**sets, classes=tuple(classes))


# --- division ---------------------------------------------------------------------------------------------------------


def _cut(images: ImageSet, classes: Sequence[str], config: DataConfig, *, test: int | float = 0) -> dict[str, ImageSet]:
    """The parts that are drawn from ``images``: test images where some are asked for, search, finalists and the rest.

    Finalists come last: without them, and with the seed of its search, the division is that of 0.1.0.
    """
    held_out = {"test": test, "search": config.search_images, "finalists": config.finalist_images}
    parts = cut(images.labels, classes, seed=config.split_seed, held_out={p: n for p, n in held_out.items() if n})
    drawn = {part: images.subset(indices) for part, indices in parts.items()}
    return drawn if config.finalist_images else {**drawn, "finalists": images.subset([])}


def _halves(images: ImageSet, classes: Sequence[str], config: DataConfig) -> dict[str, ImageSet]:
    """Given validation images, divided between search and finalists."""
    search, finalists = (
        amount * len(images) if isinstance(amount, float) else amount
        for amount in (config.search_images, config.finalist_images)
    )
    if not finalists:
        return {"search": images, "finalists": images.subset([])}
    held_out = {"search": search / (search + finalists)}
    parts = cut(images.labels, classes, seed=config.split_seed, held_out=held_out, rest="finalists")
    return {part: images.subset(indices) for part, indices in parts.items()}
