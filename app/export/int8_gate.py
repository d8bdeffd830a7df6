"""Whether an int8 model may answer in place of the float32 one: compared on photos.

They are the validation photos and, where these are fewer than 600, training photos besides: whether
two models agree needs no photo that was not learned from. Of 600 photos without another answer at
most 0.5 % of all are answered otherwise (95 % confidence; "rule of three").

What int8 predicts for all of them is known from training at no cost; float32 takes a sixth of a
second a photo. An answer can change only where it is in doubt, near a line that is drawn: float32
answers all photos near one (``in_doubt``). If an answer changes that lay more than half as far from
its line as those photos (``changed_far_from_lines``), float32 answers all.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.evaluation.calibration import upper_bound
from app.evaluation.decision import IS_NEITHER, Thresholds
from app.evaluation.metrics import Floats, score
from app.evaluation.prediction_set import PredictionSet

COMPARED = 600  # photos, where training and validation have as many
FEWEST = 20  # of fewer, no change shows nothing
CONFIDENCE = 0.95  # of the bound
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
    """What int8 costs on the compared photos, as shares of them.

    Attributes:
        photos: that were compared.
        asked: how many of them float32 answered; the others count as answered alike.
        accuracy_lost: less right answers.
        labels_changed: other answers; ``neither`` and ``unsure`` are answers as well.
        calibration_lost: of the expected calibration error.
        refusals_changed: more or fewer answers ``neither``.
        changed_at_most: the bound of ``labels_changed`` for new photos, with 95 % confidence
            (Clopper-Pearson).
    """

    photos: int
    asked: int
    accuracy_lost: float
    labels_changed: float
    calibration_lost: float
    refusals_changed: float
    changed_at_most: float

    @property
    def measured(self) -> bool:
        """Say whether the figures are numbers: JSON knows no others."""
        return all(map(math.isfinite, dataclasses.astuple(self)))

    def fault(self) -> str:
        """Name the bars that are missed; empty when none is."""
        if self.photos < FEWEST:
            return f"{self.photos} photos are too few to tell, {FEWEST} are needed"
        bars = {
            "accuracy lost": (self.accuracy_lost, MOST_ACCURACY_LOST),
            "labels changed": (self.labels_changed, MOST_LABELS_CHANGED),
            "calibration error added": (self.calibration_lost, MOST_CALIBRATION_LOST),
            "answered neither, difference": (self.refusals_changed, MOST_REFUSALS_CHANGED),
        }
        return "; ".join(
            f"{name}: {value:.4f} of {self.photos} photos, more than {most}"
            for name, (value, most) in bars.items()
            if not value <= most + ROUNDING  # a NaN fails as well
        )


def in_doubt(
    predicted: PredictionSet, thresholds: Thresholds, near: float = 1.0
) -> NDArray[np.int64]:
    """Return the numbers of the photos that a more exact model must answer too: those near a line.

    Args:
        predicted: by the less exact model.
        thresholds: of the answers.
        near: how near is near; 1 for int8, whose rounding moves answers most.
    """
    return np.flatnonzero(_distance(predicted, thresholds) < near)


def changed_far_from_lines(
    int8: PredictionSet, float32: PredictionSet, thresholds: Thresholds
) -> bool:
    """Say whether an answer changed that was not very near a line, so that others may as well."""
    changed = int8.decided(thresholds) != float32.decided(thresholds)
    return bool((_distance(int8, thresholds)[changed] > 0.5).any())


def int8_gate(
    int8: PredictionSet, float32: PredictionSet, asked: int, thresholds: Thresholds
) -> Int8Gate:
    """Compare int8 with float32.

    Args:
        int8: its predictions for all photos.
        float32: the same, with those of float32 for the photos that it answered.
        asked: how many those are.
        thresholds: of the answers.
    """
    count = len(int8.targets)
    if not (_finite(int8) and _finite(float32)):
        nan = float("nan")  # does not pass
        return Int8Gate(count, asked, nan, nan, nan, nan, nan)
    before, after = (score(each.targets, each.probabilities) for each in (float32, int8))
    answers_before, answers = float32.decided(thresholds), int8.decided(thresholds)
    changed = int((answers != answers_before).sum())
    refused = (answers == IS_NEITHER).mean() - (answers_before == IS_NEITHER).mean()
    return Int8Gate(
        photos=count,
        asked=asked,
        accuracy_lost=before.accuracy - after.accuracy,
        labels_changed=changed / count,
        calibration_lost=after.ece - before.ece,
        refusals_changed=float(abs(refused)),
        changed_at_most=upper_bound(changed, count, CONFIDENCE),
    )


def _finite(predicted: PredictionSet) -> bool:
    return bool(np.isfinite(predicted.probabilities).all() and np.isfinite(predicted.novelty).all())


def _distance(predicted: PredictionSet, thresholds: Thresholds) -> Floats:
    """Return how far each answer is from the nearest line, ``(n,)``; below 1 it is near."""
    second, first = np.sort(predicted.probabilities, axis=1)[:, -2:].T
    novelty_line = _log_odds(np.asarray(thresholds.novelty))
    distances = [
        np.log(np.maximum(first, TINY) / np.maximum(second, TINY)) / NEAR_LABEL,
        np.abs(_log_odds(predicted.novelty) - novelty_line) / NEAR_NOVELTY,
    ]
    if 0 < thresholds.confidence < 1:
        confidence_line = _log_odds(np.asarray(thresholds.confidence))
        distances.append(np.abs(_log_odds(first) - confidence_line) / NEAR_LABEL)
    nearest: Floats = np.min(distances, axis=0)
    return nearest


def _log_odds(shares: Floats) -> Floats:
    inside = np.clip(np.asarray(shares, np.float64), TINY, 1 - TINY)
    odds: Floats = np.log(inside / (1 - inside))
    return odds
