"""Softmax regression for many classes: solved in a few directions that all classes share.

Directions: reduced-rank regression (Izenman 1975, "Reduced-Rank Regression for the Multivariate
Linear Model"), here with a ridge. They are those in which a linear answer to "which class?" varies
most, so they tell classes apart, where principal components tell photos apart:

    B = (XᵀX + λ I)⁻¹ Xᵀ Y           X: coordinates, Y: a column of 0 and 1 a class; both centred
    U = basis of B V                 V: the leading eigenvectors of Bᵀ (XᵀX + λ I) B = Yᵀ X B

The regression in the coordinates X U is then the usual convex problem with its usual penalty, since
the columns of U are orthonormal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from sklearn.linear_model import LogisticRegression

from app.evaluation.metrics import Floats, Ints
from app.network.classifier import MOST_FULL_CLASSES

RIDGE = 1.0  # λ; the coordinates of a photo have a mean squared length of 1


class ReducedRankRegression(LogisticRegression):  # type: ignore[misc]
    """Multinomial logistic regression whose coefficients have a limited rank.

    ``coef_`` ``(classes, features)`` and ``intercept_`` are those on the full coordinates. The
    directions are found once, by the first photos that it is fitted to: fit one object to photos of
    one kind only, with several strengths.

    Attributes:
        rank: of the coefficients, at most.
    """

    rank = MOST_FULL_CLASSES
    _directions: Floats | None = None
    _reduced: Floats

    def fit(self, x: Floats, targets: Ints) -> ReducedRankRegression:
        """Fit to coordinates ``(n, features)`` and class numbers ``(n,)``."""
        if self._directions is None:
            self._directions = shared_directions(x, targets, self.rank)
        else:
            self.coef_ = self._reduced  # to begin from
        # In float32 an iteration takes half as long.
        super().fit((x @ self._directions).astype(np.float32), targets)
        self._reduced = self.coef_
        self.coef_ = self._reduced @ self._directions.T
        self.n_features_in_ = x.shape[1]
        return self


def shared_directions(x: Floats, targets: Ints, rank: int) -> Floats:
    """Return orthonormal directions ``(features, ≤ rank)`` that tell the classes apart.

    Args:
        x: coordinates ``(n, features)``.
        targets: ``(n,)``, the number of each photo's class.
        rank: how many directions, where there are as many.
    """
    _, numbers, counts = np.unique(targets, return_inverse=True, return_counts=True)
    order = np.argsort(numbers, kind="stable")
    starts = np.concatenate([[0], counts.cumsum()[:-1]])
    mean = x.mean(axis=0)
    sums = np.add.reduceat(x[order], starts, axis=0) - counts[:, None] * mean  # Yᵀ X
    products = x.T @ x - len(x) * np.outer(mean, mean) + RIDGE * np.eye(x.shape[1])
    coefficients = cho_solve(cho_factor(products), sums.T)
    _, vectors = np.linalg.eigh(sums @ coefficients)
    directions: NDArray[np.floating[Any]] = np.linalg.qr(coefficients @ vectors[:, -rank:])[0]
    return directions


def in_two_steps(coefficients: Floats, rank: int) -> tuple[Floats, Floats]:
    """Return ``first`` ``(features, rank)`` and ``then`` ``(rank, classes)`` of one product.

    Args:
        coefficients: ``(features, classes)``, of this rank or less: their product.
        rank: at most the number of classes.
    """
    _, vectors = np.linalg.eigh(coefficients.T @ coefficients)
    leading = vectors[:, -rank:]
    return coefficients @ leading, leading.T
