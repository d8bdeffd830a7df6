"""Stage head: softmax regression on second-order features, a convex problem: solved, not trained.

The features are computed in ``app.network.bilinear_pooling``. The head is solved in the space that
``app.training.nystroem`` spans.

No rate, no epochs, no noise: one strength of regularisation after the other, from strong to weak,
until validation says that it is enough. The same features give the same head, whatever the seed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from app.evaluation.ood import embeddings_of
from app.features.batches import BATCH, Float32s, LabelledMaps
from app.features.extractor import FeatureExtractor
from app.network.classifier import HEAD, pooling_part, set_head
from app.training.nystroem import NystroemFeatures, choose_landmarks, each_pair_once, fit_nystroem
from app.training.stage_result import StageResult

# scikit-learn's C, the inverse of the strength: the loss is a sum over photos, and coordinates have
# a mean squared length of 1. On 2,000 photos 10 to 100 did equally well (docs/experiments.md).
STRENGTHS = tuple(10.0 ** (half / 2) for half in range(-2, 8))
NO_LANDMARKS = np.empty(0, np.int64)
PROJECTED = 256  # photos are projected together: this halves the time
TOLERANCE, ITERATIONS = 1e-5, 1000  # of L-BFGS


@dataclass(frozen=True)
class Projection:
    """Photos as the head and the OOD detector see them.

    Attributes:
        coordinates: ``(n, rank)``, in the space in which the head was solved.
        embeddings: float32 ``(n, channels)`` (``app.evaluation.ood``).
    """

    coordinates: Floats
    embeddings: Float32s


@dataclass(frozen=True)
class StrengthTrial:
    """One strength of regularisation: the answer ``x @ coefficients + intercept``, and its scores.

    Attributes:
        strength: scikit-learn's C.
        coefficients: ``(rank, classes)``, divided by ``temperature``.
        intercept: ``(classes,)``, likewise.
        temperature: fitted on validation.
        train: scores on the training photos.
        validation: scores on the validation photos.
        seconds: that solving took.
    """

    strength: float
    coefficients: Floats
    intercept: Floats
    temperature: float
    train: Scores
    validation: Scores
    seconds: float


@dataclass(frozen=True)
class LinearProbe:
    """The solved head, and the photos as it was solved on them.

    Attributes:
        result: scores and history of the stage.
        solver: an unfitted scikit-learn classifier of the chosen strength.
        train: the training photos.
        validation: the validation photos.
        basis: the space that the coordinates lie in.
        extractor: block5's maps → features.
    """

    result: StageResult
    solver: LogisticRegression
    train: Projection
    validation: Projection
    basis: NystroemFeatures
    extractor: FeatureExtractor

    def project(self, photos: LabelledMaps) -> Projection:
        """Return other photos in the same space."""
        return _project(self.basis, self.extractor, photos)


def fit_linear_probe(
    model: keras.Model,
    stage: Stage,
    train: LabelledMaps,
    validation: LabelledMaps,
    strengths: Sequence[float] = STRENGTHS,
    class_weight: dict[int, float] | None = None,
) -> LinearProbe:
    """Set the dense layer of ``model`` to the solution that validates best.

    Method: L2-regularised multinomial logistic regression by L-BFGS (scikit-learn), its logits
    divided by a temperature fitted on validation: a strongly regularised head is often right, but
    its probabilities are too low, and the next stages should begin from calibrated ones.

    Args:
        model: a classifier; its backbone is not changed.
        stage: its ``patience`` ends the search, counted in strengths.
        train: the training photos themselves; random views of them hardly helped
            (docs/experiments.md).
        validation: the validation photos.
        strengths: to be tried, ascending.
        class_weight: the weight of each class in the training loss, by the class's number;
        validation
            is scored without weights.

    Returns:
        The scores, and what they were found with.
    """
    started = time.monotonic()
    part = pooling_part(model)
    channels = part.input.shape[-1]
    extractor = FeatureExtractor(
        lambda maps: [part.predict_on_batch(maps)], BATCH, "the head's features"
    )
    landmarks = choose_landmarks(train.targets)
    features, embeddings = _features_and_embeddings(extractor, train, landmarks, channels)
    basis = fit_nystroem(features)
    known = Projection(basis.landmark_coordinates, embeddings)
    x = _project(basis, extractor, train, landmarks, known)
    x_validation = _project(basis, extractor, validation)
    trials: list[StrengthTrial] = []
    with progress_bar() as bar:
        task = bar.add_task("Stage head", total=len(strengths))
        for trial in _solve(
            strengths,
            (x.coordinates, train.targets),
            (x_validation.coordinates, validation.targets),
            class_weight,
        ):
            trials.append(trial)
            bar.advance(task)
            if len(trials) - _best(trials) >= stage.patience:
                break
        bar.update(task, completed=len(strengths))
    best = trials[_best(trials) - 1]
    set_head(model, *basis.dense(best.coefficients, best.intercept))
    result = StageResult(
        name=stage.name,
        trainable_parameters=model.get_layer(HEAD).count_params(),
        epochs=len(trials),
        kept_epoch=_best(trials),
        seconds=time.monotonic() - started,
        validation=best.validation,
        history=_history(stage.name, trials),
        temperature=best.temperature,
    )
    solver = _solver(best.strength, class_weight)
    return LinearProbe(result, solver, x, x_validation, basis, extractor)


def _solver(strength: float, class_weight: dict[int, float] | None) -> LogisticRegression:
    return LogisticRegression(
        C=strength,
        class_weight=class_weight,
        tol=TOLERANCE,
        max_iter=ITERATIONS,
        warm_start=True,
    )


def _batches(
    extractor: FeatureExtractor, photos: LabelledMaps, numbers: NDArray[np.int64]
) -> Iterator[tuple[Float32s, Float32s]]:
    """Yield what the head sees of photos ``(≤ BATCH, side²)`` and their embeddings."""
    for maps in photos.maps(numbers.tolist()):
        for start in range(0, len(maps), BATCH):
            some = maps[start : start + BATCH]
            yield np.asarray(extractor(some)[0], np.float32), embeddings_of(some)


def _features_and_embeddings(
    extractor: FeatureExtractor, photos: LabelledMaps, landmarks: NDArray[np.int64], channels: int
) -> tuple[Float32s, Float32s]:
    """Return the landmarks' features, each pair once, and their embeddings."""
    # One array from the start: to join batches would take as much again.
    features = np.empty((len(landmarks), channels * (channels + 1) // 2), np.float32)
    embeddings = np.empty((len(landmarks), channels), np.float32)
    done = 0
    for some_features, some_embeddings in _batches(extractor, photos, landmarks):
        rows = slice(done, done + len(some_features))
        features[rows] = each_pair_once(some_features)
        embeddings[rows] = some_embeddings
        done += len(some_features)
    return features, embeddings


def _project(
    basis: NystroemFeatures,
    extractor: FeatureExtractor,
    photos: LabelledMaps,
    landmarks: NDArray[np.int64] = NO_LANDMARKS,
    known: Projection | None = None,
) -> Projection:
    """Return all photos in the space of ``basis``; what is ``known`` of landmarks is copied.

    256 photos are projected together: with smaller groups the landmarks are read more often.
    """
    count = len(photos.targets)
    coordinates = np.empty((count, basis.landmark_coordinates.shape[1]))
    embeddings = np.empty((count, basis.side), np.float32)
    if known is not None:
        coordinates[landmarks], embeddings[landmarks] = known.coordinates, known.embeddings
    others = np.setdiff1d(np.arange(count), landmarks)
    done, batches = 0, _batches(extractor, photos, others)
    while together := list(islice(batches, PROJECTED // BATCH)):
        features, some_embeddings = (np.concatenate(each) for each in zip(*together, strict=True))
        rows = others[done : done + len(features)]
        coordinates[rows] = basis.coordinates(features)
        embeddings[rows] = some_embeddings
        done += len(rows)
    return Projection(coordinates, embeddings)


def _solve(
    strengths: Sequence[float],
    train: tuple[Floats, Ints],
    validation: tuple[Floats, Ints],
    class_weight: dict[int, float] | None,
) -> Iterator[StrengthTrial]:
    """Yield the solutions for ascending strengths; coordinates and class numbers are given."""
    (x, targets), (x_validation, validation_targets) = train, validation
    solver = _solver(strengths[0], class_weight)
    for strength in strengths:
        started = time.monotonic()
        solver.set_params(C=strength).fit(x, targets)
        coefficients, intercept = _coefficients(solver)
        logits = x_validation @ coefficients + intercept
        temperature = fit_temperature(logits, validation_targets)
        coefficients, intercept = coefficients / temperature, intercept / temperature
        trial = StrengthTrial(
            strength,
            coefficients,
            intercept,
            temperature,
            score(targets, probabilities_of(x @ coefficients + intercept)),
            score(validation_targets, probabilities_of(x_validation @ coefficients + intercept)),
            time.monotonic() - started,
        )
        say(
            f"head, C {strength:.2g}: loss {trial.train.log_loss:.4f}, validation log-loss "
            f"{trial.validation.log_loss:.4f}, accuracy {trial.validation.accuracy:.4f}"
        )
        yield trial


def _coefficients(solver: LogisticRegression) -> tuple[Floats, Floats]:
    """Return ``(rank, classes)`` and ``(classes,)``; scikit-learn keeps one row for two classes."""
    coefficients, intercept = solver.coef_, solver.intercept_
    if len(coefficients) == 1:
        half, offset = coefficients[0] / 2, intercept[0] / 2
        return np.stack([-half, half], axis=1), np.array([-offset, offset])
    return coefficients.T, intercept


def _best(trials: Sequence[StrengthTrial]) -> int:
    """Return the number (from 1) of the trial with the lowest validation log-loss."""
    return 1 + int(np.argmin([trial.validation.log_loss for trial in trials]))


def _history(stage: str, trials: Sequence[StrengthTrial]) -> tuple[HistoryRow, ...]:
    """Return the trials as rows of ``history.csv``: their number stands in the column ``epoch``."""
    return tuple(
        HistoryRow(
            stage=stage,
            epoch=number,
            loss=trial.train.log_loss,
            accuracy=trial.train.accuracy,
            validation_loss=trial.validation.log_loss,
            validation_accuracy=trial.validation.accuracy,
            learning_rate=0.0,
            seconds=trial.seconds,
        )
        for number, trial in enumerate(trials, start=1)
    )
