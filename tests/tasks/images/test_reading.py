"""What is read of a picture is what a viewer shows, whatever the file."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from raysearch.errors import UserError
from raysearch.tasks.images import IMAGES, evaluation_array, read_image
from raysearch.tasks.images.reading import file_of, read_picture

PIXELS = np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3)
RAMP = (np.arange(256).reshape(16, 16) * 16).astype(np.uint16)
"""12-bit values: 0 to 4,080."""


def encoded(image: Image.Image, form: str, **settings: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **settings)
    return stream.getvalue()


def tiff(pixels: np.ndarray, **tags: int) -> bytes:
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        directory[{"photometric": 262, "most": 281}[name]] = value
    return encoded(Image.fromarray(pixels), "TIFF", tiffinfo=directory)


def first_pixel(content: bytes, mode: Any = "RGB") -> list[int]:
    return np.atleast_1d(np.asarray(read_image(content, mode))[0, 0]).tolist()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(form: str, orientation: int) -> None:
    """As numpy turns the same pixels; where each corner lies in the file is EXIF's definition of the eight values."""
    shown = {
        **{1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud},
        **{5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1)},
        **{7: lambda a: np.rot90(a.swapaxes(0, 1), 2), 8: lambda a: np.rot90(a, 1)},
    }[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = Image.fromarray(PIXELS)
    as_stored = np.asarray(read_image(encoded(image, form), "RGB"))
    np.testing.assert_array_equal(np.asarray(read_image(encoded(image, form, exif=exif), "RGB")), shown(as_stored))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["L", "I;16", "RGBA"])
def test_turned_pictures_are_the_same_from_a_path_and_from_bytes(tmp_path: Path, kind: str, orientation: int) -> None:
    """Uncompressed TIFFs of these kinds are those that PIL maps when it is given a path."""
    values = np.random.default_rng(0).integers(0, 256, (16, 24, 4))
    pixels = {"L": values[..., 0].astype(np.uint8), "I;16": (values[..., 0] * 257).astype(np.uint16)}
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / "turned.tif"
    Image.fromarray(pixels.get(kind, values.astype(np.uint8))).save(path, exif=exif)
    from_path, from_bytes = read_image(path, "RGB"), read_image(path.read_bytes(), "RGB")
    assert from_path.size == ((16, 24) if orientation >= 5 else (24, 16))
    np.testing.assert_array_equal(np.asarray(from_path), np.asarray(from_bytes))


def test_damaged_exif_does_not_hide_the_picture() -> None:
    content = encoded(Image.fromarray(PIXELS), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert read_image(content, "RGB").size == (24, 16)


def test_what_is_transparent_is_white() -> None:
    hidden = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0] * 256)
    for content in (
        *(encoded(hidden, "PNG"), encoded(hidden, "WEBP", lossless=True), encoded(hidden, "TIFF")),
        *(encoded(palette, "PNG", transparency=0), encoded(palette, "GIF", transparency=0)),
        encoded(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", transparency=(1, 2, 3)),
        encoded(Image.new("L", (4, 4), 7), "PNG", transparency=7),
        encoded(Image.new("LA", (4, 4), (7, 0)), "PNG"),
    ):
        assert first_pixel(content) == [255, 255, 255]
        assert first_pixel(content, "L") == [255]
    assert first_pixel(encoded(Image.new("LA", (4, 4), (10, 128)), "PNG"), "L") == [132]  # half of it


def png(bits: int, colour: int, row: bytes, transparent: bytes) -> bytes:
    """A PNG of two pixels, as Pillow writes none; ``colour`` 0 is grey, 2 RGB."""
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 2, 1, bits, colour, 0, 0, 0),
        b"tRNS": transparent,
        b"IDAT": zlib.compress(b"\0" + row),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(held)) + name + held + struct.pack(">I", zlib.crc32(name + held)) for name, held in chunks.items()
    )


@pytest.mark.parametrize(
    ("content", "other"),
    [
        (png(1, 0, bytes([0b01000000]), b"\0\0"), 255),
        (png(2, 0, bytes([0b01100000]), b"\0\1"), 170),
        (png(4, 0, bytes([0x37]), b"\0\3"), 119),
        (png(8, 0, bytes([3, 7]), b"\0\3"), 7),
        (png(16, 0, bytes([3, 1, 7, 0]), b"\3\1"), 7),
        (png(8, 2, bytes([1, 2, 3, 7, 7, 7]), bytes([0, 1, 0, 2, 0, 3])), 7),
        (png(16, 2, bytes([1, 9, 2, 9, 3, 9, *[7, 0] * 3]), bytes([1, 9, 2, 9, 3, 9])), 7),
    ],
    ids=["1 bit", "2 bits", "4 bits", "8 bits", "16 bits", "RGB", "RGB of 16 bits"],
)
def test_the_transparent_value_of_a_png_is_white_in_every_depth(content: bytes, other: int) -> None:
    assert np.asarray(read_image(content, "L")).tolist() == [[255, other]]
    assert np.asarray(read_image(content, "RGB")).tolist() == [[[255] * 3, [other] * 3]]


def test_transparent_values_do_not_hide_that_a_deep_picture_is_dark() -> None:
    content = png(16, 0, struct.pack(">HH", 65535, 4095), struct.pack(">H", 65535))
    assert read_picture(content, "L").brightest == pytest.approx(4095 / 65535)


@pytest.mark.parametrize(
    ("content", "brightest"),
    [
        (encoded(Image.fromarray(RAMP * 16), "PNG"), 254),
        (tiff(RAMP, most=4095), 254),
        (b"P5 2 1 4095\n" + np.array([0, 4095], ">u2").tobytes(), 255),
        (encoded(Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)), "TIFF"), 255),
        (encoded(Image.fromarray(np.full((4, 4), 65535, np.int32)), "TIFF"), 255),
    ],
)
def test_deep_pictures_keep_their_range(content: bytes, brightest: int) -> None:
    assert np.asarray(read_image(content, "L")).max() == brightest
    assert np.asarray(read_image(content, "RGB")).max() == brightest


def test_the_value_of_white_can_be_given() -> None:
    """It is needed where a file of 16 bits has values of 12 and does not say so."""
    content = encoded(Image.fromarray(RAMP), "PNG")
    assert read_picture(content, "L").brightest == pytest.approx(4080 / 65535)
    assert np.asarray(read_image(content, "L", white=4095)).max() == 254
    assert read_picture(content, "L", white=4095).brightest is None


def test_white_may_be_zero() -> None:
    inverted = np.asarray(read_image(tiff(RAMP * 16, photometric=0), "L"))
    assert (inverted[0, 0], inverted[-1, -1]) == (255, 1)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.full((4, 4), 70_000, np.int32), "values from 70000 to 70000.*--dataset.white"),
        (np.full((4, 4), -0.5, np.float32), "values from -0.5.*--dataset.white"),
        (np.full((4, 4), np.nan, np.float32), "no numbers"),
    ],
)
def test_values_without_a_meaning_are_refused(pixels: np.ndarray, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_image(encoded(Image.fromarray(pixels), "TIFF"), "L")


def test_other_colours_and_animations() -> None:
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    for content in (
        encoded(red.convert("CMYK"), "TIFF"),
        *(encoded(red, form, save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")]) for form in ("GIF", "PNG")),
        encoded(red, "WEBP", save_all=True, lossless=True, append_images=[Image.new("RGB", (8, 8), "blue")]),
        encoded(red, "PPM"),
    ):
        assert first_pixel(content) == [255, 0, 0]
    assert first_pixel(encoded(Image.new("1", (8, 8), 1), "TIFF")) == [255, 255, 255]
    assert first_pixel(encoded(Image.new("LAB", (4, 4), (255, 128, 128)), "TIFF"))[0] > 250
    np.testing.assert_allclose(first_pixel(encoded(red.convert("YCbCr"), "JPEG")), [255, 0, 0], atol=2)


def test_a_path_its_bytes_and_an_open_file_are_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(PIXELS).save(path)
    config = IMAGES
    arrays = [evaluation_array(path, config), evaluation_array(path.read_bytes(), config)]
    with path.open("rb") as file:
        arrays.append(evaluation_array(file, config))
    assert arrays[0].shape == (3, 224, 224)
    assert all(np.array_equal(arrays[0], other) for other in arrays)


@pytest.mark.parametrize(
    "damage", [lambda c: c[:60], lambda c: c[:20] + bytes(40) + c[60:], lambda _: b"", lambda _: b"<html>"]
)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM"])
def test_what_is_no_picture_is_a_users_error(tmp_path: Path, damage: Any, form: str) -> None:
    path = tmp_path / "broken"
    path.write_bytes(damage(encoded(Image.fromarray(PIXELS), form)))
    with suppress(UserError):
        # Where the bytes that were overwritten were pixels, no checksum tells.
        assert read_image(path, "RGB").size == (24, 16)
        return
    with pytest.raises(UserError, match=str(path)):
        read_image(path, "RGB")


def test_pixels_as_a_file_are_read_as_any_other() -> None:
    for pixels in (PIXELS, PIXELS[..., 0], PIXELS[..., :1], np.dstack([PIXELS, np.full((16, 24), 255, np.uint8)])):
        grey = pixels.ndim == 2 or pixels.shape[2] == 1
        found = np.asarray(read_image(file_of(pixels), "L" if grey else "RGB"))
        np.testing.assert_array_equal(found, PIXELS[..., 0] if grey else PIXELS)
    for wrong in (PIXELS / 255, PIXELS.transpose(2, 0, 1), PIXELS[:0], PIXELS[None]):
        with pytest.raises(UserError, match=r"pixels of \w+ \(.*: give"):
            file_of(wrong)
