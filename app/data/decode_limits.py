"""What one file may cost, decoded and resized: 512 MiB and two seconds, decided beforehand.

First the header is walked (``app.data.headers``), before a decoder sees it; then the opened file's
pixels are counted, before they are decoded. The rules look at the file alone, never at the clock
or the machine: a photo that the audit accepted is accepted at every later reading, too.
"""

from __future__ import annotations

import io
import re

from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

from app.core.errors import ImageError
from app.data.headers import Header, walk

MAX_PIXELS = 64_000_000  # two seconds: 64 million took 1.6 s as a PNG, 0.6 s as a JPEG
MAX_MEMORY = 512 * 1024**2
MAX_SIDE = 65_535  # a JPEG's; a panorama of MAX_PIXELS may be 67 to 1
# A pointer in each of two copies, two coefficients of the resize, and what they are counted with.
BYTES_A_SIDE = 64
# What decoding takes at its peak beside the file itself, the array that comes out included;
# measured at 62 million pixels (docs/experiments.md).
BYTES_A_PIXEL = {"AVIF": 16, "HEIF": 10, "TIFF": 12, "WEBP": 17}
USUAL_BYTES = 7  # 4 in Pillow, 3 in the array
BYTES_IN_SCANS = 12  # a JPEG in several scans: all coefficients are held, up to 4 × 2 bytes
BYTES_IN_HDR = 16  # HEIF beyond 8 bits
# Decoders that Pillow has in Python: a microsecond a pixel.
SLOW_DECODERS = {"bmp_rle", "ppm", "ppm_plain"}
MAX_SLOW_PIXELS = 1_000_000
MAX_READS = 1_000_000  # a PNG of 60 MB in pieces of 8 kB takes 30,000


class CountedFile(io.BytesIO):
    """A file in memory that gives up on being read in ever more and ever smaller pieces.

    A million empty chunks or markers are only a few megabytes, and minutes of work for Pillow.
    """

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as ``io.BytesIO`` does.

        Raises:
            ImageError: after ``MAX_READS`` pieces.
        """
        self.reads += 1
        if self.reads > MAX_READS:
            raise ImageError("cut into more pieces than any photo; save it again", "too_costly")
        return super().read(size)


def check_header(data: bytes) -> Header:
    """Refuse a file whose header breaks the rule of ``app.data.headers``.

    Raises:
        ImageError: with what is too much.
    """
    header = walk(data)
    if len(data) + header.memory > MAX_MEMORY:
        raise ImageError("more metadata than any photo has; save it again")
    return header


def check_cost(image: Image.Image, data: bytes, header: Header) -> None:
    """Refuse an opened, not yet decoded image that would take too much memory or time.

    Raises:
        ImageError: with the size that its header announces, or what else is too much.
    """
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
    pixels = max(width * height, header.coded)
    if pixels > most:
        raise too_many_pixels(f"{pixels}", most)


def too_many_pixels(text: str, most: int = MAX_PIXELS) -> ImageError:
    """Return the error for a header that announces as many pixels as the first number in a text."""
    announced = int(re.findall(r"\d+", text)[0])
    return ImageError(
        f"the header announces {announced / 1e6:,.1f} million pixels, more than the "
        f"{most / 1e6:.0f} million that are read of such a file; make it smaller",
        "too_costly",
    )
