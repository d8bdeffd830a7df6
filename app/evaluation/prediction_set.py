"""What a model predicted for a set of photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PredictionSet:
    """What training said of photos: probabilities ``(n, classes)`` and novelties ``(n,)``."""

    probabilities: NDArray[np.floating[Any]]
    novelty: NDArray[np.floating[Any]]
