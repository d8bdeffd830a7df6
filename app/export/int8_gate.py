"""Whether an int8 model may answer in place of the float32 one: compared on validation photos.

What int8 says of all of them is known from training at no cost; float32 takes a sixth of a second a
photo. An answer can change only where it is in doubt, near a line that is drawn: float32 is asked
about all photos near one. If any of these answers changes that lay more than half as far from its
line as the photos that were asked about, float32 is asked about all.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.core.labels import NEITHER, UNSURE
from app.evaluation.metrics import score
from app.evaluation.prediction_set import PredictionSet
from app.inference.bundle_format import OOD_THRESHOLD

Floats = NDArray[np.floating[Any]]
# Numbers of validation photos → what float32 says of them, in that order.
Exact = Callable[[NDArray[np.int64]], PredictionSet]

FEWEST = 20  # validation photos: of fewer, no change shows nothing
# How near a line is near, as differences of log-odds: float32 moved those near one by 0.37 and 0.13
# at most (docs/experiments.md).
NEAR_LABEL, NEAR_NOVELTY = 2.0, 0.5
MOST_ACCURACY_LOST = 0.002
MOST_LABELS_CHANGED = 0.005  # of a class, neither and unsure alike
MOST_CALIBRATION_LOST = 0.005  # of the expected calibration error
MOST_REFUSALS_CHANGED = 0.005  # net, of the photos that are answered neither
ROUNDING = 1e-9  # shares that differ by exactly the bar come out a little more
TINY = 1e-12


@dataclass(frozen=True)
class Int8Gate:
    """What int8 costs on the validation photos, as shares of them; ``asked`` were put to float32.

    The others count as answered alike.
    """

    photos: int
    asked: int
    accuracy_lost: float
    labels_changed: float
    calibration_lost: float
    refusals_changed: float

    @property
    def measured(self) -> bool:
        """Say whether the figures are numbers: JSON knows no others."""
        return all(map(math.isfinite, dataclasses.astuple(self)))

    def fault(self) -> str:
        """Name the bars that are missed; empty when none is."""
        if self.photos < FEWEST:
            return f"{self.photos} validation photos are too few to tell, {FEWEST} are needed"
        bars = {
            "accuracy lost": (self.accuracy_lost, MOST_ACCURACY_LOST),
            "labels changed": (self.labels_changed, MOST_LABELS_CHANGED),
            "calibration error added": (self.calibration_lost, MOST_CALIBRATION_LOST),
            "answered neither, difference": (self.refusals_changed, MOST_REFUSALS_CHANGED),
        }
        return "; ".join(
            f"{name}: {value:.4f} of {self.photos} validation photos, more than {most}"
            for name, (value, most) in bars.items()
            if not value <= most + ROUNDING  # a NaN fails as well
        )


def int8_gate(
    targets: NDArray[np.int32], int8: PredictionSet, exact: Exact, min_confidence: float
) -> Int8Gate:
    """Compare int8 with float32 on validation photos.

    Args:
        targets: the number of each photo's class, ``(n,)``.
        int8: what int8 says of all photos.
        exact: asks float32 about some.
        min_confidence: below it the answer is ``unsure``.
    """
    if not _finite(int8):
        return _nothing(targets, 0)
    distance = _distance(int8, min_confidence)
    asked = np.flatnonzero(distance < 1)
    float32 = _with(int8, asked, exact)
    changed = _labels(int8, min_confidence) != _labels(float32, min_confidence)
    if (distance[changed] > 0.5).any():
        asked = np.arange(len(targets))
        float32 = _with(int8, asked, exact)
        changed = _labels(int8, min_confidence) != _labels(float32, min_confidence)
    if not _finite(float32):
        return _nothing(targets, len(asked))
    before, after = (score(targets, each.probabilities) for each in (float32, int8))
    refused, refused_before = ((each.novelty > OOD_THRESHOLD).mean() for each in (int8, float32))
    return Int8Gate(
        photos=len(targets),
        asked=len(asked),
        accuracy_lost=before.accuracy - after.accuracy,
        labels_changed=float(changed.mean()),
        calibration_lost=after.ece - before.ece,
        refusals_changed=float(abs(refused - refused_before)),
    )


def _finite(said: PredictionSet) -> bool:
    return bool(np.isfinite(said.probabilities).all() and np.isfinite(said.novelty).all())


def _nothing(targets: NDArray[np.int32], asked: int) -> Int8Gate:
    """Return what is known where one of the models gives no numbers; it does not pass."""
    nan = float("nan")
    return Int8Gate(len(targets), asked, nan, nan, nan, nan)


def _distance(said: PredictionSet, min_confidence: float) -> Floats:
    """Return how far each answer is from the nearest line, ``(n,)``; below 1 it is near."""
    second, first = np.sort(said.probabilities, axis=1)[:, -2:].T
    distances = [
        np.log(np.maximum(first, TINY) / np.maximum(second, TINY)) / NEAR_LABEL,
        np.abs(_log_odds(said.novelty) - _log_odds(np.asarray(OOD_THRESHOLD))) / NEAR_NOVELTY,
    ]
    if 0 < min_confidence < 1:
        line = _log_odds(np.asarray(min_confidence))
        distances.append(np.abs(_log_odds(first) - line) / NEAR_LABEL)
    nearest: Floats = np.min(distances, axis=0)
    return nearest


def _log_odds(shares: Floats) -> Floats:
    inside = np.clip(np.asarray(shares, np.float64), TINY, 1 - TINY)
    odds: Floats = np.log(inside / (1 - inside))
    return odds


def _with(said: PredictionSet, numbers: NDArray[np.int64], exact: Exact) -> PredictionSet:
    """Return what was said, with float32's words about some of the photos."""
    probabilities, novelty = said.probabilities.astype(float), said.novelty.astype(float)
    if len(numbers):
        answered = exact(numbers)
        probabilities[numbers], novelty[numbers] = answered.probabilities, answered.novelty
    return PredictionSet(probabilities, novelty)


def _labels(said: PredictionSet, min_confidence: float) -> NDArray[np.object_]:
    """Return the answers that a person reads: the number of a class, ``unsure`` or ``neither``."""
    labels: NDArray[np.object_] = said.probabilities.argmax(axis=1).astype(object)
    labels[said.probabilities.max(axis=1) < min_confidence] = UNSURE
    labels[said.novelty > OOD_THRESHOLD] = NEITHER
    return labels
