"""Stage head: softmax regression on second-order features, a convex problem: solved, not trained.

No rate, no epochs, no noise: one strength of regularisation after the other, from strong to weak,
until validation says that it is enough. The same features give the same head, whatever the seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from app.core.config import Stage
from app.core.console import progress_bar, say
from app.core.run_metrics import HistoryRow, Scores
from app.evaluation.calibration import fit_temperature
from app.evaluation.metrics import Floats, Ints, probabilities_of, score
from app.features.batches import Float32s
from app.features.extractor import Batched
from app.features.labelled import BATCH, LabelledFeatures
from app.network.classifier import HEAD, feature_part, set_head
from app.training.finetune import StageResult
from app.training.nystroem import FeatureIterator, NystroemFeatures, fit_nystroem

# scikit-learn's C, the inverse strength, where the losses of the photos are added up and features
# have a mean square length of 1. On 2,000 photos 10 to 100 did equally well (docs/experiments.md).
STRENGTHS = tuple(10.0 ** (half / 2) for half in range(-2, 8))
PROJECTED = 256  # photos at once onto the basis, whose landmarks are read each time: half the time
TOLERANCE, ITERATIONS = 1e-5, 1000  # of L-BFGS


@dataclass(frozen=True)
class LinearProbe:
    """What the head was solved with, for more questions in the same coordinates.

    Attributes:
        result: scores and history of the stage.
        solver: an unfitted scikit-learn classifier of the chosen strength.
        train: coordinates ``(n, rank)`` of the training photos.
        validation: of the validation photos.
        basis: the space they lie in.
        features: walks through what the head sees of photos.
    """

    result: StageResult
    solver: LogisticRegression
    train: Floats
    validation: Floats
    basis: NystroemFeatures
    features: Callable[[LabelledFeatures, Sequence[int]], Iterator[Float32s]]

    def coordinates(self, photos: LabelledFeatures) -> Floats:
        """Return the coordinates ``(n, rank)`` of other photos."""
        return _coordinates(self.basis, partial(self.features, photos), len(photos.targets))


@dataclass(frozen=True)
class Solution:
    """The answer ``x @ coefficients + intercept`` for one strength, and how it does."""

    strength: float
    coefficients: Floats
    intercept: Floats
    temperature: float
    row: HistoryRow
    validation: Scores


def fit_linear_probe(
    model: keras.Model,
    stage: Stage,
    train: LabelledFeatures,
    validation: LabelledFeatures,
    strengths: Sequence[float] = STRENGTHS,
    class_weight: dict[int, float] | None = None,
) -> LinearProbe:
    """Set the dense layer of ``model`` to the solution that validates best.

    Method: L2-regularised multinomial logistic regression by L-BFGS (scikit-learn), its logits
    divided by the temperature that validation asks for: a strongly regularised head answers right
    and too modestly, and the stages that follow should begin from calibrated answers.

    Args:
        model: a classifier; its backbone is not changed.
        stage: its ``patience`` ends the search, counted in strengths.
        train: the training photos themselves; random views of them hardly helped
            (docs/experiments.md).
        validation: the validation photos.
        strengths: to be tried, ascending.
        class_weight: what each training photo of a class counts, by the class's number; validation
            is scored as it is.

    Returns:
        The scores, whose history has a row for each strength tried in place of an epoch, and what
        they were found with.
    """
    started = time.monotonic()
    part = feature_part(model)
    batched = Batched(lambda maps: [part.predict_on_batch(maps)], BATCH, "the head's features")
    features = partial(_features, batched)
    basis, landmarks = fit_nystroem(partial(features, train), train.targets)
    x = _coordinates(basis, partial(features, train), len(train.targets), landmarks)
    seen = _coordinates(basis, partial(features, validation), len(validation.targets))
    tried: list[Solution] = []
    with progress_bar() as bar:
        task = bar.add_task("Stage head", total=len(strengths))
        path = _path(strengths, (x, train.targets), (seen, validation.targets), class_weight)
        for solution in path:
            tried.append(solution)
            bar.advance(task)
            if len(tried) - _best(tried) >= stage.patience:
                break
        bar.update(task, completed=len(strengths))
    best = tried[_best(tried) - 1]
    set_head(model, *basis.dense(best.coefficients, best.intercept))
    result = StageResult(
        name=stage.name,
        trainable_parameters=model.get_layer(HEAD).count_params(),
        epochs=len(tried),
        kept_epoch=_best(tried),
        seconds=time.monotonic() - started,
        validation=best.validation,
        history=tuple(solution.row for solution in tried),
        temperature=best.temperature,
    )
    return LinearProbe(result, _solver(best.strength, class_weight), x, seen, basis, features)


def _solver(strength: float, class_weight: dict[int, float] | None) -> LogisticRegression:
    return LogisticRegression(
        C=strength,
        class_weight=class_weight,
        tol=TOLERANCE,
        max_iter=ITERATIONS,
        warm_start=True,
    )


def _features(
    part: Batched, photos: LabelledFeatures, numbers: Sequence[int]
) -> Iterator[Float32s]:
    """Yield what the head sees of photos."""
    for maps in photos.maps(numbers):
        for start in range(0, len(maps), BATCH):
            yield np.asarray(part(maps[start : start + BATCH])[0], np.float32)


def _coordinates(
    basis: NystroemFeatures,
    walk: FeatureIterator,
    photos: int,
    landmarks: NDArray[np.int64] | None = None,
) -> Floats:
    """Return the coordinates of all photos; those of the landmarks are known already."""
    result = np.empty((photos, basis.own.shape[1]))
    left = np.arange(photos)
    if landmarks is not None:
        result[landmarks] = basis.own
        left = np.setdiff1d(left, landmarks)
    done, batches = 0, walk(left.tolist())
    while together := list(islice(batches, PROJECTED // BATCH)):
        rows = np.concatenate(together)
        result[left[done : done + len(rows)]] = basis.coordinates(rows)
        done += len(rows)
    return result


def _path(
    strengths: Sequence[float],
    train: tuple[Floats, Ints],
    validation: tuple[Floats, Ints],
    class_weight: dict[int, float] | None,
) -> Iterator[Solution]:
    """Yield the solutions for ascending strengths; coordinates and class numbers are given."""
    (x, targets), (seen, seen_targets) = train, validation
    solver = _solver(strengths[0], class_weight)
    for number, strength in enumerate(strengths, start=1):
        started = time.monotonic()
        solver.set_params(C=strength).fit(x, targets)
        coefficients, intercept = _coefficients(solver)
        temperature = fit_temperature(seen @ coefficients + intercept, seen_targets)
        coefficients, intercept = coefficients / temperature, intercept / temperature
        fitted = score(targets, probabilities_of(x @ coefficients + intercept))
        scores = score(seen_targets, probabilities_of(seen @ coefficients + intercept))
        row = HistoryRow(
            stage="head",
            epoch=number,
            loss=fitted.log_loss,
            accuracy=fitted.accuracy,
            validation_loss=scores.log_loss,
            validation_accuracy=scores.accuracy,
            learning_rate=0.0,
            seconds=time.monotonic() - started,
        )
        say(
            f"head, C {strength:.2g}: loss {row.loss:.4f}, validation log-loss "
            f"{row.validation_loss:.4f}, accuracy {row.validation_accuracy:.4f}"
        )
        yield Solution(strength, coefficients, intercept, temperature, row, scores)


def _coefficients(solver: LogisticRegression) -> tuple[Floats, Floats]:
    """Return ``(rank, classes)`` and ``(classes,)``; scikit-learn keeps one row for two classes."""
    coefficients, intercept = solver.coef_, solver.intercept_
    if len(coefficients) == 1:
        half, offset = coefficients[0] / 2, intercept[0] / 2
        return np.stack([-half, half], axis=1), np.array([-offset, offset])
    return coefficients.T, intercept


def _best(tried: list[Solution]) -> int:
    """Return the number (from 1) of the solution with the lowest validation log-loss."""
    return 1 + int(np.argmin([solution.row.validation_loss for solution in tried]))
