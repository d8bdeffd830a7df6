"""Arrays in, scores out; knows nothing of Keras, files or photos."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, log_loss, roc_auc_score

from app.core.run_metrics import AnswerCounts, ReliabilityBin, Scores, SplitMetrics
from app.evaluation.decision import IS_NEITHER, IS_UNSURE, Thresholds
from app.evaluation.prediction_set import PredictionSet

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

ECE_BINS = 15
DRAWS = 200  # simulated sets of answers


def probabilities_of(logits: Floats) -> Floats:
    """Turn logits ``(n, classes)`` into float64 probabilities of the same shape."""
    result: Floats = softmax(logits.astype(np.float64), axis=1)
    return result


def score(targets: Ints, probabilities: Floats) -> Scores:
    """Score answers.

    Args:
        targets: ``(n,)``, the number of each photo's class.
        probabilities: ``(n, classes)``, each row adding up to 1, as exactly as float32 can.
    """
    classes = np.arange(probabilities.shape[1])
    probabilities = probabilities.astype(np.float64)
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    answers = probabilities.argmax(axis=1)
    right = int((answers == targets).sum())
    return Scores(
        n=len(targets),
        accuracy=right / len(targets),
        accuracy_interval_95=wilson_interval(right, len(targets)),
        log_loss=float(log_loss(targets, probabilities, labels=classes)),
        brier=brier_score(targets, probabilities),
        ece=expected_calibration_error(targets, probabilities),
        ece_bias=calibration_bias(probabilities),
        roc_auc=_roc_auc(targets, probabilities),
        confusion=confusion_matrix(targets, answers, labels=classes).tolist(),
    )


def split_metrics(predicted: PredictionSet, thresholds: Thresholds) -> SplitMetrics:
    """Return a split's part of ``metrics.json``."""
    targets, probabilities = predicted.targets, predicted.probabilities
    answers = predicted.decided(thresholds)
    right, neither, unsure = (
        int((answers == other).sum()) for other in (targets, IS_NEITHER, IS_UNSURE)
    )
    return SplitMetrics(
        **vars(score(targets, probabilities)),
        counts=AnswerCounts(right, len(answers) - right - neither - unsure, neither, unsure),
        reliability=tuple(reliability_bins(targets, probabilities)),
    )


def probability_moved(first: Floats, second: Floats) -> float:
    """Return the total variation distance of answers, on average over photos; 0 is the same.

    It is the probability that the second gives to other classes than the first. Of more than two
    classes, a mean over all of them would be the smaller, the more there are.

    Args:
        first: ``(n, classes)``.
        second: likewise, for the same photos.
    """
    return float(np.abs(first - second).sum(axis=1).mean() / 2)


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, ``right`` of ``n`` photos (Wilson 1927)."""
    interval = binomtest(right, n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def brier_score(targets: Ints, probabilities: Floats) -> float:
    """Return the mean squared error of probabilities; 0 is perfect.

    Source: Brier 1950, "Verification of Forecasts Expressed in Terms of Probability"; for two
    classes halved, as is usual: the error of one probability.
    """
    wrong = probabilities - np.eye(probabilities.shape[1])[targets]
    total = float(np.square(wrong).sum(axis=1).mean())
    return total / 2 if probabilities.shape[1] == 2 else total


def reliability_bins(
    targets: Ints, probabilities: Floats, *, bins: int = ECE_BINS
) -> list[ReliabilityBin]:
    """Sort answers into equal bins of confidence; bins without an answer are left out."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        ReliabilityBin(
            low=b / bins,
            high=(b + 1) / bins,
            count=int((place == b).sum()),
            confidence=float(confidence[place == b].mean()),
            right=int(right[place == b].sum()),
        )
        for b in np.unique(place).tolist()
    ]


def expected_calibration_error(
    targets: Ints, probabilities: Floats, *, bins: int = ECE_BINS
) -> float:
    """Return the gap between confidence and accuracy, averaged over equal bins of confidence.

    0 is perfect. The estimate is biased upwards, the more so the fewer photos there are: see
    ``calibration_bias``.
    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.
    """
    found = reliability_bins(targets, probabilities, bins=bins)
    return sum(b.count * abs(b.accuracy - b.confidence) for b in found) / len(targets)


def calibration_bias(probabilities: Floats, *, bins: int = ECE_BINS) -> float:
    """Return the calibration error that perfectly calibrated answers would show by chance.

    The mean of ``expected_calibration_error`` over draws in which an answer of confidence c is
    right with probability c. An error below it is no sign of a fault.
    """
    confidence = probabilities.max(axis=1)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    drawn = np.random.default_rng(0).random((DRAWS, len(confidence))) < confidence
    gaps = [np.abs((drawn - confidence)[:, place == b].sum(axis=1)) for b in np.unique(place)]
    return float(np.sum(gaps, axis=0).mean()) / len(confidence)


def _roc_auc(targets: Ints, probabilities: Floats) -> float | None:
    num_classes = probabilities.shape[1]
    if len(np.unique(targets)) < num_classes:
        return None
    if num_classes == 2:
        return float(roc_auc_score(targets, probabilities[:, 1]))
    return float(roc_auc_score(targets, probabilities, multi_class="ovr"))
