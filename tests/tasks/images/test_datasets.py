"""Data sets as users have them on disk, whole and broken."""

import shutil
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raysearch.recipes.stored import upgraded
from raysearch.tasks.images import (
    DIGITS,
    FASHION_MNIST,
    IMAGENET,
    IMAGES,
    ArrayImages,
    DataConfig,
    EncodedImages,
    Splits,
    load_splits,
)
from raysearch.tasks.images.images import ImageSet

OWN = replace(IMAGES, img_size=16, search_images=0.2, finalist_images=0.1, test_images=0.2)


def files(images: ImageSet) -> list[Path]:
    assert isinstance(images, EncodedImages)
    return [images.path(i) for i in range(len(images))]


def parts(splits: Splits) -> list[ImageSet]:
    return [splits.train, splits.search, splits.finalists, splits.test]


def refused(config: DataConfig) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        load_splits(config)
    return str(error.value)


def test_digits_are_the_promised_splits() -> None:
    splits = load_splits(DIGITS)
    assert [len(p) for p in parts(splits)] == [800, 397, 200, 400]
    assert splits.classes == tuple("0123456789")
    assert isinstance(splits.train, ArrayImages)
    assert splits.train.pixels.shape == (800, 1, 8, 8)
    assert splits.train.pixels.max() == 255
    for images in parts(splits):
        counts = np.bincount(images.labels)
        assert counts.min() > 0.09 * len(images)
    assert load_splits(DIGITS).digest == splits.digest
    assert load_splits(replace(DIGITS, split_seed=1)).digest != splits.digest


@pytest.mark.parametrize(
    ("seed", "digest"),
    [
        (0, "1167c3e3212d63cf771dc1fe3dc89ba9c73b0396aaa153ad9bf92b6e32c32d8f"),
        (3, "b859e3e4742b64ccf566d98dcf3160868fe6891b96ba436fdad69e70905a7abf"),
    ],
)
def test_a_search_of_0_1_0_has_its_division(seed: int, digest: str) -> None:
    """The seed of the search divided the images into three parts; the digests are those that 0.1.0 printed."""
    dataset = {name: value for name, value in asdict(DIGITS).items() if name not in ("split_seed", "finalist_images")}
    upgrade = upgraded({"seed": seed, "dataset": dataset})["dataset"]
    splits = load_splits(replace(DIGITS, **{name: upgrade[name] for name in ("split_seed", "finalist_images")}))
    assert [len(p) for p in parts(splits)] == [1000, 397, 0, 400]
    assert splits.digest == digest
    assert upgraded({"seed": seed, "dataset": upgrade})["dataset"] == upgrade


def test_grey_arrays_take_the_size_and_channels_asked_for() -> None:
    splits = load_splits(replace(DIGITS, img_size=12, in_chans=3, mean=(0.3,) * 3, std=(0.4,) * 3))
    assert isinstance(splits.test, ArrayImages)
    assert splits.test.pixels.shape == (400, 3, 12, 12)
    assert splits.test.decode(0).mode == "RGB"


# --- Fashion-MNIST ---


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("layout", ["FashionMNIST/raw", "."])
def test_fashion_mnist_in_both_layouts(tmp_path: Path, write_fashion_mnist, packed: bool, layout: str) -> None:
    write_fashion_mnist(tmp_path / layout, packed=packed)
    splits = load_splits(replace(FASHION_MNIST, root=tmp_path, search_images=10, finalist_images=10))
    assert [len(p) for p in parts(splits)] == [20, 10, 10, 20]
    assert isinstance(splits.test, ArrayImages)
    assert splits.test.pixels[:, 0, 5, 5].tolist() == list(range(100, 120))
    assert sorted(splits.search.labels.tolist()) == list(range(10))
    assert splits.classes[0] == "T-shirt/top"


def test_missing_fashion_mnist_says_where_and_how(tmp_path: Path) -> None:
    message = refused(replace(FASHION_MNIST, root=tmp_path))
    assert str(tmp_path / "FashionMNIST" / "raw") in message
    assert "apt-get install dataset-fashion-mnist" in message
    assert "download=True" in message


@pytest.mark.parametrize("packed", [True, False])
def test_cut_off_idx_file_is_named(tmp_path: Path, write_fashion_mnist, packed: bool) -> None:
    write_fashion_mnist(tmp_path, packed=packed)
    broken = tmp_path / f"train-images-idx3-ubyte{'.gz' if packed else ''}"
    broken.write_bytes(broken.read_bytes()[:100])
    assert str(broken) in refused(replace(FASHION_MNIST, root=tmp_path, search_images=10))


# --- folders of one's own ---


def test_classes_in_one_folder_are_split(tmp_path: Path, write_classes) -> None:
    write_classes(tmp_path, {"cat": 10, "dog": 20, "owl": 4}, suffix=".jpg")
    (tmp_path / "cat" / "._0001.jpg").write_bytes(b"resource fork")
    (tmp_path / "dog" / "Thumbs.db").write_bytes(b"thumbnails")
    (tmp_path / ".git").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    splits = load_splits(replace(OWN, root=tmp_path))
    assert splits.classes == ("cat", "dog", "owl")
    everything = [path for images in parts(splits) for path in files(images)]
    assert len(everything) == len(set(everything)) == 34
    for images in parts(splits):
        assert set(images.labels.tolist()) == {0, 1, 2}
        assert [p.parent.name for p in files(images)] == [splits.classes[label] for label in images.labels]


def test_splits_do_not_depend_on_the_place_of_the_folder(tmp_path: Path, write_classes) -> None:
    here = write_classes(tmp_path / "here", {"a": 8, "ü": 8})
    there = shutil.copytree(here, tmp_path / "elsewhere" / "there")
    ours, theirs = (load_splits(replace(OWN, root=root, split_seed=3)) for root in (here, there))
    assert ours.digest == theirs.digest
    assert [p.relative_to(here) for p in files(ours.search)] == [p.relative_to(there) for p in files(theirs.search)]


@pytest.mark.parametrize("test_folder", ["val", "test"])
def test_given_test_images_are_the_test_split(tmp_path: Path, write_classes, test_folder: str) -> None:
    write_classes(tmp_path / "train", {"a": 10, "b": 10})
    write_classes(tmp_path / test_folder, {"a": 2, "b": 1})
    splits = load_splits(replace(OWN, root=tmp_path, search_images=4))
    assert [len(p) for p in parts(splits)] == [14, 4, 2, 3]
    assert {p.parent.parent.name for p in files(splits.test)} == {test_folder}
    assert {p.parent.parent.name for p in [*files(splits.train), *files(splits.search), *files(splits.finalists)]} == {"train"}


def test_given_validation_images_are_divided_between_search_and_finalists(tmp_path: Path, write_classes) -> None:
    for name, count in (("train", 5), ("val", 3), ("test", 2)):
        write_classes(tmp_path / name, {"a": count, "b": count})
    splits = load_splits(replace(OWN, root=tmp_path))  # 0.2 for the search, 0.1 for the finalists
    assert [len(p) for p in parts(splits)] == [10, 4, 2, 4]
    assert {p.parent.parent.name for p in files(splits.search) + files(splits.finalists)} == {"val"}
    for part in (splits.search, splits.finalists):
        assert set(part.labels.tolist()) == {0, 1}
    whole = load_splits(replace(OWN, root=tmp_path, finalist_images=0))
    assert [len(p) for p in parts(whole)] == [10, 6, 0, 4]


def test_train_folder_alone_gives_all_splits_and_train_may_be_a_class(tmp_path: Path, write_classes) -> None:
    write_classes(tmp_path / "alone" / "train", {"a": 10, "b": 10})
    assert [len(p) for p in parts(load_splits(replace(OWN, root=tmp_path / "alone")))] == [10, 4, 2, 4]
    write_classes(tmp_path / "vehicles", {"train": 10, "car": 10})
    assert load_splits(replace(OWN, root=tmp_path / "vehicles")).classes == ("car", "train")


def test_missing_class_folder_is_named(tmp_path: Path, write_classes) -> None:
    write_classes(tmp_path / "train", {"a": 5, "b": 5})
    write_classes(tmp_path / "val", {"a": 5})
    assert f"no folder {tmp_path / 'val' / 'b'}" in refused(replace(OWN, root=tmp_path))
    write_classes(tmp_path / "val", {"b": 5, "c": 1})
    assert f"no folder {tmp_path / 'train' / 'c'}" in refused(replace(OWN, root=tmp_path))


@pytest.mark.parametrize("count", [0, 2])
def test_class_with_too_few_images_is_named(tmp_path: Path, write_classes, count: int) -> None:
    write_classes(tmp_path, {"a": 5, "b": count})
    message = refused(replace(OWN, root=tmp_path))
    assert f"{tmp_path / 'b'} has {count} images" in message
    assert "at least 4" in message


def test_unreadable_images_are_named(tmp_path: Path, write_classes) -> None:
    write_classes(tmp_path, {"a": 5, "b": 5}, suffix=".jpg", size=(60, 60))
    cut_off, foreign, empty = (tmp_path / "a" / "0001.jpg", tmp_path / "b" / "0002.jpg", tmp_path / "b" / "0003.jpg")
    cut_off.write_bytes(cut_off.read_bytes()[:1500])
    foreign.write_text("<html>404</html>")
    empty.write_bytes(b"")
    message = refused(replace(OWN, root=tmp_path))
    for path in (cut_off, foreign, empty):
        assert str(path) in message
    assert "\n" not in message


def test_of_large_sets_the_headers_are_read(tmp_path: Path, write_classes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysearch.tasks.images.fingerprints.DECODED_AT_MOST", 9)
    write_classes(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "b" / "0004.png").write_text("<html>404</html>")
    assert str(tmp_path / "b" / "0004.png") in refused(replace(OWN, root=tmp_path))


def test_of_large_sets_cut_off_files_are_left_out_where_asked_for(
    tmp_path: Path, write_classes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header does not tell that the rest is missing."""
    monkeypatch.setattr("raysearch.tasks.images.fingerprints.DECODED_AT_MOST", 9)
    write_classes(tmp_path, {"a": 10, "b": 10}, suffix=".jpg", size=(60, 60))
    cut_off = tmp_path / "a" / "0001.jpg"
    cut_off.write_bytes(cut_off.read_bytes()[:1500])
    splits = load_splits(replace(OWN, root=tmp_path, skip_unreadable=True))
    assert sum(len(part) for part in parts(splits)) == 19
    assert splits.notes == (f"skipped 1 files: 1 unreadable ({cut_off})",)


def test_other_roots_are_refused(tmp_path: Path, write_classes) -> None:
    assert "needs --data" in refused(OWN)
    assert f"{tmp_path / 'nowhere'}, which is not a folder" in refused(replace(OWN, root=tmp_path / "nowhere"))
    assert f"{tmp_path} has 0 class folders" in refused(replace(OWN, root=tmp_path))
    write_classes(tmp_path / "train", {"a": 5, "b": 5})
    (tmp_path / "extra").mkdir()
    assert f"{tmp_path / 'extra'} stands beside" in refused(replace(OWN, root=tmp_path))


def test_a_resumed_run_sees_that_images_changed(tmp_path: Path, write_classes) -> None:
    write_classes(tmp_path, {"a": 5, "b": 5})
    config = replace(OWN, root=tmp_path)
    splits = load_splits(config)
    digest = splits.digest
    assert load_splits(config, expected_digest=digest).digest == digest
    Image.new("RGB", (20, 16)).save(files(splits.train)[0])
    with pytest.raises(ValueError, match="not those that this run started with"):
        load_splits(config, expected_digest=digest)


# --- ImageNet ---


def test_imagenet_holds_search_images_out_of_train(tmp_path: Path, write_classes) -> None:
    write_classes(tmp_path / "train", {"n01440764": 6, "n01443537": 6}, suffix=".JPEG")
    write_classes(tmp_path / "val", {"n01440764": 2, "n01443537": 2}, suffix=".JPEG")
    splits = load_splits(replace(IMAGENET, root=tmp_path, search_images=4, finalist_images=2))
    assert [len(p) for p in parts(splits)] == [6, 4, 2, 4]
    assert Counter(splits.search.labels.tolist()) == {0: 2, 1: 2}
    assert {p.parent.parent.name for p in files(splits.test)} == {"val"}
    assert not set(files(splits.train)) & set(files(splits.search))


def test_what_stands_beside_imagenet_s_train_and_val_is_passed_over(tmp_path: Path, write_classes) -> None:
    for part in ("train", "val"):
        write_classes(tmp_path / part, {"n01440764": 6, "n01443537": 6})
    write_classes(tmp_path, {"test": 3})  # without class folders, as it is published
    (tmp_path / "annotations" / "val").mkdir(parents=True)
    splits = load_splits(replace(IMAGENET, root=tmp_path, search_images=4, finalist_images=2))
    assert [len(p) for p in parts(splits)] == [6, 4, 2, 12]
    assert splits.notes == ("passed over annotations, test, as ImageNet's images are in train and val",)


def test_imagenet_without_val_folder_is_refused(tmp_path: Path, write_classes) -> None:
    write_classes(tmp_path / "train", {"n01440764": 6, "n01443537": 6})
    assert f"no folder {tmp_path / 'val'}" in refused(replace(IMAGENET, root=tmp_path))
