"""``--image-size auto``: as many pixels as the training photos have, where that pays."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from app.core.config import LARGEST_AUTO_SIZE
from app.core.labels import NEITHER
from app.data.manifest import ManifestRow

STEP = 32  # five poolings halve the image
SMALLEST = 160  # 5×5 places; by validation best for flowers of 128 pixels (docs/experiments.md)


def fitting_image_size(rows: Iterable[ManifestRow]) -> int:
    """Return the image size that fits the training photos: the median of their shorter sides.

    It is rounded to a multiple of 32, and is at least 160 and at most 320. Test photos have no part
    in it: nothing is chosen by them.

    Args:
        rows: of the manifest; those of the classes' training photos count.
    """
    used = (row for row in rows if (row.verdict, row.split) == ("used", "train"))
    sides = [min(row.width, row.height) for row in used if row.label != NEITHER]
    size = STEP * round(median(sides) / STEP) if sides else LARGEST_AUTO_SIZE
    return min(max(size, SMALLEST), LARGEST_AUTO_SIZE)
