"""Labels that may be wrong: what models that never saw a photo say against its label.

Method: confident learning's ranking by normalised margin, on out-of-fold probabilities
(Northcutt, Jiang & Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels",
section 4.3; the folds: ``app.evaluation.cross_validation``). A label is doubted only by answers
that are sure of another class. Calibrated answers of 90 % or more are wrong at most one time in
ten, so the list stays short however weak a classifier is, and one that is never sure doubts
nothing. Their thresholds, one for each class, are left out (docs/experiments.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.evaluation.metrics import Floats, Ints

SURE = 0.9  # the least probability of another class by which a label is doubted


@dataclass(frozen=True)
class LabelIssue:
    """A photo whose label may be wrong.

    Attributes:
        number: of the photo.
        likely: the number of the class that it looks like.
        probability: of that class.
        margin: the probability of its label less that of ``likely``, -1 to 0: the lower, the surer.
    """

    number: int
    likely: int
    probability: float
    margin: float


def find_label_issues(probabilities: Floats, targets: Ints) -> list[LabelIssue]:
    """Return the photos that surely look like another class than their label's, the surest first.

    Args:
        probabilities: out-of-fold, ``(n, classes)``.
        targets: the labels ``(n,)``.
    """
    rows = np.arange(len(targets))
    others = probabilities.copy()
    others[rows, targets] = -1.0
    likely = others.argmax(axis=1)
    margins = probabilities[rows, targets] - probabilities[rows, likely]
    found = np.flatnonzero(probabilities[rows, likely] >= SURE)
    order: NDArray[np.int64] = found[np.argsort(margins[found], kind="stable")]
    return [
        LabelIssue(n, int(likely[n]), float(probabilities[n, likely[n]]), float(margins[n]))
        for n in order.tolist()
    ]
