"""The only decoder: a file or its bytes → an RGB array, the same for training and prediction.

A file may cost 512 MiB and two seconds, decoded and resized. Its header is walked before a decoder
sees it (``app.data.photo_file``), and its pixels are counted before they are decoded. Only the file
decides, not the clock or the machine: a photo that the audit accepted is accepted later, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import functools
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.Image import Transpose
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

from app.core.config import MAX_IMAGE_SIZE
from app.core.errors import ImageError
from app.data.colour import profile_transform, to_srgb
from app.data.file_kinds import (
    refuse_other_kinds,
    refuse_rare_jpeg,
    refuse_raw,
    unknown_kind,
)
from app.data.photo_file import Header, read_bytes, walk

Pixels = NDArray[np.uint8]

# What cameras, phones and the web make. Others that Pillow knows (EPS, PSD, ...) run far more code
# on foreign bytes than photos are worth. HEIF joins them when the first such file is met.
FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000"]
SUFFIXES = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".gif": "GIF",
    ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM", ".pgm": "PPM",
    ".avif": "AVIF", ".heic": "HEIF", ".heif": "HEIF", ".jp2": "JPEG2000", ".j2k": "JPEG2000",
    ".jpf": "JPEG2000", ".jpx": "JPEG2000",
}  # fmt: skip
NO_RANGE = "have no known range; save it as 8-bit"
VERSION = 3  # part of the cache's key: raise it when a file's decoded or resized pixels change
STRIP = 1_000_000  # pixels converted at a time: the whole beside its copies would not fit 512 MiB
# What turns a stored picture upright, by EXIF's orientation (EXIF 2.32, 4.6.4 A, tag 0x0112).
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE, 6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}  # fmt: skip

MAX_PIXELS = 64_000_000  # two seconds: 64 million took 1.6 s as a PNG, 0.6 s as a JPEG
MAX_MEMORY = 512 * 1024**2
MAX_SIDE = 65_535  # a JPEG's; a panorama of MAX_PIXELS may be 67 to 1
# A pointer in each of two copies, two coefficients of the resize, and what they are counted with.
BYTES_A_SIDE = 64
# What decoding takes at its peak beside the file itself, the array that comes out included;
# measured at 62 million pixels (docs/experiments.md).
BYTES_A_PIXEL = {"AVIF": 16, "HEIF": 10, "JPEG2000": 30, "TIFF": 12, "WEBP": 17}
USUAL_BYTES = 7  # 4 in Pillow, 3 in the array
BYTES_IN_SCANS = 12  # a JPEG in several scans: all coefficients are held, up to 4 × 2 bytes
BYTES_IN_HDR = 16  # HEIF beyond 8 bits
# Decoders that Pillow has in Python: a microsecond a pixel.
DECODERS = 4  # photos decoded at once at most: each may take MAX_MEMORY
SLOW_DECODERS = {"bmp_rle", "ppm", "ppm_plain"}
MAX_SLOW_PIXELS = 1_000_000
# JPEG 2000 takes 40 ns a pixel and 110 ns a byte, so that a byte counts as three pixels.
MAX_JPEG2000, JPEG2000_BYTE = 40_000_000, 3
MAX_READS = 1_000_000  # a PNG of 60 MB in pieces of 8 kB takes 30,000

# Pillow checks this before it makes a canvas; ``_check_cost`` is stricter, before decoding.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
# Oddities that a decoder warns of (broken EXIF, for example) are of no use to the user.
warnings.filterwarnings("ignore", module=r"PIL\..*")
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its errors go to stderr


def read_image(source: Path | bytes) -> Pixels:
    """Decode a photo completely.

    EXIF orientation is applied, an embedded colour profile becomes sRGB, transparency is laid on
    white, greyscale, palette, CMYK and 16-bit pictures become RGB, and an animation gives its first
    frame. A JPEG of 2,048 pixels or more on its shorter side becomes smaller (``decode``).

    Args:
        source: a path, or the bytes of a file.

    Returns:
        uint8 array of shape ``(height, width, 3)``, RGB, 0–255.

    Raises:
        ImageError: with the reason, when there is no whole photo in ``source``.
    """
    return decode(read_bytes(source) if isinstance(source, Path) else source, shrink=True)[0]


def decode(data: bytes, *, shrink: bool = False) -> tuple[Pixels, str]:
    """Decode the bytes of a file; return the pixels and Pillow's name of the format found.

    Args:
        data: of the file.
        shrink: let libjpeg decode a JPEG at a half, a quarter or an eighth, where its shorter side
            stays as long as the largest ``--image-size``. 12 million pixels then take 36 ms with
            the resize to 320 pixels instead of 84, and the result differs by 0.16 of 255 on
            average (docs/experiments.md).

    Raises:
        ImageError: as ``read_image``.
    """
    if not data:
        raise ImageError("the file is empty (0 bytes)", "empty")
    try:
        refuse_other_kinds(data)
        header = walk(data)
        refuse_rare_jpeg(header)
        if len(data) + header.memory > MAX_MEMORY:
            raise ImageError("more metadata than any photo has; save it again")
        if data[4:8] == b"ftyp":
            _register_heif()
        elif data[:2] in (b"II", b"MM"):
            _silence_libtiff()
        with Image.open(_CountedFile(data), formats=FORMATS) as image:
            if isinstance(image, TiffImageFile):
                refuse_raw(image)
            _check_cost(image, data, header)
            # MPO is what phones save: a JPEG with a second picture behind it.
            found = "JPEG" if image.format == "MPO" else str(image.format)
            if shrink and found == "JPEG":
                image.draft(None, (MAX_IMAGE_SIZE, MAX_IMAGE_SIZE))
            return _upright_rgb(image, header), found
    except UnidentifiedImageError:
        raise unknown_kind(data) from None
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(str(error)) from None
    # Decoders of foreign bytes raise nearly anything: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__  # in one line
        raise ImageError(f"damaged: {reason}") from error


def resize(image: Pixels, size: int) -> Pixels:
    """Resize to a square, the whole picture squeezed into it, with an antialiased bilinear filter.

    Args:
        image: uint8 ``(height, width, 3)``.
        size: height and width of the result in pixels.

    Returns:
        uint8 ``(size, size, 3)``.
    """
    whole = Image.fromarray(image)
    del image  # freed now unless the caller holds it: resizing a tall picture needs its memory
    return np.asarray(whole.resize((size, size), Image.Resampling.BILINEAR))


def load_image(source: Path | bytes, size: int) -> Pixels:
    """Decode and resize: what the network sees of a file, in training as in prediction.

    Raises:
        ImageError: as ``read_image``.
    """
    return resize(read_image(source), size)


class _CountedFile(io.BytesIO):
    """A file in memory that may be read in at most ``MAX_READS`` pieces.

    A million empty chunks or markers are only a few megabytes, and minutes of work for Pillow.
    """

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as ``io.BytesIO`` does; raise ImageError after ``MAX_READS`` pieces."""
        self.reads += 1
        if self.reads > MAX_READS:
            raise ImageError("cut into more pieces than any photo; save it again", "too_costly")
        return super().read(size)


def _upright_rgb(image: Image.Image, header: Header) -> Pixels:
    """Return the pixels, converted and turned strip by strip: a whole copy would not fit."""
    image.seek(0)
    image.load()
    if image.mode == "F":
        raise ImageError(f"floating-point pixels {NO_RANGE}", "no_range")
    orientation, transform = _orientation(image, header), profile_transform(image)
    sideways, backwards = orientation in (5, 6, 7, 8), orientation in (3, 4, 6, 7)
    width, height = image.size
    pixels = np.empty((width, height, 3) if sideways else (height, width, 3), np.uint8)
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        strip = image.crop((0, top, width, bottom))
        if strip.mode.startswith("I"):
            strip = _eight_bits(strip)
        if transform is not None:
            strip = to_srgb(strip, transform)
        if strip.has_transparency_data:
            white = Image.new("RGBA", strip.size, "white")
            strip = Image.alpha_composite(white, strip.convert("RGBA"))
        strip = strip.convert("RGB")
        if orientation in UPRIGHT:
            strip = strip.transpose(UPRIGHT[orientation])
        place = slice(height - bottom, height - top) if backwards else slice(top, bottom)
        pixels[(slice(None), place) if sideways else place] = np.asarray(strip)
    return pixels


def _orientation(image: Image.Image, header: Header) -> int:
    for key in ("exif", "Raw profile type exif"):
        header.exif(len(image.info.get(key) or b""))
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # unreadable EXIF is as good as none; the pixels are sound
        return 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit greyscale to 8 bits; Pillow's own conversion clips everything above 255."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(f"integer pixels beyond 16 bits {NO_RANGE}", "no_range")
    return Image.fromarray((values >> 8).astype(np.uint8))


def _check_cost(image: Image.Image, data: bytes, header: Header) -> None:
    """Refuse an opened, not yet decoded image that would take too much memory or time."""
    width, height = image.size
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            f"the header announces {width} × {height} pixels, more than the {MAX_SIDE} a side that "
            "are read; make it smaller"
        )
    name = str(image.format)
    each = BYTES_A_PIXEL.get(name, USUAL_BYTES)
    if header.held:
        each = BYTES_IN_SCANS
    elif name == "HEIF" and image.info.get("bit_depth", 8) > 8:
        each = BYTES_IN_HDR
    elif isinstance(image, TiffImageFile):
        each = max(each, 8 + sum(image.tag_v2.get(BITSPERSAMPLE, (8,))) // 8)
    room = MAX_MEMORY - len(data) - header.memory - BYTES_A_SIDE * (width + height)
    most = min(MAX_PIXELS, room // each)
    if any(tile.codec_name in SLOW_DECODERS for tile in getattr(image, "tile", ())):
        most = MAX_SLOW_PIXELS
    if name == "JPEG2000":
        most = min(most, max(0, MAX_JPEG2000 - JPEG2000_BYTE * len(data)))
    pixels = max(width * height, header.coded)
    if pixels > most:
        raise _too_many_pixels(f"{pixels}", most)


def _too_many_pixels(text: str, most: int = MAX_PIXELS) -> ImageError:
    """Return the error for a header that announces as many pixels as the first number in a text."""
    announced = int(re.findall(r"\d+", text)[0])
    return ImageError(
        f"the header announces {announced:,} pixels, more than the {most:,} that are read of such "
        "a file; make it smaller",
        "too_costly",
    )


def _register_heif() -> None:
    import pillow_heif  # an import that only HEIC files need

    if "HEIF" not in FORMATS:
        pillow_heif.register_heif_opener()
        FORMATS.append("HEIF")


@functools.cache
def _silence_libtiff() -> None:
    """Stop libtiff from printing on stderr; Pillow raises for the same faults.

    Where Pillow has libtiff built in (Windows), it cannot be reached, and nothing happens.
    """
    for path in _libtiffs():
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(path)
            for setter in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
                setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
                setter(None)


def _libtiffs() -> Iterator[str]:
    """Yield where libtiff may lie: with a wheel of Pillow, or in the system."""
    package = Path(PIL.__file__).parent
    for folder in (package.parent / "pillow.libs", package / ".dylibs"):
        yield from map(str, folder.glob("libtiff*"))
    found = ctypes.util.find_library("tiff")
    if found:
        yield found
