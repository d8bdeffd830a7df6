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

# Novelty is built such that it is 0.5 at the distance from which on a photo is refused
# (app.evaluation.ood).
OOD_THRESHOLD = 0.5
# What stands for the answers that are no classes, beside the numbers of classes, 0 and up.
IS_UNSURE, IS_NEITHER = -1, -2


@dataclass(frozen=True)
class Thresholds:
    """The two lines between which an answer names a class.

    Attributes:
        confidence: an answer whose likeliest class has less is ``unsure``; 0: none is.
        novelty: a photo with more is ``neither``, however confident the answer.
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
    # In float64: NumPy would round a threshold to float32 beside float32 probabilities.
    wide = np.asarray(probabilities, np.float64)
    answers: NDArray[np.int64] = wide.argmax(axis=1)
    answers[wide.max(axis=1) < thresholds.confidence] = IS_UNSURE
    answers[np.asarray(novelty, np.float64) > thresholds.novelty] = IS_NEITHER
    return answers


def label_of(answer: int, classes: Sequence[str]) -> str:
    """Return the word for one of ``decide``'s answers: a class's name, ``unsure``, ``neither``."""
    return {IS_UNSURE: UNSURE, IS_NEITHER: NEITHER}.get(answer) or classes[answer]
