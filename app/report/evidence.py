"""What speaks for an answer and what against it, as a layer over the photo.

Everything on a page has one scale, so a pale layer says that there was little evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from app.data.decode import Pixels
from app.report.tokens import COLOURS

SIDE = 48  # pixels of the layer's longer side: a browser stretches it, and it takes some 3 kB
STRONGEST = 0.75  # opacity where most is said; the photo is still seen there
TYPICAL = 0.9  # the quantile of the photos whose strongest place gets that: one shall not pale all
CONTRAST = 0.6  # of the photo below, which is grey: a layer is seen on black and on white as well

Floats = NDArray[np.floating[Any]]


def full_scale(cams: Sequence[Floats]) -> float:
    """Return the evidence that is drawn the strongest, for photos that are shown together."""
    if not cams:
        return 0.0
    return float(np.quantile([np.abs(cam).max() for cam in cams], TYPICAL))


def evidence(cam: Floats, most: float, shape: tuple[int, ...]) -> Pixels:
    """Return a layer that is orange where a place speaks for the answer, blue where against it.

    Args:
        cam: ``(h, w)``, see ``app.inference.heatmap.contrastive_cam``.
        most: what is drawn the strongest (``full_scale``).
        shape: (height, width, ...) of the photo, whose proportions the layer gets.

    Returns:
        RGBA, uint8 ``(height, width, 4)``, its longer side 48 pixels.
    """
    share = cam / most if most > 0 else np.zeros_like(cam)
    scale = SIDE / max(shape[:2])
    height, width = (max(1, round(length * scale)) for length in shape[:2])
    # Bilinear: a bicubic curve would go beyond what the places say.
    stretched = Image.fromarray(share.astype(np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    drawn = np.clip(np.asarray(stretched), -1, 1)
    colours = [ImageColor.getrgb(COLOURS[name]) for name in ("against", "for")]
    layer = np.empty((height, width, 4), np.uint8)
    layer[..., :3] = np.array(colours, np.uint8)[(drawn > 0).astype(int)]
    layer[..., 3] = (255 * STRONGEST * np.abs(drawn)).round()
    return layer


def laid_over(pixels: Pixels, layer: Pixels) -> Pixels:
    """Return a photo in grey with a layer on it, where no style sheet can lay one on the other."""
    photo = Image.fromarray(pixels)
    levels = [round(255 * (0.5 + CONTRAST * (value / 255 - 0.5))) for value in range(256)]
    grey = photo.convert("L").point(levels).convert("RGBA")
    over = Image.fromarray(layer).resize(photo.size, Image.Resampling.BICUBIC)
    return np.asarray(Image.alpha_composite(grey, over).convert("RGB"))
