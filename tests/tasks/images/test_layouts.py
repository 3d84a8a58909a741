"""Folders as people and archives lay them out: recognised, or refused in one line; what is left out is said."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raysearch.errors import UserError
from raysearch.tasks.images import IMAGES, DataConfig, load_splits
from raysearch.tasks.images.images import EncodedImages

OWN = replace(IMAGES, img_size=16, search_images=0.2, finalist_images=0.1, test_images=0.2)


def write(folder: Path, *names: str) -> None:
    """Pictures that differ from all others."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        noise = np.random.default_rng([*bytes(str(folder / name), "utf-8")]).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / name)


def names(count: int, ending: str = ".png") -> list[str]:
    return [f"{i}{ending}" for i in range(count)]


def everything(splits: Any) -> list[Path]:
    sets: list[EncodedImages] = [splits.train, splits.search, splits.finalists, splits.test]
    return [images.path(i) for images in sets for i in range(len(images))]


def refused(root: Path, config: DataConfig = OWN) -> str:
    with pytest.raises(UserError) as error:
        load_splits(replace(config, root=root))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_kind_of_picture_and_sub_folders_are_read_and_the_rest_is_counted(tmp_path: Path) -> None:
    kinds = [".jpg", ".JPEG", ".jfif", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".avif"]
    for name in ("cat", "dog"):
        write(tmp_path / name, *(f"{i}{ending}" for i, ending in enumerate(kinds)))
        write(tmp_path / name / "more" / "deeper", *names(2))
    (tmp_path / "cat" / "phone.heic").write_bytes(b"heic")
    (tmp_path / "cat" / "notes.txt").write_text("mine")
    for hidden in ("._0.jpg", "Thumbs.db", ".DS_Store"):
        (tmp_path / "dog" / hidden).write_bytes(b"left behind")
    (tmp_path / "dog" / "__MACOSX").mkdir()
    write(tmp_path, "preview.png")
    splits = load_splits(replace(OWN, root=tmp_path))
    assert len(set(everything(splits))) == 2 * (len(kinds) + 2)
    skipped, deeper = splits.notes
    assert skipped == (
        "skipped 3 files: 1 .heic, 1 .txt, 1 beside the class folders; "
        ".heic pictures are not read here: convert them to .jpg or .png"
    )
    assert deeper == "4 images are in sub-folders of their class"


def test_links_that_lead_nowhere_are_counted(tmp_path: Path) -> None:
    """To a picture, to a folder in a class, to a class, and to itself."""
    for name in ("cat", "dog"):
        write(tmp_path / name, *names(5))
    for link in ("cat/5.png", "cat/more", "owl"):
        (tmp_path / link).symlink_to(tmp_path / "unmounted" / link)
    for link in ("round.png", "dog/round"):
        (tmp_path / link).symlink_to(tmp_path / link)
    splits = load_splits(replace(OWN, root=tmp_path))
    assert (splits.classes, len(everything(splits))) == (("cat", "dog"), 10)
    assert splits.notes == ("skipped 5 files: 5 broken links",)
    (tmp_path / "test").symlink_to(tmp_path / "unmounted")
    assert refused(tmp_path).startswith(f"{tmp_path / 'test'} is a link that leads nowhere: restore")


def test_unreadable_images_are_named_and_can_be_left_out(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write(tmp_path / name, *names(8))
    for i in range(5):
        (tmp_path / "cat" / f"bad{i}.jpg").write_text("<html>404</html>")
    message = refused(tmp_path)
    assert "bad0.jpg is not a readable image" in message
    assert "and 2 more (5 unreadable; --dataset.skip-unreadable goes on without them)" in message
    splits = load_splits(replace(OWN, root=tmp_path, skip_unreadable=True))
    assert len(everything(splits)) == 16
    assert splits.notes[0].startswith(f"skipped 5 files: 5 unreadable ({tmp_path / 'cat' / 'bad0.jpg'}, ")


def test_all_pictures_in_one_folder_are_refused_with_the_way_out(tmp_path: Path) -> None:
    write(tmp_path / "train", *(f"{kind}.{i}.png" for kind in ("cat", "dog") for i in range(5)))
    write(tmp_path / "test", *names(5))
    message = refused(tmp_path)
    assert f"{tmp_path / 'train'} holds 10 images and no class folders" in message
    assert f"as {tmp_path / 'train' / 'cat'} and {tmp_path / 'train' / 'dog'}" in message
    flat = tmp_path / "flat"
    write(flat / "images", *names(5))
    (flat / "labels.csv").write_text("image,label\n")
    assert refused(flat).endswith(f"or give the table that has them, as --data {flat / 'labels.csv'}")
    bare = tmp_path / "bare"
    write(bare, *names(3))
    assert "holds 3 images and no class folders" in refused(bare)


@pytest.mark.parametrize("parts", [("Train", "Test"), ("training", "valid"), ("TRAIN", "validation"), ("train", "val")])
def test_parts_have_the_names_that_people_give_them(tmp_path: Path, parts: tuple[str, str]) -> None:
    for part, count in zip(parts, (10, 3), strict=True):
        for name in ("cat", "dog"):
            write(tmp_path / part / name, *names(count))
    splits = load_splits(replace(OWN, root=tmp_path))
    assert len(splits.test) == 6
    assert {path.parent.parent.name for path in everything(splits)} == set(parts)


@pytest.mark.parametrize("way", ["animals", "animals/animals", "data/train"])
def test_folders_that_hold_nothing_else_are_passed_through(tmp_path: Path, way: str) -> None:
    for name in ("cat", "dog"):
        write(tmp_path / way / name, *names(10))
    splits = load_splits(replace(OWN, root=tmp_path))
    assert splits.classes == ("cat", "dog")
    assert len(everything(splits)) == 20
    assert any("the only folder in" in note for note in splits.notes)


def test_what_cannot_be_a_data_set_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "alone" / "cat", *names(5))
    assert "has 1 class folders (cat)" in refused(tmp_path / "alone")
    for name in ("cat", "dog"):
        write(tmp_path / "turned" / name / "train", *names(5))
        write(tmp_path / "turned" / name / "test", *names(5))
        write(tmp_path / "beside" / name, *names(5))
        write(tmp_path / "beside" / "test" / name, *names(2))
        write(tmp_path / "unlabelled" / "train" / name, *names(5))
        write(tmp_path / "twice" / "train" / name, *names(5))
        write(tmp_path / "no train" / "val" / name, *names(5))
        write(tmp_path / "no train" / "test" / name, *names(5))
        for part in ("val", "valid"):
            write(tmp_path / "twice" / part / name, *names(2))
    assert f"turn them round, as {tmp_path / 'turned' / 'test' / 'cat'}" in refused(tmp_path / "turned")
    assert f"{tmp_path / 'beside' / 'test'} stands beside class folders (cat, dog)" in refused(tmp_path / "beside")
    write(tmp_path / "unlabelled" / "test", *names(4))
    assert "holds images without class folders" in refused(tmp_path / "unlabelled")
    assert "are both val images: merge them" in refused(tmp_path / "twice")
    assert "has test, val and no train folder" in refused(tmp_path / "no train")


def test_classes_and_files_have_any_name(tmp_path: Path) -> None:
    names_of = [b"caf\xe9", "naïve\nline".encode(), b"quo\"te<b>,'", b"x" * 250]
    for number, name in enumerate(names_of):
        for i in range(8):
            folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9/" + name))
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (12, 12), (number, i, 0)).save(folder / os.fsdecode(b"p\xe9%d.png" % i))
    config = replace(OWN, root=Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9")))
    splits = load_splits(config)
    mark = "\N{REPLACEMENT CHARACTER}"
    assert sorted(splits.classes) == sorted([f"caf{mark}", f"naïve{mark}line", "quo\"te<b>,'", "x" * 250])
    assert len(everything(splits)) == 32
    assert load_splits(config, expected_digest=splits.digest).digest == splits.digest
    splits.test.decode(0)
    everything(splits)[0].write_bytes(b"broken")
    assert f"p{mark}" in refused(config.root)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("large", [False, True])
def test_deep_pictures_that_would_be_dark_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool) -> None:
    if large:
        monkeypatch.setattr("raysearch.tasks.images.fingerprints.DECODED_AT_MOST", 9)
        monkeypatch.setattr("raysearch.tasks.images.parts._LOOKED_AT", 5)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(8):
            noise = np.random.default_rng([i, len(name), ord(name[0])]).integers(0, 4096, (8, 8)).astype(np.uint16)
            Image.fromarray(noise).save(tmp_path / name / f"{i}.png")
    message = refused(tmp_path)
    assert f"{'5 of 5 looked at' if large else '16'} grey pictures have more than 8 bits" in message
    assert "--dataset.white, as 4095 for 12 bits" in message
    splits = load_splits(replace(OWN, root=tmp_path, white=4095.0))
    assert np.asarray(splits.train.decode(0)).max() > 200
