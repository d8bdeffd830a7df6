"""Answers to photos by models that did not learn from them: cross-validation of the linear probe.

Near-duplicates are kept together: a model that learned from one of them knows the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from app.core.run_metrics import CrossValidated
from app.evaluation.metrics import Floats, Ints, score

FOLDS = 5
Fold = tuple[NDArray[np.int64], NDArray[np.int64]]  # the photos learned from, those answered


def make_folds(targets: Ints, groups: Ints) -> list[Fold]:
    """Return up to five folds, stratified by class; each photo is answered in one of them.

    Args:
        targets: ``(n,)``, the number of each photo's class.
        groups: ``(n,)``, photos of one number stay together.

    Returns:
        As many folds as the smallest class has groups, five at most. None at all where some class
        would have no photo to learn from.
    """
    classes = np.unique(targets)
    fewest = min(len(np.unique(groups[targets == number])) for number in classes)
    for count in range(min(FOLDS, fewest), 1, -1):
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=0)
        folds = list(splitter.split(targets, targets, groups))
        if all(len(np.unique(targets[learned])) == len(classes) for learned, _ in folds):
            return folds
    return []


def out_of_fold(
    solvers: Sequence[LogisticRegression], x: Floats, targets: Ints, folds: Sequence[Fold]
) -> Floats:
    """Return each photo's logits ``(n, classes)`` by a model that did not learn from it.

    Args:
        solvers: one for each fold; they are fitted.
        x: coordinates ``(n, rank)``.
        targets: ``(n,)``, the number of each photo's class.
        folds: from ``make_folds``.
    """
    logits = np.empty((len(targets), len(np.unique(targets))))
    for solver, (learned, answered) in zip(solvers, folds, strict=True):
        coefficients, intercept = coefficients_of(solver.fit(x[learned], targets[learned]))
        logits[answered] = x[answered] @ coefficients + intercept
    return logits


def coefficients_of(solver: LogisticRegression) -> tuple[Floats, Floats]:
    """Return ``(rank, classes)`` and ``(classes,)``; scikit-learn keeps one row for two classes."""
    coefficients, intercept = solver.coef_, solver.intercept_
    if len(coefficients) == 1:
        half, offset = coefficients[0] / 2, intercept[0] / 2
        return np.stack([-half, half], axis=1), np.array([-offset, offset])
    return coefficients.T, intercept


def cross_validated(targets: Ints, probabilities: Floats) -> CrossValidated:
    """Score out-of-fold answers, given as probabilities ``(n, classes)``."""
    scores = score(targets, probabilities)
    right = int((probabilities.argmax(axis=1) == targets).sum())
    return CrossValidated(scores.n, right, scores.accuracy, scores.log_loss)
