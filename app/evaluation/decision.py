"""From probabilities and novelty to an answer: a class, ``unsure`` or ``neither``.

The one place where this is decided: for ``predict.py`` and the service, the scores of a run, the
int8 gate, the report and the benchmarks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.core.labels import NEITHER, UNSURE

# Novelty is scaled so that 0.5 is the distance at which a photo is refused (app.evaluation.ood).
OOD_THRESHOLD = 0.5
# Codes for the answers that are not a class; classes are 0, 1, 2, ...
IS_UNSURE, IS_NEITHER = -1, -2


@dataclass(frozen=True)
class Thresholds:
    """An answer names a class if its confidence is high enough and the novelty low enough.

    Attributes:
        confidence: below this probability the answer is ``unsure``; with 0 no answer is.
        novelty: above it the answer is ``neither``, however confident.
    """

    confidence: float
    novelty: float = OOD_THRESHOLD


def decide(
    probabilities: NDArray[np.floating[Any]],
    novelty: NDArray[np.floating[Any]],
    thresholds: Thresholds,
) -> NDArray[np.int64]:
    """Return the answer to each photo, ``(n,)``.

    Args:
        probabilities: ``(n, classes)``, calibrated.
        novelty: ``(n,)``, 0 to 1.
        thresholds: of the bundle, or of the user.

    Returns:
        The number of the likeliest class, ``IS_UNSURE`` or ``IS_NEITHER``.
    """
    # In float64: else NumPy rounds the threshold to float32 when it compares.
    wide = np.asarray(probabilities, np.float64)
    answers: NDArray[np.int64] = wide.argmax(axis=1)
    answers[wide.max(axis=1) < thresholds.confidence] = IS_UNSURE
    answers[np.asarray(novelty, np.float64) > thresholds.novelty] = IS_NEITHER
    return answers


def label_of(answer: int, classes: Sequence[str]) -> str:
    """Return the word for one of ``decide``'s answers: a class's name, ``unsure``, ``neither``."""
    return {IS_UNSURE: UNSURE, IS_NEITHER: NEITHER}.get(answer) or classes[answer]
