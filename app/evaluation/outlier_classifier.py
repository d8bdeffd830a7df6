"""What photos shown as ``neither`` have in common, told from examples.

The distance to the training photos (``app.evaluation.ood``) refuses what is far from them. What is
near, such as a wolf where dogs are known, is told from examples only: a logistic regression of
"shown as neither" against "of a class", on the same embeddings. Its logit is the logarithm of the
ratio of the two densities, up to a constant. Sources: Hendrycks, Mazeika & Dietterich 2019, "Deep
Anomaly Detection with Outlier Exposure"; Sugiyama, Suzuki & Kanamori 2012, "Density Ratio
Estimation in Machine Learning", chapter 4.

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

# scikit-learn's C, of coordinates with a mean squared length of 1 (docs/experiments.md).
STRENGTH = 100.0
FOLDS = 5
TOLERANCE, ITERATIONS = 1e-5, 1000  # of L-BFGS


@dataclass(frozen=True)
class OutlierClassifier:
    """A linear score of embeddings at unit length: the higher, the more like what was shown.

    Attributes:
        weights: ``(channels,)``.
        threshold: the score that gives the logit 0.
        scale: how much more of the score moves the logit by 1.
    """

    weights: Float32s
    threshold: float = 0.0
    scale: float = 1.0

    def scores(self, rows: Floats) -> Floats:
        """Return the scores ``(n,)`` of embeddings at unit length ``(n, channels)``."""
        result: Floats = rows @ self.weights
        return result

    def logits(self, scores: Floats) -> Floats:
        """Return the logits ``(n,)`` of scores."""
        return (scores - self.threshold) / self.scale


def fit_outlier_weights(known: Floats, outliers: Floats) -> Float32s:
    """Return the weights ``(channels,)`` that tell outliers from known photos.

    Args:
        known: embeddings at unit length ``(n, channels)`` of photos of the classes.
        outliers: of photos shown as ``neither``, one or more.
    """
    rows = np.concatenate([known, outliers]).astype(np.float64)
    shown = np.repeat([0, 1], [len(known), len(outliers)])
    spread = np.sqrt(((rows - rows.mean(axis=0)) ** 2).sum(axis=1).mean()) or 1.0
    solver = LogisticRegression(C=STRENGTH, tol=TOLERANCE, max_iter=ITERATIONS)
    solver.fit((rows - rows.mean(axis=0)) / spread, shown)
    result: Float32s = (solver.coef_[0] / spread).astype(np.float32)
    return result


def out_of_fold_scores(known: Floats, outliers: Floats) -> Floats:
    """Return the scores ``(n,)`` of the known photos, each by weights that were fitted without it.

    Args:
        known: as for ``fit_outlier_weights``; two photos or more.
        outliers: likewise.
    """
    scores = np.empty(len(known))
    folds = KFold(min(FOLDS, len(known)), shuffle=True, random_state=0)
    for fitted, left_out in folds.split(known):
        scores[left_out] = known[left_out] @ fit_outlier_weights(known[fitted], outliers)
    return scores
