"""What is learned from the photos of the tab Teach, and how good it is on photos it did not see.

The head is the project's linear probe, and so is the detector of strangers. Only the photos are
few: nothing is held back for good, each photo is answered out of fold instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from app.data.near_duplicates import fingerprint, near_duplicates
from app.evaluation.calibration import fit_min_confidence, fit_temperature
from app.evaluation.cross_validation import Fold, coefficients_of, make_folds, out_of_fold
from app.evaluation.decision import IS_NEITHER, IS_UNSURE, Thresholds, decide, label_of
from app.evaluation.metrics import Floats, probabilities_of, score
from app.evaluation.ood import KnnOodDetector, fit_ood_detector
from app.inference.prediction import Prediction
from app.studio.backbone import Float32s, Seen
from app.training.nystroem import NystroemFeatures, fit_nystroem

Ints = NDArray[np.int64]
# scikit-learn's C, as in app.training.linear_probe, which brings Keras; half as many, for speed.
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
WITHOUT_FOLDS = 10.0  # where nothing can be compared
PATIENCE = 1  # strengths without a lower log-loss
TOLERANCE, ITERATIONS = 1e-5, 1000  # of L-BFGS


@dataclass(frozen=True)
class Score:
    """How photos were answered by heads that did not learn from them.

    Attributes:
        photos: of the classes.
        right, wrong, unsure, neither: how many of them got such an answer.
        strangers: photos that were shown as ``neither``.
        refused: how many of these were answered ``neither``.
    """

    photos: int
    right: int
    wrong: int
    unsure: int
    neither: int
    strangers: int
    refused: int


@dataclass(frozen=True)
class Lesson:
    """A solved head with its decision.

    Attributes:
        classes: names by number.
        basis: the space in which it was solved.
        coefficients: ``(rank, classes)``, divided by the temperature.
        intercept: ``(classes,)``, likewise.
        detector: of strangers.
        thresholds: of the answers.
        score: out of fold; None where the photos of a class are too much alike, or too few.
    """

    classes: tuple[str, ...]
    basis: NystroemFeatures
    coefficients: Floats
    intercept: Floats
    detector: KnnOodDetector
    thresholds: Thresholds
    score: Score | None

    def answer(self, name: str, seen: Seen) -> Prediction:
        """Return the answer to a photo, as ``predict.py`` would give it."""
        x = self.basis.coordinates_of_pairs(seen.pairs[None].copy())
        probabilities = probabilities_of(x @ self.coefficients + self.intercept)
        novelty = self.detector.novelty([seen.embedding[None]])
        (number,) = decide(probabilities, novelty, self.thresholds)
        by_class = dict(zip(self.classes, map(float, probabilities[0]), strict=True))
        return Prediction(name, label_of(number, self.classes), by_class, float(novelty[0]), None)


def learn(
    classes: Sequence[str],
    targets: Ints,
    groups: Ints,
    photos: Sequence[Seen],
    strangers: Sequence[Seen] = (),
) -> Lesson:
    """Solve the head on all photos, and answer each by heads that did not learn from it.

    Args:
        classes: names by number, two or more, each with a photo.
        targets: ``(n,)``, the number of each photo's class.
        groups: ``(n,)``, photos of one number are much alike and stay in one fold.
        photos: of the classes.
        strangers: photos that were shown as ``neither``.
    """
    basis = fit_nystroem(np.stack([seen.pairs for seen in photos]))
    folds = make_folds(targets, groups)
    best = _solve(basis.landmark_coordinates, targets, folds)
    embeddings = np.stack([seen.embedding for seen in photos])
    outliers = np.stack([seen.embedding for seen in strangers]) if strangers else None
    found, thresholds = None, Thresholds(confidence=0.0)
    held_back = folds[0][1] if folds else np.arange(len(targets))
    learned = folds[0][0] if folds else held_back
    if best.out_of_fold is not None:
        answers = probabilities_of(best.out_of_fold)
        thresholds = Thresholds(fit_min_confidence(answers, targets).value)
        found = _score(targets, answers, embeddings, outliers, folds, thresholds)
    detector = fit_ood_detector(embeddings[learned], [embeddings[held_back]], outliers)
    return Lesson(
        tuple(classes), basis, best.coefficients, best.intercept, detector, thresholds, found
    )


@dataclass(frozen=True)
class _Solution:
    """A head on coordinates, divided by its temperature, and its logits out of fold."""

    coefficients: Floats
    intercept: Floats
    out_of_fold: Floats | None


def _solve(x: Floats, targets: Ints, folds: Sequence[Fold]) -> _Solution:
    """Return the head of the strength that answers best out of fold, as the linear probe does."""
    strength, temperature, logits, least = WITHOUT_FOLDS, 1.0, None, math.inf
    worse = 0
    for each in STRENGTHS if folds else ():
        tried = out_of_fold([_solver(each) for _ in folds], x, targets, folds)
        divided_by = fit_temperature(tried, targets)
        loss = score(targets, probabilities_of(tried / divided_by)).log_loss
        if loss < least:
            strength, temperature, logits, least, worse = each, divided_by, tried, loss, 0
        else:
            worse += 1
        if worse == PATIENCE:
            break
    coefficients, intercept = coefficients_of(_solver(strength).fit(x, targets))
    return _Solution(
        coefficients / temperature,
        intercept / temperature,
        None if logits is None else logits / temperature,
    )


def _solver(strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, tol=TOLERANCE, max_iter=ITERATIONS)


def _score(
    targets: Ints,
    answers: Floats,
    embeddings: Float32s,
    outliers: Float32s | None,
    folds: Sequence[Fold],
    thresholds: Thresholds,
) -> Score:
    """Count the answers; each photo's novelty comes from a detector that did not see it either.

    Its threshold is fitted on the next fold, which the photos of reference do not have either.
    """
    novelty = np.empty(len(targets))
    refused = np.zeros(0 if outliers is None else len(outliers), bool)
    parts = np.arange(len(refused)) % len(folds)
    for number, (learned, answered) in enumerate(folds):
        others = folds[(number + 1) % len(folds)][1]
        reference = np.setdiff1d(learned, others) if len(folds) > 2 else learned
        shown = None if outliers is None else outliers[parts != number]
        detector = fit_ood_detector(embeddings[reference], [embeddings[others]], shown)
        novelty[answered] = detector.novelty([embeddings[answered]])
        if outliers is not None and (parts == number).any():
            found = detector.novelty([outliers[parts == number]]) > thresholds.novelty
            refused[parts == number] = found
    decided = decide(answers, novelty, thresholds)
    return Score(
        photos=len(targets),
        right=int((decided == targets).sum()),
        wrong=int(((decided >= 0) & (decided != targets)).sum()),
        unsure=int((decided == IS_UNSURE).sum()),
        neither=int((decided == IS_NEITHER).sum()),
        strangers=len(refused),
        refused=int(refused.sum()),
    )


def groups_of(images: Sequence[NDArray[np.uint8]], moments: Sequence[str]) -> Ints:
    """Return a number for each photo; those that are much alike have the same one.

    Such are near-duplicates, and photos of one moment: what a camera takes within a second is
    nearly one picture, and to answer it after learning from its neighbour would prove nothing.

    Args:
        images: uint8 ``(size, size, 3)``.
        moments: when each was taken, in any words; empty: alone.
    """
    numbers: dict[str, int] = {}
    groups = np.array(
        [
            numbers.setdefault(moment or f"photo {place}", len(numbers))
            for place, moment in enumerate(moments)
        ]
    )
    for alike in near_duplicates([fingerprint(image) for image in images]):
        groups[np.isin(groups, groups[alike])] = groups[alike[0]]
    return groups
