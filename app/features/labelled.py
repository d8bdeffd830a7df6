"""Photos by number with what the network says of them, as the head is solved on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from app.data.manifest import Photo
from app.evaluation.metrics import Ints
from app.features.batches import Float32s

BATCH = 64  # photos at once; each has 262,144 features


@dataclass(frozen=True)
class LabelledFeatures:
    """Photos by number: what ``block5_pool`` says of them, and their class numbers ``(n,)``.

    ``maps`` gives float32 batches ``(≤ batch, height, width, 512)`` for numbers, in their order:
    all of them at once might not fit into memory. ``groups`` names what each photo belongs to:
    those of one name are near-duplicates. Empty: there are none.
    """

    maps: Callable[[Sequence[int]], Iterator[Float32s]]
    targets: Ints
    groups: Sequence[str] = ()


def groups_of(photos: Sequence[Photo]) -> tuple[str, ...]:
    """Return the name of each photo's group; one without near-duplicates is a group of its own.

    Contents give the names, so that the names of files decide no fold.
    """
    return tuple(photo.group or photo.content for photo in photos)


def numbered(*parts: LabelledFeatures) -> Ints:
    """Return the number of each photo's group, of all parts one after the other."""
    names = [
        name
        for part, photos in enumerate(parts)
        for name in photos.groups or [f"{part}: {n}" for n in range(len(photos.targets))]
    ]
    numbers: Ints = np.unique(names, return_inverse=True)[1]
    return numbers
