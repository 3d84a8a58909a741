"""However pictures are kept, they are the same data set: divided alike, named, found again, and noticed when they change."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kept import KEPT, Kept

from raysearch.errors import UserError
from raysearch.tasks.images import IMAGES, DataConfig, EncodedImages, ImageClassification, load_splits
from raysearch.tasks.images.datasets import place_of_data
from raysearch.tasks.task import Splits

OWN = replace(IMAGES, img_size=16, search_images=0.2, finalist_images=0.1, test_images=0.2)
PARTS = ("train", "search", "finalists", "test")
COUNTS = {"ant": 10, "bee": 12, "cow": 9}

every_kind = pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT.keys())


def parts(splits: Splits) -> dict[str, EncodedImages]:
    return {part: getattr(splits, part) for part in PARTS}


def shown_by_part(splits: Splits) -> dict[str, list[tuple[bytes, str]]]:
    """Of each part its pictures and their classes, in order."""
    return {
        part: [(images.decode(i).tobytes(), splits.classes[images.labels[i]]) for i in range(len(images))]
        for part, images in parts(splits).items()
    }


def of(data: Path) -> DataConfig:
    return OWN.reading(data)


def refused(config: DataConfig) -> str:
    with pytest.raises(UserError) as error:
        load_splits(config)
    assert "\n" not in str(error.value)
    return str(error.value)


@every_kind
def test_the_same_pictures_are_divided_alike(tmp_path: Path, write_classes: Callable[..., Path], kept: Kept) -> None:
    source = write_classes(tmp_path / "source", COUNTS)
    splits = load_splits(of(kept(source, tmp_path / "kept")))
    assert splits.classes == tuple(COUNTS)
    assert splits.notes == ()
    assert shown_by_part(splits) == shown_by_part(load_splits(of(source)))


@every_kind
def test_given_parts_are_kept_and_share_no_picture(tmp_path: Path, write_classes: Callable[..., Path], kept: Kept) -> None:
    source = tmp_path / "source"
    for part in ("train", "val", "test"):
        write_classes(source / part, COUNTS)
    shutil.copy(source / "test" / "ant" / "0000.png", source / "train" / "ant" / "leak.png")
    splits = load_splits(of(kept(source, tmp_path / "kept")))
    assert shown_by_part(splits) == shown_by_part(load_splits(of(source)))
    assert any("left out 1 of 32 given images" in note for note in splits.notes)


@every_kind
def test_another_process_finds_them_and_a_change_is_noticed(
    tmp_path: Path, write_classes: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, kept: Kept
) -> None:
    monkeypatch.setenv("RAYSEARCH_CACHE", str(tmp_path / "cache"))
    config = of(kept(write_classes(tmp_path / "source", COUNTS, suffix=".bmp"), tmp_path / "kept"))
    before = load_splits(config)
    again = load_splits(config, expected_digest=before.digest)
    assert shown_by_part(again) == shown_by_part(before)
    # One pixel of one picture, without another size or time of change of content.
    content, victim = before.train.store.read(before.train.name(3)), before.train.path(3)
    whole = bytearray(victim.read_bytes())
    whole[whole.index(content) + 60] ^= 0xFF
    state = victim.stat()
    victim.write_bytes(whole)
    os.utime(victim, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert load_splits(config).digest != before.digest
    with pytest.raises(UserError, match="not those that this run started with"):
        load_splits(config, expected_digest=before.digest)
    with pytest.raises(UserError, match="changed since this run began"):
        shown_by_part(before)


@every_kind
def test_what_cannot_be_read_is_named_and_can_be_left_out(
    tmp_path: Path, write_classes: Callable[..., Path], kept: Kept
) -> None:
    source = write_classes(tmp_path / "source", COUNTS)
    (source / "bee" / "0004.png").write_bytes(b"\x89PNG is no picture")
    config = of(kept(source, tmp_path / "kept"))
    names = load_splits(of(write_classes(tmp_path / "whole", COUNTS)))
    message = refused(config)
    assert "is not a readable image" in message
    assert "(1 unreadable; --dataset.skip-unreadable goes on without them)" in message
    splits = load_splits(replace(config, skip_unreadable=True))
    assert sum(map(len, parts(splits).values())) == sum(map(len, parts(names).values())) - 1
    assert any("1 unreadable (" in note for note in splits.notes)


@every_kind
def test_items_have_the_names_that_a_report_shows(tmp_path: Path, write_classes: Callable[..., Path], kept: Kept) -> None:
    config = of(kept(write_classes(tmp_path / "source", COUNTS), tmp_path / "kept"))
    splits = load_splits(config)
    names = [name for part in parts(splits).values() for name in ImageClassification(config).item_names(part) or ()]
    assert len(set(names)) == sum(COUNTS.values())
    root = place_of_data(config)
    root = root if root.is_dir() else root.parent  # pyright: ignore[reportAttributeAccessIssue]
    assert all(splits.test.shown(i) == f"{root}/{name}" for i, name in enumerate(names[-len(splits.test) :]))


# --- tables of paths ---


def table(folder: Path, text: str, name: str = "labels.csv") -> DataConfig:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return of(folder / name)


def test_a_table_is_refused_by_column_and_row(tmp_path: Path) -> None:
    place = tmp_path / "labels.csv"
    assert f"{place} has none of the columns path, file" in refused(table(tmp_path, "a.png,cat\nb.png,dog\n"))
    assert "but a.png, cat: name one with --dataset.image-column" in refused(table(tmp_path, "a.png,cat\nb.png,dog\n"))
    assert "none of the columns label, class" in refused(table(tmp_path, "path,kind\na.png,cat\n"))
    config = replace(table(tmp_path, "path,kind\na.png,cat\n"), label_column="species")
    assert f"{place} has no column 'species' (--dataset.label-column): its columns are path, kind" in refused(config)
    assert f"{place}, row 3 has nothing in the column 'label'" in refused(table(tmp_path, "path,label\na.png,x\nb.png,\n"))
    assert "row 4 has 3 values for 2 columns" in refused(table(tmp_path, "path,label\na.png,x\n\nb.png,y,z\n"))
    assert "row 2 has 'holdout' in the column 'split'" in refused(table(tmp_path, "path,label,split\na.png,x,holdout\n"))
    assert "has no rows" in refused(table(tmp_path, "path,label\n"))
    assert "has no train images" in refused(table(tmp_path, "path,label,split\na.png,x,test\n"))


def test_a_missing_file_is_named_with_its_row(tmp_path: Path, write_classes: Callable[..., Path]) -> None:
    write_classes(tmp_path / "photos", {"a": 6, "b": 6})
    files = [path.relative_to(tmp_path) for path in sorted(tmp_path.rglob("*.png"))]
    rows = [f"{path},{path.parent.name}" for path in files]
    config = table(tmp_path, "\n".join(["path,label", *rows[:4], "photos/gone.png,a", *rows[4:]]))
    gone = f"{tmp_path / 'photos' / 'gone.png'} cannot be read (No such file or directory) ({tmp_path / 'labels.csv'}, row 6)"
    assert gone in refused(config)
    assert sum(map(len, parts(load_splits(replace(config, skip_unreadable=True))).values())) == 12


def test_a_table_as_other_programs_write_it(tmp_path: Path, write_classes: Callable[..., Path]) -> None:
    """Semicolons, a mark of the byte order, values in quotation marks, absolute paths, numbers for classes, other columns."""
    write_classes(tmp_path / "photos", {"a": 6, "b; c": 6}, suffix=".jpg")
    paths = sorted((tmp_path / "photos").rglob("*.jpg"))
    rows = [f'"{path}";{10 if path.parent.name == "a" else 2};0.5' for path in paths]
    config = table(tmp_path / "elsewhere", "\ufeff" + "\r\n".join(["File;kind;score", *rows]))
    splits = load_splits(replace(config, label_column="kind"))
    assert splits.classes == ("2", "10")
    images = parts(splits).values()
    assert {(images.path(i).parent.name, int(images.labels[i])) for images in images for i in range(len(images))} == {
        ("a", 1),
        ("b; c", 0),
    }
    assert np.asarray(splits.test.decode(0)).shape == (16, 20, 3)
