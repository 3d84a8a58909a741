"""``raysearch check-data`` names what is wrong with images; its exit code says whether a search would start."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raysearch.cli import main
from raysearch.tasks.images import IMAGES, load_splits


def write(folder: Path, counts: dict[str, int], *, side: int = 24) -> Path:
    noise = np.random.default_rng(len(str(folder)))
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(noise.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(folder / name / f"{i:03}.png")
    return folder


def checked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and what was printed."""
    code: object = 0
    try:
        main(["check-data", *arguments])
    except SystemExit as leave:
        code = leave.code
    assert isinstance(code, int)
    return code, capsys.readouterr().out


def test_images_without_a_fault_are_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = checked(capsys, str(write(tmp_path / "photos", {"ant": 30, "bee": 30})))
    assert code == 0
    assert "60 pictures of 2 classes, 0 unreadable" in said
    assert "shorter sides of 24 to 24 pixels" in said
    assert "kinds of pixels: RGB 60" in said
    assert "a search would divide them into train 39, search 6, finalists 6, test 9" in said
    assert "0 findings: nothing stops a search" in said


def test_every_fault_is_named_with_its_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = write(tmp_path / "photos", {"ant": 40, "bee": 40, "cow": 12})
    shutil.copy(photos / "ant" / "000.png", photos / "ant" / "again.png")
    shutil.copy(photos / "ant" / "001.png", photos / "bee" / "both.png")
    Image.new("RGB", (24, 24), (9, 9, 9)).save(photos / "bee" / "blank.png")
    night = np.random.default_rng(0).integers(0, 12, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(night).save(photos / "bee" / "night.png")
    Image.fromarray(np.tile(night + 90, (1, 5, 1))).save(photos / "bee" / "wide.png")
    Image.fromarray(night[:4, :4] + 90).save(photos / "bee" / "tiny.png")
    Image.open(photos / "ant" / "002.png").convert("CMYK").save(photos / "ant" / "print.jpg")
    (photos / "bee" / "notes.txt").write_text("mine")
    code, said = checked(capsys, str(photos))
    assert code == 0
    for line in (
        f"look at: 1 pictures stand in several classes: {photos}/ant/001.png = {photos}/bee/both.png",
        f"look at: 1 pictures are there more than once in their class: {photos}/ant/000.png = {photos}/ant/again.png",
        "look at: 1 classes have fewer than 20 different pictures to learn from: cow (12)",
        f"look at: 1 pictures are small beside the others, of 24 pixels: {photos}/bee/tiny.png",
        f"look at: 1 pictures are more than 3 times as long as wide: {photos}/bee/wide.png",
        f"look at: 1 pictures are of one colour: {photos}/bee/blank.png",
        f"look at: 1 pictures are dark (mean below 20 of 255): {photos}/bee/night.png",
        f"look at: 1 pictures have pixels of another kind than the others (CMYK): {photos}/ant/print.jpg",
        "look at: skipped 1 files: 1 .txt",
        "9 findings: nothing stops a search",
    ):
        assert line in said
    assert said.count("\n  -> ") == 9


def test_what_would_stop_a_search_is_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = write(tmp_path / "photos", {"ant": 30, "bee": 30})
    victim = photos / "ant" / "003.png"
    victim.write_bytes(victim.read_bytes()[:900])
    code, said = checked(capsys, str(photos))
    assert code == 1
    assert f"STOPS A SEARCH: 1 unreadable pictures: {victim} is not a readable image" in said
    assert "-> replace or remove them, or give --dataset.skip-unreadable" in said
    code, said = checked(capsys, str(photos), "--dataset.skip-unreadable")
    assert (code, "look at: 1 unreadable pictures" in said) == (0, True)
    write(photos, {"cow": 2})
    code, said = checked(capsys, str(photos), "--dataset.skip-unreadable")
    assert code == 1
    assert f"STOPS A SEARCH: {photos}/cow has 2 images" in said
    code, said = checked(capsys, str(write(tmp_path / "alone", {"ant": 5})))
    assert (code, "STOPS A SEARCH" in said) == (1, True)
    assert checked(capsys, str(tmp_path / "nowhere"))[0] == 2  # a mistake on the command line


def test_pictures_in_a_tar_are_checked_and_then_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = write(tmp_path / "photos", {"ant": 20, "bee": 20})
    for part in ("train", "test"):
        with tarfile.open(tmp_path / f"{part}.tar", "w") as tar:
            for number, path in enumerate(sorted(photos.rglob("*.png"))):
                if part == "test" and number % 5:
                    continue
                for ending, content in ((".png", path.read_bytes()), (".cls", path.parent.name.encode())):
                    member = tarfile.TarInfo(f"{number:03}{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    shutil.rmtree(photos)
    code, said = checked(capsys, str(tmp_path))
    assert code == 0
    assert "48 pictures of 2 classes (train 40, test 8), 0 unreadable" in said
    assert "look at: 8 pictures stand in several parts: " in said
    assert "train.tar/000.png = " in said
    assert len(load_splits(IMAGES.reading(tmp_path)).test) == 8
