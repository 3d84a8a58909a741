"""No picture judges what it taught, and a data set that changed is not taken for the one that was."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from raysearch.errors import UserError
from raysearch.tasks.images import DIGITS, IMAGES, load_splits
from raysearch.tasks.images.images import EncodedImages
from raysearch.tasks.task import Splits

OWN = replace(IMAGES, img_size=16, search_images=0.2, finalist_images=0.1, test_images=0.2)
PARTS = ("train", "search", "finalists", "test")


def by_picture(splits: Splits) -> list[set[bytes]]:
    """Of each part what its images show."""
    sets: list[EncodedImages] = [getattr(splits, part) for part in PARTS]
    return [{images.decode(i).tobytes() for i in range(len(images))} for images in sets]


def assert_disjoint(splits: Splits) -> None:
    parts = by_picture(splits)
    assert sum(map(len, parts)) == len(set().union(*parts))


def test_copies_stay_in_one_part(tmp_path: Path, write_classes) -> None:
    """Every picture twice, once under another name and once in another format."""
    write_classes(tmp_path, {"a": 20, "b": 20})
    for path in list(tmp_path.rglob("*.png")):
        Image.open(path).save(path.with_suffix(".bmp"))
    splits = load_splits(replace(OWN, root=tmp_path))
    assert_disjoint(splits)
    assert [len(getattr(splits, part)) for part in PARTS] == [40, 16, 8, 16]
    assert splits.notes == ("40 of 80 images are copies of others: equal ones stay in one part",)


def test_a_picture_of_two_classes_judges_nobody(tmp_path: Path, write_classes) -> None:
    write_classes(tmp_path, {"a": 20, "b": 20})
    for i in range(3):
        shutil.copy(tmp_path / "a" / f"{i:04}.png", tmp_path / "b" / f"again{i}.png")
    splits = load_splits(replace(OWN, root=tmp_path))
    assert_disjoint(splits)
    train = {splits.train.path(i).name for i in range(len(splits.train))}
    assert {"0000.png", "again0.png", "again1.png", "again2.png"} <= train
    assert "3 pictures stand in several classes" in splits.notes[1]
    assert f"{tmp_path / 'a' / '0000.png'} and {tmp_path / 'b' / 'again0.png'}" in splits.notes[1]


@pytest.mark.parametrize("parts", [("train", "test"), ("train", "val", "test")])
def test_given_parts_do_not_share_pictures(tmp_path: Path, write_classes, parts: tuple[str, ...]) -> None:
    for part in parts:
        write_classes(tmp_path / part, {"a": 10, "b": 10})
    for part in parts[:-1]:
        for i in range(2):
            shutil.copy(tmp_path / "test" / "a" / f"{i:04}.png", tmp_path / part / "a" / f"leak{i}.png")
    splits = load_splits(replace(OWN, root=tmp_path))
    assert_disjoint(splits)
    assert len(splits.test) == 20
    assert sum("left out 2 of 22 given images" in note for note in splits.notes) == len(parts) - 1


@pytest.mark.parametrize("finalists", [0, 0.1])
@pytest.mark.parametrize("parts", [("train", "test"), ("train", "val", "test")])
def test_a_picture_of_two_classes_of_a_given_part_judges_nobody(
    tmp_path: Path, write_classes, parts: tuple[str, ...], finalists: float
) -> None:
    for part in parts:
        write_classes(tmp_path / part, {"a": 10, "b": 10})
    for part in parts[1:]:
        for i in range(2):
            shutil.copy(tmp_path / part / "a" / f"{i:04}.png", tmp_path / part / "b" / f"again{i}.png")
    splits = load_splits(replace(OWN, root=tmp_path, finalist_images=finalists))
    assert_disjoint(splits)
    assert len(splits.test) == 18
    if "val" in parts:
        assert len(splits.search) + len(splits.finalists) == 18
    assert sum("2 pictures stand in several classes" in note for note in splits.notes) == len(parts) - 1
    assert any(f"{tmp_path / 'test' / 'a' / '0000.png'} and {tmp_path}/test/b/again0.png" in note for note in splits.notes)


@pytest.mark.parametrize("parts", [("train", "test"), ("train", "val", "test")])
def test_a_class_of_which_too_little_is_left_is_named(tmp_path: Path, write_classes, parts: tuple[str, ...]) -> None:
    """All that a part has of it is in the part that judges, one picture aside that cannot be read."""
    for part in parts:
        write_classes(tmp_path / part, {"a": 10, "b": 10})
    shutil.rmtree(tmp_path / "train" / "b")
    shutil.copytree(tmp_path / parts[-1] / "b", tmp_path / "train" / "b")
    (tmp_path / "train" / "b" / "0003.png").write_bytes(b"broken")
    with pytest.raises(UserError) as error:
        load_splits(replace(OWN, root=tmp_path, skip_unreadable=True))
    assert f"{tmp_path / 'train' / 'b'} has 0 of 10 images left (1 are unreadable, 9 are copies of " in str(error.value)
    assert f"needs at least {1 if 'val' in parts else 3}" in str(error.value)
    for part in parts:
        for path in (tmp_path / part / "a").iterdir():
            path.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"train/a has 0 of 10 images left \(10 are unreadable\)"):
        load_splits(replace(OWN, root=tmp_path, skip_unreadable=True))


def test_a_class_of_copies_alone_is_refused(tmp_path: Path, write_classes) -> None:
    write_classes(tmp_path, {"a": 10, "b": 1})
    for i in range(10):
        shutil.copy(tmp_path / "b" / "0000.png", tmp_path / "b" / f"copy{i}.png")
    with pytest.raises(UserError, match="the class b has 11 images with 1 different pictures of its own: it needs 4"):
        load_splits(replace(OWN, root=tmp_path))


def test_embedded_images_are_disjoint_by_content_too() -> None:
    splits = load_splits(DIGITS)
    assert len({image.tobytes() for part in PARTS for image in getattr(splits, part).pixels}) == 1797


def replaced(path: Path) -> None:
    """Another picture of the same size in bytes, with the times of the one before."""
    state = path.stat()
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF  # a pixel: BMP has no checksum
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size


@pytest.mark.parametrize("large", [False, True])
def test_pictures_of_equal_size_are_noticed(
    tmp_path: Path, write_classes, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:
        monkeypatch.setattr("raysearch.tasks.images.fingerprints.DECODED_AT_MOST", 9)
    write_classes(tmp_path, {"a": 10, "b": 10}, suffix=".bmp")
    config = replace(OWN, root=tmp_path)
    before = load_splits(config)
    assert load_splits(config).digest == before.digest
    assert any("were not decoded" in note for note in before.notes) == large
    victim = before.train.path(0)
    replaced(victim)
    after = load_splits(config)
    assert after.digest != before.digest
    with pytest.raises(UserError, match="not those that this run started with"):
        load_splits(config, expected_digest=before.digest)
    # Who has listed the images before reads none that was exchanged since.
    with pytest.raises(UserError, match=f"{victim} changed since this run began"):
        before.train.decode(0)
    after.train.decode(0)


def test_other_processes_of_a_run_open_no_image_to_divide_them(tmp_path: Path, write_classes) -> None:
    """Of the test images not even the times are looked at: what is wrong with them is said when they are read."""
    write_classes(tmp_path, {"a": 10, "b": 10})
    config = replace(OWN, root=tmp_path)
    splits = load_splits(config)
    for i in range(len(splits.test)):
        splits.test.path(i).write_bytes(b"broken")
    assert load_splits(config, expected_digest=splits.digest).digest == splits.digest
    splits.train.path(0).unlink()
    with pytest.raises(UserError, match="not a readable image"):
        load_splits(config, expected_digest=splits.digest)


def test_what_is_known_of_folders_that_nobody_uses_any_more_goes(
    tmp_path: Path, write_classes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSEARCH_CACHE", str(tmp_path / "cache"))
    roots = {name: write_classes(tmp_path / name, {"a": 10, "b": 10}) for name in ("gone", "used", "new")}
    known: dict[str, set[Path]] = {}
    digests: dict[str, str] = {}

    def load(name: str) -> None:
        before = set((tmp_path / "cache").rglob("*.npz"))
        digests[name] = load_splits(replace(OWN, root=roots[name])).digest
        known[name] = set((tmp_path / "cache").rglob("*.npz")) - before

    load("gone")
    load("used")
    assert [len(files) for files in known.values()] == [2, 2]
    for path in known["gone"] | known["used"]:
        os.utime(path, (0, 0))
    assert load_splits(replace(OWN, root=roots["used"]), expected_digest=digests["used"]).digest == digests["used"]
    load("new")
    left = set((tmp_path / "cache").rglob("*.npz"))
    assert not left & known["gone"]
    assert {path for path in left if path.parent.name == "divisions"} == {
        path for path in known["used"] | known["new"] if path.parent.name == "divisions"
    }


def test_how_pictures_are_read_is_part_of_their_identity(tmp_path: Path, write_classes) -> None:
    write_classes(tmp_path, {"a": 10, "b": 10})
    config = replace(OWN, root=tmp_path)
    digests = {
        load_splits(replace(config, **change)).digest
        for change in ({}, {"white": 4095.0}, {"in_chans": 1, "mean": (0.5,), "std": (0.5,)}, {"split_seed": 1})
    }
    assert len(digests) == 4
