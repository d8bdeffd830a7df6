"""The only decoder: a file or its bytes → an RGB array, the same for training and prediction."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from app.errors import ImageError
from app.reading import read_bytes

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
VERSION = 1  # part of the cache's key: raise it when a file's decoded or resized pixels change
MAX_PIXELS = 64_000_000  # 192 MB as RGB; a rotated copy beside it stays under 512 MiB

# Size is checked here, before decoding, with a message of ours instead of a warning on stderr.
Image.MAX_IMAGE_PIXELS = None
# Oddities that a decoder remarks on (broken EXIF, say) are no concern of the person who waits.
warnings.filterwarnings("ignore", module=r"PIL\..*")


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
        raise ImageError("the file is empty (0 bytes)")
    try:
        if data[4:8] == b"ftyp":
            _register_heif()
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(
                    f"the header announces {width}×{height} pixels, more than the "
                    f"{MAX_PIXELS // 1_000_000} million that are read; make it smaller"
                )
            # MPO is what phones save: a JPEG with a second picture behind it.
            found = "JPEG" if image.format == "MPO" else str(image.format)
            return _to_rgb(image), found
    except UnidentifiedImageError:
        raise ImageError(f"not a photo: {_what_it_is(data)}") from None
    except ImageError:
        raise
    # Decoders of foreign bytes raise nearly anything: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise ImageError(f"damaged: {str(error).strip() or type(error).__name__}") from error


def resize(image: Pixels, size: int) -> Pixels:
    """Resize to a square, the whole picture squeezed into it, with an antialiased bilinear filter.

    Args:
        image: uint8 ``(height, width, 3)``.
        size: height and width of the result in pixels.

    Returns:
        uint8 ``(size, size, 3)``.
    """
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def load_image(source: Path | bytes, size: int) -> Pixels:
    """Decode and resize: what the network sees of a file, in training as in prediction.

    Raises:
        ImageError: as ``read_image``.
    """
    return resize(read_image(source), size)


def _to_rgb(image: Image.Image) -> Pixels:
    image.seek(0)
    image.load()
    image = _upright(image)
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    elif image.mode == "F":
        raise ImageError("floating-point pixels have no known range; save it as 8-bit")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGBA", rgba.size, "white")
        image.alpha_composite(rgba)
    return np.array(image.convert("RGB"))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # unreadable EXIF is as good as none; the pixels are sound
        return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit greyscale to 8 bits; Pillow's own conversion cuts off everything above 255."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError("integer pixels beyond 16 bits have no known range; save it as 8-bit")
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
