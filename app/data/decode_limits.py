"""What decoding one file may cost: 512 MiB and two seconds, decided before the pixels are decoded.

The rules look at the file alone, never at the clock or the machine: a photo that the audit
accepted is accepted at every later reading, too.
"""

from __future__ import annotations

import io
import re

from PIL import Image

from app.core.errors import ImageError

MAX_PIXELS = 64_000_000  # two seconds: 64 million took 1.6 s as a PNG, 0.6 s as a JPEG
MAX_MEMORY = 512 * 1024**2
# What decoding takes at its peak beside the file itself, the array that comes out included;
# measured at 62 million pixels (docs/experiments.md).
BYTES_A_PIXEL = {"AVIF": 16, "HEIF": 10, "TIFF": 12, "WEBP": 17}
USUAL_BYTES = 7  # 4 in Pillow, 3 in the array
BYTES_IN_SCANS = 12  # a JPEG in several scans: all coefficients are held, up to 4 × 2 bytes
BYTES_IN_HDR = 16  # HEIF beyond 8 bits
# Decoders that Pillow has in Python: a microsecond a pixel.
SLOW_DECODERS = {"bmp_rle", "ppm", "ppm_plain"}
MAX_SLOW_PIXELS = 1_000_000
MAX_SCANS = 32  # encoders write 10, or 18 in CMYK; each costs 28 ms at 62 million pixels
MAX_READS = 1_000_000  # a PNG of 60 MB in pieces of 8 kB takes 30,000

# Without "\xff+": that goes back over a run of fill bytes from each byte of it, and holds the GIL.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
# libjpeg begins a run of fill bytes anew with every 64 KiB that it is given: 20 MB took 3 s.
_FILL = b"\xff" * 65_536
_START_OF_SCAN, _END_OF_IMAGE = b"\xda", b"\xd9"


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


def check_cost(image: Image.Image, data: bytes) -> None:
    """Refuse an opened, not yet decoded image that would take too much memory or time.

    Raises:
        ImageError: with the size that its header announces, or what else is too much.
    """
    name = str(image.format)
    scans = _count_scans(data) if name in ("JPEG", "MPO") else 1
    if scans > MAX_SCANS:
        raise ImageError(
            f"more than {MAX_SCANS} scans, as only bombs have; save it again", "too_costly"
        )
    each = BYTES_A_PIXEL.get(name, USUAL_BYTES)
    if scans > 1:
        each = BYTES_IN_SCANS
    elif name == "HEIF" and image.info.get("bit_depth", 8) > 8:
        each = BYTES_IN_HDR
    most = min(MAX_PIXELS, (MAX_MEMORY - len(data)) // each)
    if any(tile.codec_name in SLOW_DECODERS for tile in getattr(image, "tile", ())):
        most = MAX_SLOW_PIXELS
    width, height = image.size
    if width * height > most:
        raise too_many_pixels(f"{width * height}", most)


def too_many_pixels(text: str, most: int = MAX_PIXELS) -> ImageError:
    """Return the error for a header that announces as many pixels as the first number in a text."""
    announced = int(re.findall(r"\d+", text)[0])
    return ImageError(
        f"the header announces {announced / 1e6:,.1f} million pixels, more than the "
        f"{most / 1e6:.0f} million that are read of such a file; make it smaller",
        "too_costly",
    )


def _count_scans(data: bytes) -> int:
    """Count the scans of a JPEG as a decoder would meet them, up to one more than are allowed.

    Raises:
        ImageError: for a long run of fill bytes.
    """
    scans, place = 0, 2
    while scans <= MAX_SCANS:
        found = _MARKER.search(data, place)
        if data.find(_FILL, place, found.start() if found else len(data)) >= 0:
            raise ImageError(
                "a long run of bytes 255, as erased memory has; save it again", "too_costly"
            )
        if not found or found[1] == _END_OF_IMAGE:
            break
        scans += found[1] == _START_OF_SCAN
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return scans
