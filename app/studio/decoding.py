"""What the page needs of a photo, made in a decoder's process (``app.serving.decoders``)."""

from __future__ import annotations

import io

from PIL import Image

from app.data.decode import Pixels, read_image, resize

THUMBNAIL = 320  # pixels of the longer side
QUALITY = 85  # of its JPEG


def for_screen(data: bytes, longest: int) -> bytes:
    """Return a photo as a JPEG of at most so many pixels, upright and in sRGB.

    Raises:
        ImageError: when the file is no photo.
    """
    return _jpeg(read_image(data), longest)


def for_teaching(data: bytes, size: int) -> tuple[Pixels, bytes]:
    """Return a photo as the network sees it, uint8 ``(size, size, 3)``, and its thumbnail, a JPEG.

    Raises:
        ImageError: when the file is no photo.
    """
    pixels = read_image(data)
    return resize(pixels, size), _jpeg(pixels, THUMBNAIL)


def _jpeg(pixels: Pixels, longest: int) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
