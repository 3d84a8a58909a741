"""However pictures are kept, they are the same data set: divided alike, named, found again, and noticed when they change."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kept import KEPT, Kept
from PIL import Image

from raysearch.errors import UserError
from raysearch.tasks.images import IMAGES, DataConfig, EncodedImages, ImageClassification, load_splits
from raysearch.tasks.images.datasets import place_of_data
from raysearch.tasks.images.shards import open_shards
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
    pictures = shown_by_part(before)
    assert shown_by_part(again) == pictures
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
    if kept is KEPT["parquet"]:  # whose pictures were unpacked
        assert shown_by_part(before) == pictures
        return
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
    assert "none of the columns label, labels, class" in refused(table(tmp_path, "path,kind\na.png,cat\n"))
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


# --- Parquet and Arrow ---


def images_table(source: Path, labels: list[object], kind: pa.DataType, image: str = "image") -> pa.Table:
    files = sorted(source.rglob("*.png"))
    return pa.table({image: [path.read_bytes() for path in files], "label": pa.array(labels, kind)})


def test_columns_of_a_table_of_images(tmp_path: Path, write_classes: Callable[..., Path]) -> None:
    """Plain binary values, texts or numbers without names for classes, packed, in one file."""
    source = write_classes(tmp_path / "source", {"b": 8, "a": 8})
    texts = images_table(source, ["x"] * 8 + ["w"] * 8, pa.dictionary(pa.int8(), pa.string()))
    pq.write_table(texts, tmp_path / "texts.parquet", compression="zstd")
    splits = load_splits(of(tmp_path / "texts.parquet"))
    assert splits.classes == ("w", "x")
    assert sum(len(part) for part in parts(splits).values()) == 16
    with pa.ipc.new_file(
        tmp_path / "numbers.arrow", texts.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as writer:
        writer.write_table(texts)
    assert shown_by_part(load_splits(of(tmp_path / "numbers.arrow"))) == shown_by_part(splits)
    pq.write_table(images_table(source, [10] * 8 + [9] * 8, pa.int32(), "photo"), tmp_path / "numbers.parquet")
    assert load_splits(of(tmp_path / "numbers.parquet")).classes == ("9", "10")
    config = of(tmp_path / "numbers.parquet")
    assert "has no encoded images in a column 'label' (--dataset.image-column): those with such are photo" in refused(
        replace(config, image_column="label")
    )
    assert "has no column 'kind' (--dataset.label-column): its columns are photo, label" in refused(
        replace(config, label_column="kind")
    )
    pq.write_table(images_table(source, [0.5] * 16, pa.float64()), tmp_path / "floats.parquet")
    assert "has double in its column 'label'" in refused(of(tmp_path / "floats.parquet"))
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "texts.parquet").read_bytes()[:-9])
    assert f"{tmp_path / 'cut.parquet'} is not a whole Parquet file" in refused(of(tmp_path / "cut.parquet"))


def test_parts_whose_classes_are_secret_are_passed_over(tmp_path: Path, write_classes: Callable[..., Path]) -> None:
    source = write_classes(tmp_path / "source" / "photos", {"a": 8, "b": 8})
    tmp_path = tmp_path / "tables"
    tmp_path.mkdir()
    table = images_table(source, [0] * 7 + [None] + [1] * 8, pa.int64())
    pq.write_table(table, tmp_path / "train-0.parquet")
    pq.write_table(images_table(source, [-1] * 16, pa.int64()), tmp_path / "test-0.parquet")
    splits = load_splits(of(tmp_path))
    assert splits.notes == (
        "passed over test-0.parquet, which has no pictures of known classes (16 rows without a class)",
        "skipped 1 entries: 1 rows without a class",
    )
    pq.write_table(table, tmp_path / "more.parquet")
    assert f"{tmp_path / 'more.parquet'} does not say whether its images are train, val or test" in refused(of(tmp_path))


def test_parquet_is_unpacked_a_few_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row group of 64 MB, whose pages are small; what Arrow holds at once stays below half of it."""
    monkeypatch.setenv("RAYSEARCH_CACHE", str(tmp_path / "cache"))
    noise = np.random.default_rng(0)
    rows = pa.table({"image": [noise.bytes(250_000) for _ in range(256)], "label": ["a", "b"] * 128})
    pq.write_table(rows, tmp_path / "large.parquet", compression="none", write_batch_size=4)
    del rows
    pool = pa.system_memory_pool()
    pa.set_memory_pool(pool)
    try:
        before = pool.bytes_allocated()
        shards = open_shards(tmp_path, ["large.parquet"], (None, None, None))
        assert pool.max_memory() - before < 32e6
    finally:
        pa.set_memory_pool(pa.default_memory_pool())
    assert len(shards.contents[0].names) == 256
    assert len(shards.store.read(b"large.parquet#255")) == 250_000


def test_files_of_two_kinds_and_packed_tars_are_refused(tmp_path: Path, write_classes: Callable[..., Path]) -> None:
    source = write_classes(tmp_path / "source", {"a": 8, "b": 8})
    shutil.copytree(KEPT["tar"](source, tmp_path / "tars"), tmp_path / "both")
    shutil.copytree(KEPT["parquet"](source, tmp_path / "tables"), tmp_path / "both", dirs_exist_ok=True)
    assert f"{tmp_path / 'both'} holds files of several kinds (parquet, tar)" in refused(of(tmp_path / "both"))
    packed = tmp_path / "packed" / "set.tar.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress((tmp_path / "tars" / "set-all-0000.tar").read_bytes()))
    for data in (packed, packed.parent):
        assert "gunzip" in refused(of(data))


# --- tars ---


def test_classes_of_samples_as_people_write_them(tmp_path: Path) -> None:
    """Names in .cls, a label in .json, a second file of a sample, samples without a class or a picture, a name given twice."""
    noise = np.random.default_rng(0)
    with tarfile.open(tmp_path / "set.tar", "w") as tar:

        def add(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))

        def picture() -> bytes:
            file = io.BytesIO()
            Image.fromarray(noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file, "PNG")
            return file.getvalue()

        for number in range(8):
            add(f"cats/{number}.PNG", picture())
            add(f"cats/{number}.cls", b"cat\n")
            add(f"dogs/{number}.json", json.dumps({"label": "dog", "other": 1}).encode())
            add(f"dogs/{number}.jpg", picture())
            add(f"dogs/{number}.seg.png", picture())
        add("dogs/0.json", json.dumps({"label": "dog"}).encode())
        add("dogs/0.jpg", last := picture())
        add("alone.png", picture())
        add("empty.cls", b"cat")
        add("._alone.png", b"left behind")
    splits = load_splits(of(tmp_path / "set.tar"))
    assert splits.classes == ("cat", "dog")
    assert sum(len(part) for part in parts(splits).values()) == 16
    assert splits.train.store.read(b"set.tar/dogs/0.jpg") == last
    assert splits.notes == (
        "skipped 2 entries: 1 samples without a class (.cls, or a label in .json), 1 samples without a picture",
    )
    assert load_splits(replace(of(tmp_path / "set.tar"), label_column="label", skip_unreadable=True)) is not None


def test_a_tar_that_is_cut_off_is_named(tmp_path: Path, write_classes: Callable[..., Path]) -> None:
    tars = KEPT["tar"](write_classes(tmp_path / "source", COUNTS), tmp_path / "tars")
    victim = tars / "set-all-0001.tar"
    victim.write_bytes(victim.read_bytes()[:20_000])
    assert f"{victim} is not a whole tar" in refused(of(tars))
