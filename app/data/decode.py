"""The only decoder: a file or its bytes → an RGB array, the same for training and prediction."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from app.core.errors import ImageError
from app.data.decode_limits import (
    MAX_PIXELS,
    CountedFile,
    check_cost,
    check_header,
    too_many_pixels,
)
from app.data.headers import check_exif
from app.data.libtiff import silence as silence_libtiff
from app.data.photo_bytes import read_bytes

Pixels = NDArray[np.uint8]

# What cameras, phones and the web make. Others that Pillow knows (EPS, PSD, ...) run far more code
# on foreign bytes than photos are worth. HEIF joins them when the first such file is met.
FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF"]
SUFFIXES = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".gif": "GIF",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".avif": "AVIF",
    ".heic": "HEIF",
    ".heif": "HEIF",
}
NO_RANGE = "have no known range; save it as 8-bit"
VERSION = 1  # part of the cache's key: raise it when a file's decoded or resized pixels change
STRIP = 1_000_000  # pixels converted at a time: the whole beside its copies would not fit 512 MiB

# Pillow asks before it makes a canvas; app.data.decode_limits asks again, more strictly, before
# decoding.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
# Oddities that a decoder remarks on (broken EXIF, say) are no concern of the person who waits.
warnings.filterwarnings("ignore", module=r"PIL\..*")
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its errors go to stderr


def read_image(source: Path | bytes) -> Pixels:
    """Decode a photo completely.

    EXIF orientation is applied, transparency is laid on white, greyscale, palette, CMYK and 16-bit
    pictures become RGB, and an animation gives its first frame.

    Args:
        source: a path, or the bytes of a file.

    Returns:
        uint8 array of shape ``(height, width, 3)``, RGB, 0–255.

    Raises:
        ImageError: with the reason, when there is no whole photo in ``source``.
    """
    return decode(read_bytes(source) if isinstance(source, Path) else source)[0]


def decode(data: bytes) -> tuple[Pixels, str]:
    """Decode the bytes of a file; return the pixels and Pillow's name of the format found.

    Raises:
        ImageError: as ``read_image``.
    """
    if not data:
        raise ImageError("the file is empty (0 bytes)", "empty")
    try:
        header = check_header(data)
        if data[4:8] == b"ftyp":
            _register_heif()
        elif data[:2] in (b"II", b"MM"):
            silence_libtiff()
        with Image.open(CountedFile(data), formats=FORMATS) as image:
            check_cost(image, data, header)
            # MPO is what phones save: a JPEG with a second picture behind it.
            found = "JPEG" if image.format == "MPO" else str(image.format)
            pixels, orientation = _to_rgb(image), _orientation(image)
        del image  # its pixels go before they are turned: both at once would not fit
        return _upright(pixels, orientation), found
    except UnidentifiedImageError:
        raise ImageError(f"not a photo: {_what_it_is(data)}", "not_a_photo") from None
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise too_many_pixels(str(error)) from None
    # Decoders of foreign bytes raise nearly anything: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__  # in one line
        raise ImageError(f"damaged: {said}") from error


def resize(image: Pixels, size: int) -> Pixels:
    """Resize to a square, the whole picture squeezed into it, with an antialiased bilinear filter.

    Args:
        image: uint8 ``(height, width, 3)``.
        size: height and width of the result in pixels.

    Returns:
        uint8 ``(size, size, 3)``.
    """
    whole = Image.fromarray(image)
    del (
        image
    )  # goes now, where the caller has let go of it: resizing a tall picture takes its place
    return np.asarray(whole.resize((size, size), Image.Resampling.BILINEAR))


def load_image(source: Path | bytes, size: int) -> Pixels:
    """Decode and resize: what the network sees of a file, in training as in prediction.

    Raises:
        ImageError: as ``read_image``.
    """
    return resize(read_image(source), size)


def _to_rgb(image: Image.Image) -> Pixels:
    image.seek(0)
    image.load()
    if image.mode == "F":
        raise ImageError(f"floating-point pixels {NO_RANGE}", "no_range")
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top, strip in _strips(image):
        if strip.mode.startswith("I"):
            strip = _eight_bits(strip)
        if strip.has_transparency_data:
            rgba = strip.convert("RGBA")
            strip = Image.new("RGBA", rgba.size, "white")
            strip.alpha_composite(rgba)
        pixels[top : top + strip.height] = np.asarray(strip.convert("RGB"))
    return pixels


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield the rows at which strips of an image begin, and the strips."""
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _orientation(image: Image.Image) -> int:
    for key in ("exif", "Raw profile type exif"):
        check_exif(len(image.info.get(key) or b""))
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # unreadable EXIF is as good as none; the pixels are sound
        return 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn pixels as EXIF's orientation asks; unknown numbers ask for nothing.

    Source:
        EXIF 2.32, 4.6.4 A, tag 0x0112: where row 0 and column 0 of the stored picture belong.
    """
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit greyscale to 8 bits; Pillow's own conversion cuts off everything above 255."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(f"integer pixels beyond 16 bits {NO_RANGE}", "no_range")
    return Image.fromarray((values >> 8).astype(np.uint8))


def _register_heif() -> None:
    import pillow_heif  # an import that only HEIC files need

    if "HEIF" not in FORMATS:
        pillow_heif.register_heif_opener()
        FORMATS.append("HEIF")


def _what_it_is(data: bytes) -> str:
    """Say in plain words what a file without a photo seems to hold."""
    if not data.strip(b"\0"):
        return f"{len(data)} zero bytes"
    known = {
        b"PK\x03\x04": "a zip archive or an office document",
        b"\xd0\xcf\x11\xe0": "an old Office document or a thumbnail database",
        b"%PDF": "a PDF document",
        b"\xff\xd8": "only the beginning of a JPEG",
    }
    for magic, name in known.items():
        if data.startswith(magic):
            return name
    try:
        text = data[:256].decode("utf-8").lstrip().lower()
    except UnicodeDecodeError:
        return "unknown bytes"
    return "a web page or drawing (HTML, XML, SVG)" if text.startswith("<") else "text"
