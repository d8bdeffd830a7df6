"""What photos shown as ``neither`` have in common, learned from examples.

The distance to the training photos (``app.evaluation.ood``) refuses what is far from them. What is
near, such as a wolf where dogs are known, is told from examples only: by a logistic regression of
"shown as neither" against "of a class", on the same embeddings. Its logit is the logarithm of the
ratio of the two densities, up to a constant. Sources: Hendrycks, Mazeika & Dietterich 2019, "Deep
Anomaly Detection with Outlier Exposure"; Sugiyama, Suzuki & Kanamori 2012, "Density Ratio
Estimation in Machine Learning", chapter 4. Why it is no output of the head: docs/experiments.md.

The classes' own logits stay as they are, so no photo of a class becomes harder to name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

Float32s = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]

# scikit-learn's C; embeddings are brought to a mean squared length of 1 around their mean. 10 to
# 1,000 did about as well (docs/experiments.md).
STRENGTH = 100.0
FOLDS = 5
TOLERANCE, ITERATIONS = 1e-5, 1000  # of L-BFGS
TINY = 1e-12


@dataclass(frozen=True)
class OutlierClassifier:
    """A linear logit of embeddings: the higher, the more like the photos shown as ``neither``.

    Attributes:
        weights: ``(channels,)``.
        bias: added to the weighted sum.
    """

    weights: Float32s
    bias: float

    def logits(self, embeddings: Floats) -> Floats:
        """Return the logits ``(n,)`` of embeddings at unit length ``(n, channels)``."""
        result: Floats = embeddings @ self.weights + self.bias
        return result

    def rescaled(self, threshold: float, scale: float) -> OutlierClassifier:
        """Return the classifier whose logit is 0 at ``threshold`` and grows by 1 with ``scale``."""
        weights: Float32s = (self.weights / scale).astype(np.float32)
        return OutlierClassifier(weights, (self.bias - threshold) / scale)


def fit_outlier_classifier(known: Floats, outliers: Floats) -> OutlierClassifier:
    """Return what tells outliers from known photos.

    Args:
        known: embeddings at unit length ``(n, channels)`` of photos of the classes.
        outliers: of photos shown as ``neither``, one or more.
    """
    rows = np.concatenate([known, outliers]).astype(np.float64)
    shown = np.repeat([False, True], [len(known), len(outliers)])
    mean = rows.mean(axis=0)
    length = np.sqrt(max(((rows - mean) ** 2).sum(axis=1).mean(), TINY))
    solver = LogisticRegression(C=STRENGTH, tol=TOLERANCE, max_iter=ITERATIONS)
    solver.fit((rows - mean) / length, shown)
    weights = solver.coef_[0] / length
    return OutlierClassifier(
        weights.astype(np.float32), float(solver.intercept_[0] - mean @ weights)
    )


def out_of_fold_logits(known: Floats, outliers: Floats) -> Floats:
    """Return the logits ``(n,)`` of the known photos, each by a classifier that did not see it.

    Args:
        known: as for ``fit_outlier_classifier``; two photos or more.
        outliers: likewise.
    """
    logits = np.empty(len(known))
    for seen, left_out in KFold(min(FOLDS, len(known)), shuffle=True, random_state=0).split(known):
        logits[left_out] = fit_outlier_classifier(known[seen], outliers).logits(known[left_out])
    return logits
