"""Which places of a photo speak for an answer: class activation maps → a picture.

NumPy and Pillow only, as ``app.inference.predictor``, which computes the maps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from app.data.decode import Pixels

SHORTEST, LONGEST = 240, 640  # pixels of the picture's longer side
DIMMED = 0.45  # brightness of what says nothing
EDGE = (230, 159, 0)  # Okabe and Ito's orange, around what says more than half of the most
EDGE_AT, EDGE_WIDTH = 0.5, 2

Floats = NDArray[np.floating[Any]]


def contrastive_cam(maps: Floats, number: int) -> Floats:
    """Return how much each place speaks for a class against the others (contrastive CAM).

    To add the same number to all logits changes no probability, so a class's map means something
    only beside the others': their mean is taken off.

    Args:
        maps: ``(height, width, classes)``, see ``app.network.activation_maps``.
        number: of the class.

    Returns:
        ``(height, width)``; above 0 a place speaks for the class, below 0 for the others. The sum
        is the class's logit less the mean of all logits.
    """
    result: Floats = maps[..., number] - maps.mean(axis=-1)
    return result


def overlay(pixels: Pixels, cam: Floats) -> Image.Image:
    """Show a photo in colour where it speaks for the answer, grey and dimmed where it does not.

    A line is drawn around the places that say more than half of what the strongest one says.

    Args:
        pixels: the photo, uint8 ``(height, width, 3)``.
        cam: ``(h, w)``, see ``contrastive_cam``; it is stretched over the photo.

    Returns:
        RGB, its longer side between 240 and 640 pixels.
    """
    photo = Image.fromarray(pixels)
    longer = max(photo.size)
    side = min(max(longer, SHORTEST), LONGEST)
    if side != longer:
        width, height = (max(1, round(length * side / longer)) for length in photo.size)
        photo = photo.resize((width, height))
    most = float(cam.max())
    share = np.clip(cam / most, 0, 1) if most > 0 else np.zeros_like(cam)
    stretched = Image.fromarray(share.astype(np.float32)).resize(
        photo.size, Image.Resampling.BICUBIC
    )
    lit = np.clip(np.asarray(stretched), 0, 1)
    grey = DIMMED * np.asarray(photo.convert("L"), np.float32)[..., None]
    blend = grey + lit[..., None] * (np.asarray(photo, np.float32) - grey)
    inside = Image.fromarray((lit > EDGE_AT).astype(np.uint8))
    core = inside.filter(ImageFilter.MinFilter(2 * EDGE_WIDTH + 1))
    blend[np.asarray(inside) > np.asarray(core)] = EDGE
    return Image.fromarray(blend.round().astype(np.uint8))
