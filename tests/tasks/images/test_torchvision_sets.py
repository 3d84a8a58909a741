"""Sets of torchvision's by name, from small files in the layout that torchvision expects."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torchvision import datasets

from raysearch.errors import UserError
from raysearch.tasks.images import (
    IMAGES,
    ArrayImages,
    AugmentConfig,
    DataConfig,
    EncodedImages,
    ImageClassification,
    load_splits,
    open_cache,
)
from raysearch.tasks.images.checking import check_data
from raysearch.tasks.images.reading import to_array
from raysearch.tasks.images.transforms import evaluation_crop
from raysearch.tasks.task import Splits

OWN = replace(IMAGES, search_images=0.2, finalist_images=0.1, test_images=0.2)
NOISE = np.random.default_rng(0)


def of(name: str, root: Path | None) -> DataConfig:
    return replace(OWN.reading(f"torchvision:{name}"), root=root)


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(NOISE.integers(0, 256, (10, 8, 3), dtype=np.uint8)).save(path)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, per_class: int) -> None:
    """Five or one training files and one of test images, with the checksums that torchvision then expects of them."""
    classes = [f"class {number}" for number in range(10)]
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    for listed in ("train_list", "test_list"):
        files: list[list[str]] = []
        for name, _ in getattr(kind, listed):
            labels = [*range(10)] * per_class
            entry = {
                "data": NOISE.integers(0, 256, (len(labels), 3072), dtype=np.uint8),
                "labels" if kind is datasets.CIFAR10 else "fine_labels": labels,
            }
            (folder / name).write_bytes(pickle.dumps(entry))
            files.append([name, md5(folder / name)])
        monkeypatch.setattr(kind, listed, files)
    meta = folder / kind.meta["filename"]
    meta.write_bytes(pickle.dumps({kind.meta["key"]: classes}))
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(meta)})


def counts(splits: Splits) -> list[int]:
    return [len(part) for part in (splits.train, splits.search, splits.finalists, splits.test)]


@pytest.mark.parametrize(("kind", "sizes"), [(datasets.CIFAR10, [140, 40, 20, 40]), (datasets.CIFAR100, [20, 10, 10, 40])])
def test_cifar_is_held_in_its_own_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, sizes: list[int]) -> None:
    write_cifar(tmp_path, monkeypatch, kind, per_class=4)
    splits = load_splits(of(kind.__name__, tmp_path))
    assert counts(splits) == sizes
    assert splits.classes == tuple(f"class {number}" for number in range(10))
    assert isinstance(splits.train, ArrayImages)
    assert splits.train.pixels.shape[1:] == (3, 32, 32)
    stored = datasets.cifar.CIFAR10 if kind is datasets.CIFAR10 else datasets.cifar.CIFAR100
    published, label = stored(str(tmp_path), train=False)[7]
    assert np.array_equal(splits.test.pixels[7], to_array(published))
    assert splits.test.labels[7] == label


@pytest.mark.parametrize("size", [32, 48])
def test_small_pictures_become_what_the_network_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Resized where that is asked for, when they are scored on and when they teach; the recipe takes them as they are."""
    write_cifar(tmp_path, monkeypatch, datasets.CIFAR100, per_class=4)
    task = ImageClassification(replace(of("CIFAR100", tmp_path), img_size=size, crop_pct=1.0), AugmentConfig(hflip=0.5))
    splits = task.splits()
    task.write_cache(splits.test, tmp_path / "test.arrow")
    seen = open_cache(tmp_path / "test.arrow").images
    assert seen.shape == (40, 3, size, size)
    assert np.array_equal(seen[5], to_array(evaluation_crop(task.dataset)(splits.test.decode(5))))
    images, labels = next(task.batches(splits.train, batch_size=8, seed=0).epoch(0))
    assert images.shape == (8, 3, size, size)
    assert labels.dtype == torch.int64
    fitted = ImageClassification(of("CIFAR100", tmp_path)).fitted(splits, accelerated=False, given=())
    assert (fitted.dataset.img_size, fitted.dataset.crop_pct) == (32, 1.0)
    grey = load_splits(replace(task.dataset, in_chans=1, mean=(0.5,), std=(0.5,)))
    assert grey.test.decode(0).mode == "L"


def test_fashion_mnist_by_its_name_in_torchvision(tmp_path: Path, write_fashion_mnist: Callable[..., Path]) -> None:
    write_fashion_mnist(tmp_path / "FashionMNIST" / "raw", packed=False)
    config = replace(of("FashionMNIST", tmp_path), search_images=10, finalist_images=10)
    splits = load_splits(config)
    assert counts(splits) == [20, 10, 10, 20]
    assert splits.classes == tuple(datasets.FashionMNIST.classes)
    assert splits.train.decode(0).mode == "RGB"
    assert splits.test.pixels[:, 2, 5, 5].tolist() == list(range(100, 120))
    checked = check_data(config, on_total=lambda total: None, on_picture=lambda: None)
    assert checked.facts == ("a search would divide them into train 20, search 10, finalists 10, test 20",)
    assert checked.findings == ()


def write_flowers(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four pictures of each of the 102 classes: one to train, two to validate, one to test."""
    base = root / "flowers-102"
    for number in range(1, 409):
        picture(base / "jpg" / f"image_{number:05}.jpg")
    labels = np.arange(408) % 102 + 1
    ids = np.arange(1, 409)
    scipy.io.savemat(base / "imagelabels.mat", {"labels": labels})
    scipy.io.savemat(base / "setid.mat", {"trnid": ids[:102], "valid": ids[102:306], "tstid": ids[306:]})
    files = {**datasets.Flowers102._file_dict}
    files["label"], files["setid"] = ((name, md5(base / name)) for name in ("imagelabels.mat", "setid.mat"))
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", files)


def write_cars(root: Path, _: pytest.MonkeyPatch) -> None:
    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    scipy.io.savemat(base / "devkit" / "cars_meta.mat", {"class_names": np.array(["Audi A5", "BMW i3"], dtype=object)})
    kind = [("class", "u1"), ("fname", "O")]
    for folder, table in (("cars_train", base / "devkit" / "cars_train_annos.mat"), ("cars_test", base / _CARS_OF_TEST)):
        rows = np.array([(i % 2 + 1, f"{i:05}.jpg") for i in range(12)], kind)
        for row in rows:
            picture(base / folder / row["fname"])
        scipy.io.savemat(table, {"annotations": rows})


_CARS_OF_TEST = "cars_test_annos_withlabels.mat"


def write_pets(root: Path, _: pytest.MonkeyPatch) -> None:
    base = root / "oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    for part, start in (("trainval", 0), ("test", 50)):
        names = [(name, start + i, label) for label, name in ((1, "Abyssinian"), (2, "american_bulldog")) for i in range(6)]
        for name, number, _label in names:
            picture(base / "images" / f"{name}_{number}.jpg")
        lines = [f"{name}_{number} {label} 1 1" for name, number, label in names]
        (base / "annotations" / f"{part}.txt").write_text("\n".join(lines) + "\n")


def write_imagenet(root: Path, _: pytest.MonkeyPatch) -> None:
    names = {"n02012849": ("crane",), "n03126707": ("crane", "hoist"), "n01440764": ("tench", "Tinca tinca")}
    names["n02012849"] = ("crane", "wading bird")
    for part in ("train", "val"):
        for wnid in names:
            for number in range(6):
                picture(root / part / wnid / f"{wnid}_{number}.JPEG")
    torch.save((names, []), root / "meta.bin")


@pytest.mark.parametrize(
    ("name", "write", "sizes", "classes"),
    [
        ("Flowers102", write_flowers, [102, 102, 102, 102], datasets.Flowers102.classes),
        ("StanfordCars", write_cars, [8, 2, 2, 12], ["Audi A5", "BMW i3"]),
        ("OxfordIIITPet", write_pets, [8, 2, 2, 12], ["Abyssinian", "American Bulldog"]),
        ("ImageNet", write_imagenet, [12, 3, 3, 18], ["tench", "crane, wading bird", "crane, hoist"]),
    ],
)
def test_pictures_are_read_from_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, write: Callable[..., None], sizes: list[int], classes: list[str]
) -> None:
    """In torchvision's parts and order of classes."""
    write(tmp_path / "sets", monkeypatch)
    config = replace(of(name, tmp_path / "sets"), search_images=0.15, finalist_images=0.15)
    splits = load_splits(config)
    assert counts(splits) == sizes
    assert splits.classes == tuple(classes)
    assert isinstance(splits.test, EncodedImages)
    called = {"ImageNet": "val"}.get(name, "test")
    published = {Path(path): label for path, label in _samples(name, tmp_path / "sets", called)}
    mine = {splits.test.path(i): int(splits.test.labels[i]) for i in range(len(splits.test))}
    assert mine == published
    assert np.asarray(splits.test.decode(0)).shape == (10, 8, 3)
    shutil.move(tmp_path / "sets", tmp_path / "away")
    with pytest.raises(UserError, match=r"cannot be read|is not in"):
        load_splits(config, expected_digest=splits.digest)


def _samples(name: str, root: Path, part: str) -> list[tuple[str, int]]:
    opened: Any = getattr(datasets, name)(str(root), split=part)
    if name == "StanfordCars":
        return opened._samples
    if name == "ImageNet":
        return opened.samples
    return [*zip(opened._images if name == "OxfordIIITPet" else opened._image_files, opened._labels, strict=True)]


def test_what_is_missing_and_cannot_be_downloaded_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:1/cifar-10-python.tar.gz")

    def refused(name: str) -> str:
        with pytest.raises(UserError) as error:
            load_splits(of(name, tmp_path))
        assert "\n" not in str(error.value)
        return str(error.value)

    message = refused("CIFAR10")
    assert f"torchvision:CIFAR10 is not in {tmp_path}, and cannot be downloaded (" in message
    assert "put there cifar-10-batches-py/, or name another folder with --dataset.root" in message
    assert "and torchvision does not download it: put there stanford_cars/ with devkit/" in refused("StanfordCars")
    assert "what torchvision made of them: meta.bin, train/ and val/" in refused("ImageNet")
    with pytest.raises(
        UserError, match=r"--data is torchvision:MNIST, which is not known; of torchvision's sets: FashionMNIST, C"
    ):
        OWN.reading("torchvision:MNIST")
