"""Arrays in, scores out; knows nothing of Keras, files or photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, log_loss, roc_auc_score

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

ECE_BINS = 15


@dataclass(frozen=True)
class Scores:
    """How good answers on ``n`` photos are.

    Attributes:
        n: number of photos.
        accuracy: share of right answers.
        accuracy_interval_95: Wilson's interval of that share (Wilson 1927).
        log_loss: mean of -ln(probability of the true class), natural logarithm.
        ece: expected calibration error, ``expected_calibration_error``.
        roc_auc: area under the ROC curve; for more than two classes the mean over each class
            against the rest. None when a class has no photo here.
        confusion: ``confusion[i][j]`` photos of class i were answered with class j.
    """

    n: int
    accuracy: float
    accuracy_interval_95: tuple[float, float]
    log_loss: float
    ece: float
    roc_auc: float | None
    confusion: list[list[int]]


def probabilities_of(logits: Floats) -> Floats:
    """Turn logits ``(n, classes)`` into float64 probabilities of the same shape."""
    result: Floats = softmax(logits.astype(np.float64), axis=1)
    return result


def score(targets: Ints, probabilities: Floats) -> Scores:
    """Score answers.

    Args:
        targets: ``(n,)``, the number of each photo's class.
        probabilities: ``(n, classes)``, each row adding up to 1.
    """
    classes = np.arange(probabilities.shape[1])
    answers = probabilities.argmax(axis=1)
    right = int((answers == targets).sum())
    interval = binomtest(right, len(targets)).proportion_ci(0.95, method="wilson")
    return Scores(
        n=len(targets),
        accuracy=right / len(targets),
        accuracy_interval_95=(float(interval.low), float(interval.high)),
        log_loss=float(log_loss(targets, probabilities, labels=classes)),
        ece=expected_calibration_error(targets, probabilities),
        roc_auc=_roc_auc(targets, probabilities),
        confusion=confusion_matrix(targets, answers, labels=classes).tolist(),
    )


def expected_calibration_error(
    targets: Ints, probabilities: Floats, *, bins: int = ECE_BINS
) -> float:
    """Return the gap between confidence and accuracy, averaged over equal bins of confidence.

    0 is perfect. The estimate is biased upwards, the more so the fewer photos there are.
    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(right[place == b].mean() - confidence[place == b].mean()) * (place == b).mean()
        for b in np.unique(place)
    ]
    return float(sum(gaps))


def _roc_auc(targets: Ints, probabilities: Floats) -> float | None:
    num_classes = probabilities.shape[1]
    if len(np.unique(targets)) < num_classes:
        return None
    if num_classes == 2:
        return float(roc_auc_score(targets, probabilities[:, 1]))
    return float(roc_auc_score(targets, probabilities, multi_class="ovr"))
