"""Photos by number with what the network says of them, as the head is solved on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from app.evaluation.metrics import Ints
from app.features.batches import Float32s

BATCH = 64  # photos at once; each has 262,144 features


@dataclass(frozen=True)
class LabelledFeatures:
    """Photos by number: what ``block5_pool`` says of them, and their class numbers ``(n,)``.

    ``maps`` gives float32 batches ``(≤ batch, height, width, 512)`` for numbers, in their order:
    all of them at once might not fit into memory.
    """

    maps: Callable[[Sequence[int]], Iterator[Float32s]]
    targets: Ints
