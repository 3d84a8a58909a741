"""From the bytes of a picture to pixels: what a viewer shows, in grey or colour with 8 bits.

Training, scoring, export and prediction all read through :func:`read_image`; docs/images.md tells its rules.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import ExifTags, Image, ImageCms

from raysearch.errors import UserError
from raysearch.store.names import shown

Mode = Literal["L", "RGB"]
"""PIL's names for grey and colour."""

Source = Path | bytes | BinaryIO
"""A file, its content, or an open one."""

READER = 3
"""Version of these rules: part of the identity of a data set, as other rules give other pixels. 0.1.0 had version 1."""

BACKGROUND = (255, 255, 255)
"""What shows through transparent parts: white, as a page does."""

# PIL warns of notes beside the pixels that it cannot read; the pixels are what matters, and those it refuses by an error.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

# What PIL raises for files that are no images, are cut off, claim an absurd size, or are damaged inside.
_UNREADABLE = (
    *(OSError, SyntaxError, ValueError, LookupError, ArithmeticError, EOFError, TypeError, AttributeError, RuntimeError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)

_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that was read."""

    image: Image.Image
    """Grey (L) or RGB, upright, without transparency."""
    brightest: float | None = None
    """Where the file has more than 8 bits and does not say what white is: its greatest value as a share of the white taken."""
    stored_as: str = ""
    """PIL's name for the kind of pixels in the file, as CMYK; with an A at its end where some may be transparent."""


def read_image(source: Source, mode: Mode, *, white: float | None = None) -> Image.Image:
    """The picture in a file, as a viewer shows it, in ``mode``.

    The first frame of an animation, turned as its EXIF says, over :data:`BACKGROUND`. ``white`` is the value of white in grey
    pictures of more than 8 bits; when not given it is what the file states, else 65,535, or 1 for floating-point pictures.

    Raises UserError that names the file when it cannot be read, and for values that ``white`` does not explain.
    """
    return read_picture(source, mode, white=white).image


def read_picture(source: Source, mode: Mode, *, white: float | None = None, name: str = "the picture") -> Picture:
    """As :func:`read_image`, with what the file left open. ``name`` is what errors call a picture that is no path."""
    name = shown(source) if isinstance(source, Path) else name
    try:
        # Never from the path: PIL maps uncompressed TIFFs then, in the size that they have when they are turned.
        with Image.open(_stream(source.read_bytes() if isinstance(source, Path) else source)) as opened:
            stored_as = opened.mode + ("A" if "transparency" in opened.info else "")
            image, brightest = _eight_bits(opened, white)
            return Picture(_over_background(_upright(image, opened), mode), brightest, stored_as)
    except UserError as error:
        raise UserError(f"{name} {error}") from None
    except _UNREADABLE as error:
        raise UserError(f"{name} is not a readable image ({_reason(error, source)}): replace or remove it") from None


def read_header(source: Source, *, name: str = "the picture") -> tuple[int, int]:
    """Height and width as the file begins. Raises UserError that names the file when it does not begin as an image."""
    try:
        with Image.open(source if isinstance(source, Path) else _stream(source)) as image:
            return image.height, image.width
    except _UNREADABLE as error:
        name = shown(source) if isinstance(source, Path) else name
        raise UserError(f"{name} is not a readable image ({_reason(error, source)}): replace or remove it") from None


def file_of(pixels: np.ndarray) -> bytes:
    """Pixels as a file in memory: from here on they are read as any other, grey, colour and alpha included.

    Raises UserError for what may be no picture, as prepared floats or channels first, instead of guessing.
    """
    given = f"pixels of {pixels.dtype} {pixels.shape}"
    if pixels.dtype != np.uint8:
        raise UserError(f"{given}: give uint8 from 0 to 255, not normalised")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))) or not pixels.size:
        raise UserError(f"{given}: give one picture as (height, width) or (height, width, 3), RGB, channels last")
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=0)
    return file.getvalue()


def to_array(image: Image.Image) -> UInt8[np.ndarray, "chans height width"]:
    """Pixels of a grey or RGB image, channels first."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _stream(source: bytes | BinaryIO) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _reason(error: BaseException, source: Source) -> str:
    """PIL's words without the path, which the message already shows."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    text = text.replace(f" {str(source)!r}", "") if isinstance(source, Path) else text
    return shown(text.partition(" <_io")[0])


# --- orientation and transparency -------------------------------------------------------------------------------------


def _upright(image: Image.Image, opened: Image.Image) -> Image.Image:
    try:
        orientation = opened.getexif().get(ExifTags.Base.Orientation)
    except _UNREADABLE:  # a damaged note beside the pixels: viewers show the picture all the same
        return image
    method = _TURNED.get(cast(Any, orientation))
    return image if method is None else image.transpose(method)


def _over_background(image: Image.Image, mode: Mode) -> Image.Image:
    if image.mode in ("La", "RGBa"):  # colours already multiplied by their alpha
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*BACKGROUND, 255)), image).convert("RGB")
    if image.mode == "LAB":  # which PIL converts by a colour profile only
        image = cast(
            Image.Image,
            ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"),
        )
    if image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    converted = image.convert(mode)
    converted.info = {}  # pixels are all that is wanted of it
    return converted


# --- more than 8 bits -------------------------------------------------------------------------------------------------


def _eight_bits(image: Image.Image, white: float | None) -> tuple[Image.Image, float | None]:
    """Grey pictures of 16 or 32 bits, whole or floating-point, brought to 8 by what their white is; all others as they are."""
    transparent = _transparent_value(image)
    image.load()
    if image.mode != "F" and not image.mode.startswith("I"):
        if transparent is not None:
            image.info["transparency"] = transparent
        return image, None
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise UserError("has values that are no numbers: replace or remove it")
    hidden = values == transparent
    values[hidden] = 0  # they show nothing of the range
    stated = _stated_white(image)
    taken = white or stated or (1.0 if image.mode == "F" else 65535.0)
    if white is None and (values.max() > taken or values.min() < 0):
        raise UserError(
            f"has values from {values.min():g} to {values.max():g}, where white is taken to be {taken:g}: give the value of "
            "white in these pictures with --dataset.white"
        )
    shares = np.clip(values / taken, 0, 1)
    if _tiff_tag(image, 262) == 0:  # PhotometricInterpretation: white is zero; PIL turns that for 8 bits only
        shares = 1 - shares
    shares[hidden] = 1  # as BACKGROUND
    bytes_ = Image.fromarray(_bytes(shares))
    return bytes_, float(values.max() / taken) if white is None and stated is None else None


def _transparent_value(image: Image.Image) -> Any:
    """The value or colour that a PNG says is transparent, on the scale to which PIL brings its pixels; None where it says none.

    PIL scales pixels of 2, 4 and 3 x 16 bits to 8, but not this value. Asked before the picture is loaded.
    """
    value = image.info.get("transparency")
    if image.format != "PNG" or value is None:
        return None
    stored_as = next((tile.args for tile in cast(Any, image).tile), "")
    if stored_as == "RGB;16B":
        return tuple(channel >> 8 for channel in value)
    return value * {"L;2": 85, "L;4": 17}.get(stored_as, 1)


def _bytes(shares: Shaped[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width"]:
    return np.rint(shares * 255).astype(np.uint8)


def _stated_white(image: Image.Image) -> float | None:
    """What the file says that white is; None when it does not."""
    if image.format == "PPM" and image.mode == "I":
        return 65535.0  # PIL has scaled it by the file's own maximum
    if (most := _tiff_tag(image, 281)) is not None and most > 0:  # MaxSampleValue
        return float(most)
    bits = _tiff_tag(image, 258)  # BitsPerSample: 16 is what the file takes, not what its values reach
    return float(2**bits - 1) if bits is not None and 8 < bits < 16 else None


def _tiff_tag(image: Image.Image, number: int) -> int | None:
    value = getattr(image, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) and value else cast(int | None, value)
