"""Data sets that torchvision knows by name, from its files; downloaded where they are missing and torchvision may.

Published test images are the test split; Flowers102's validation images choose networks. Small pictures of one size
(FashionMNIST, CIFAR) are held in memory in their own size, all others stay files.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from raysearch.errors import UserError
from raysearch.store.names import shown
from raysearch.store.private import cache_folder, in_use
from raysearch.tasks.images.arrays import fashion_mnist_files, read_idx, with_published_test
from raysearch.tasks.images.config import TORCHVISION, DataConfig
from raysearch.tasks.images.images import ArrayImages
from raysearch.tasks.images.listing import Found, Listing
from raysearch.tasks.images.reading import to_array
from raysearch.tasks.images.stores import Files
from raysearch.tasks.task import Splits


@dataclass(frozen=True, slots=True)
class _FileSet:
    """A set whose pictures are files."""

    parts: dict[str, str]
    """Ours, and what torchvision calls them."""
    samples: Callable[[Any], Sequence[tuple[Any, int]]]
    """Of an opened part: paths and classes."""
    layout: str
    """Where its files are expected below the root."""


_FILE_SETS = {
    "Flowers102": _FileSet(
        {"train": "train", "val": "val", "test": "test"},
        lambda opened: [*zip(opened._image_files, opened._labels, strict=True)],
        "flowers-102/ with jpg/, imagelabels.mat and setid.mat",
    ),
    "StanfordCars": _FileSet(
        {"train": "train", "test": "test"},
        lambda opened: opened._samples,
        "stanford_cars/ with devkit/, cars_train/, cars_test/ and cars_test_annos_withlabels.mat",
    ),
    "OxfordIIITPet": _FileSet(
        {"train": "trainval", "test": "test"},
        lambda opened: [*zip(opened._images, opened._labels, strict=True)],
        "oxford-iiit-pet/ with images/ and annotations/",
    ),
    "ImageNet": _FileSet(
        {"train": "train", "test": "val"},
        lambda opened: opened.samples,
        "the archives of ILSVRC 2012 (devkit, train, val), or what torchvision made of them: meta.bin, train/ and val/",
    ),
}
_LAYOUTS = {
    "FashionMNIST": "FashionMNIST/raw/ with the four files of the set",
    "CIFAR10": "cifar-10-batches-py/",
    "CIFAR100": "cifar-100-python/",
    **{name: kind.layout for name, kind in _FILE_SETS.items()},
}
_NEVER_FETCHED = ("StanfordCars", "ImageNet")
"""What torchvision does not download."""


def name_in_torchvision(config: DataConfig) -> str:
    """``CIFAR10`` of ``torchvision:CIFAR10``."""
    return config.dataset.removeprefix(TORCHVISION)


def folder_of_torchvision(config: DataConfig) -> Path:
    """The folder that torchvision looks in: the one given, or one of the cache folder."""
    return config.root or cache_folder("torchvision")


def is_held_in_memory(config: DataConfig) -> bool:
    """Whether the pictures of a set are small and of one size."""
    return name_in_torchvision(config) not in _FILE_SETS


def in_memory(config: DataConfig) -> Splits:
    """FashionMNIST, CIFAR10 or CIFAR100. Raises UserError where its files are missing and cannot be had."""
    name = name_in_torchvision(config)
    if name == "FashionMNIST" and (files := _fashion_files(config)) is not None:
        from torchvision.datasets import FashionMNIST

        classes = tuple(FashionMNIST.classes)
        train, test = (read_idx(files, part, classes=len(classes)) for part in ("train", "t10k"))
    else:
        opened = [_open(name, folder_of_torchvision(config), train=part) for part in (True, False)]
        train, test = ((np.asarray(part.data), np.asarray(part.targets, np.int64)) for part in opened)
        classes = tuple(map(str, opened[0].classes))
    return with_published_test(_in_channels(*train, config), _in_channels(*test, config), classes, config)


def _fashion_files(config: DataConfig) -> dict[str, Path] | None:
    """Files that are there already, as Debian installs them too."""
    try:
        return fashion_mnist_files(config.root)
    except UserError:
        return None


def _in_channels(pixels: np.ndarray, labels: np.ndarray, config: DataConfig) -> ArrayImages:
    """Images in their own size, brought to the channels that the network sees; pixels (n, height, width[, 3]), uint8."""
    if pixels.ndim == 3 and config.in_chans == 1:
        return ArrayImages(pixels[:, None], labels)
    return ArrayImages(np.stack([to_array(Image.fromarray(image).convert(config.mode)) for image in pixels]), labels)


def find_in_torchvision(config: DataConfig) -> Found:
    """Flowers102, StanfordCars, OxfordIIITPet or ImageNet. Raises UserError where its files are missing and cannot be had."""
    name, root = name_in_torchvision(config), folder_of_torchvision(config)
    kind, store = _FILE_SETS[name], Files(root)
    parts: dict[str, Listing] = {}
    classes: tuple[str, ...] = ()
    for part, called in kind.parts.items():
        opened = _open(name, root, split=called)
        samples = kind.samples(opened)
        listing = Listing(store, source=f"{shown(root)} ({name}, {called})")
        listing.names = [os.fsencode(os.path.relpath(path, root)) for path, _ in samples]
        listing.labels = [int(label) for _, label in samples]
        parts[part] = listing
        if part == "train":
            classes = _names(opened.classes)
    return Found(classes, parts)


def _names(classes: Sequence[Any]) -> tuple[str, ...]:
    """One name for each class: the first of several, or all of them where another class has the same first one."""
    several = [(each,) if isinstance(each, str) else tuple(each) for each in classes]
    firsts = Counter(names[0] for names in several)
    return tuple(names[0] if firsts[names[0]] == 1 else ", ".join(names) for names in several)


def _open(name: str, root: Path, **part: Any) -> Any:
    """Torchvision's own data set, one process at a time. Raises UserError where its files are missing and cannot be had."""
    from torchvision import datasets

    kind: Any = getattr(datasets, name)
    folder = cache_folder("downloads")
    with in_use(folder / f"{name}.lock") as held:
        opened, trouble = _tried(kind, root, part)
        if opened is None and name not in _NEVER_FETCHED:
            opened, trouble = _tried(kind, root, {**part, "download": True})
    os.close(held)
    if opened is not None:
        return opened
    why = "torchvision does not download it" if name in _NEVER_FETCHED else f"cannot be downloaded ({_brief(trouble)})"
    raise UserError(
        f"torchvision:{name} is not in {shown(root)}, and {why}: put there {_LAYOUTS[name]}, or name another folder with "
        "--dataset.root"
    )


def _tried(kind: Any, root: Path, part: dict[str, Any]) -> tuple[Any, Exception | None]:
    """The data set, or why it cannot be opened."""
    try:
        return kind(str(root), **part), None
    except _TROUBLE as error:
        return None, error


_TROUBLE = (RuntimeError, OSError, ValueError, KeyError, EOFError)
"""What torchvision raises for files that are missing or damaged, and for a network that is not there."""


def _brief(error: Exception | None) -> str:
    return " ".join(str(error).split())[:160]
