"""Embedded colour profiles: what colours a file's numbers mean, turned into sRGB.

Networks and screens take pixels for sRGB. Phones save Display P3, cameras Adobe RGB, print shops
CMYK: with the profile left aside, a P3 red is too brown.

Source:
    ICC.1:2022 (profiles); IEC 61966-2-1 (sRGB). Computed by Little CMS, through Pillow's ImageCms.
"""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

MAX_PROFILE = 4 * 2**20  # bytes; those of presses have 0.5 to 3 million
# Pixels that are converted, by mode: a photo may take two seconds, and RGB takes 16 ns a pixel,
# CMYK 42. In larger pictures they stay as they are.
MAX_PIXELS = {"RGB": 50_000_000, "L": 50_000_000, "CMYK": 24_000_000}
SAME = 2  # of 255: the sRGB profiles of HP, Canon and Little CMS move colours by at most 1
# A list of calculations of any length, each at every place of a table: hours from 4 MB.
_NOT_READ = b"mpet"
# A profile's kind of numbers → Pillow's mode for them.
_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_GRID = np.arange(0, 256, 17, dtype=np.uint8)


def profile_transform(image: Image.Image) -> ImageCmsTransform | None:
    """Return what turns the colours of a decoded picture into sRGB; None where nothing does.

    That is: it has no profile, one that is sRGB itself, one for other numbers than its pixels are,
    or one that cannot be read; or it is too large (``MAX_PIXELS``).
    """
    profile = image.info.get("icc_profile")
    if not profile or len(profile) > MAX_PROFILE or _NOT_READ in profile:
        return None
    transform = _transform(profile)
    mode = "L" if image.mode in ("LA", "La") or image.mode.startswith("I") else image.mode
    mode = "RGB" if mode in ("RGBA", "RGBX", "P", "PA") else mode
    if transform is None or transform.input_mode != mode:
        return None
    return transform if image.width * image.height <= MAX_PIXELS[mode] else None


def to_srgb(image: Image.Image, transform: ImageCmsTransform) -> Image.Image:
    """Return a picture in sRGB, with its transparency: mode RGB or RGBA."""
    colours = transform.apply(image.convert(transform.input_mode))
    if image.has_transparency_data:
        colours.putalpha(image.convert("RGBA").getchannel("A"))
    return colours


@functools.lru_cache(maxsize=8)  # the photos of a folder come from a few cameras
def _transform(profile: bytes) -> ImageCmsTransform | None:
    from PIL import ImageCms  # an import that only files with a profile need

    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _MODES[opened.profile.xcolor_space]
        transform = ImageCms.buildTransform(
            opened,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,  # black ink becomes black
        )
        return None if mode != "CMYK" and _is_identity(transform) else transform
    except (ImageCms.PyCMSError, OSError, KeyError, ValueError):
        return None


def _is_identity(transform: ImageCmsTransform) -> bool:
    levels = (_GRID,) * (1 if transform.input_mode == "L" else 3)
    colours = np.stack(np.meshgrid(*levels), axis=-1).reshape(1, -1, len(levels))
    before = Image.fromarray(colours.squeeze(-1) if len(levels) == 1 else colours)
    after = np.asarray(transform.apply(before)).astype(int)
    return bool(np.abs(after - colours).max() <= SAME)
